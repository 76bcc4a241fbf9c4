"""A session opens a dispatcher in a thread or in an event loop, runs one scenario over it, and returns the trace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from eventpact.domain.dispatcher import EventDispatcher
from eventpact_contracts.driver.driver import Driver
from eventpact_contracts.driver.gates import HANGS, closed
from eventpact_contracts.driver.leaks import Leaks, TaskLeaks, forget
from eventpact_contracts.driver.probes import PROBES, subscriptions_in
from eventpact_contracts.driver.program import NEIGHBOUR, Program
from eventpact_contracts.driver.recorder import LogWatcher, Recorder, id_of, logging_to, raised
from eventpact_contracts.driver.scheduled_loop import ScheduledLoop, StuckError
from eventpact_contracts.driver.threads import in_thread
from eventpact_contracts.driver.trace import Kind, Trace
from eventpact_contracts.scenarios.failures import text_of
from eventpact_contracts.scenarios.scenario import Scenario
from eventpact_contracts.subjects.subject import CouldNotRunError, Subject

__all__ = ["Run", "Unfinished", "run_scenario"]

_GUARD_SECONDS: Final = 3.0
"""For this much longer than the waits that a scenario consists of nothing may happen in it, before it is given up."""
_MAX_GUARDS: Final = 3
"""So many times as long a scenario may take as long as something still happens in it."""

_BLOCKED_SECONDS: Final = 0.7
_LOOK_SECONDS: Final = 0.2
"""Between two looks at whether something still happens."""

_EVENT_SECONDS: Final = 0.03
"""An event of a flood or a chain takes no longer than this, on a machine that is busy with other things."""


class Unfinished(Exception):  # noqa: N818 - a state of a scenario, not a fault of the suite
    """A scenario did not come to its end; the text says why."""


class Interrupted(Unfinished):
    """An interruption of a handler went through the dispatcher and its loop, and ended the scenario."""


class _TooSlowError(Unfinished):
    """The dispatcher is still at work, long after the scenario should have ended."""


class _NeedsThreadsError(Unfinished):
    """The dispatcher has threads of its own, which a loop that follows a schedule has no place for."""


@dataclass(frozen=True)
class Run:
    """One scenario that was run.

    Attributes:
        trace: everything that happened.
        unfinished: why it did not come to its end, if it did not.
        excused: whether that shows nothing of the dispatcher: an interruption of a handler ended it, or the suite
            could not follow a schedule.
    """

    trace: Trace
    unfinished: str = ""
    excused: bool = False


def run_scenario(subject: Subject, scenario: Scenario, patience: float) -> Run:
    """Run the scenario, and wait ``patience`` seconds for each thing that has to happen.

    Raises:
        CouldNotRunError: there is no dispatcher to run it over.
    """
    recorder = Recorder(
        subscriptions_in(scenario, usual=subject.usual_handlers),
        subject.guarantees,
        virtual=scenario.schedule is not None,
        outlives=subject.outlives,
        on_loop=subject.needs_loop,
        hindrance=scenario.hindrance,
        sink_raises=bool(scenario.sink_raises),
    )
    program = Program(
        recorder,
        bound=subject.dispatch_bound,
        retries=subject.guarantees.retries,
        sink_raises=scenario.sink_raises,
        repeats=not scenario.unavailable,
        claim=lambda event: PROBES.claim(event, program),
    )
    driver = Driver(program, scenario, patience, blocks_caller=subject.guarantees.blocks_caller)
    session = _Session(subject, scenario, program, driver)
    PROBES.begin(program)
    unfinished, excused = "", False
    try:
        watcher = LogWatcher(recorder if scenario.sink_raises else None)
        with logging_to(watcher), Leaks(scenario) as leaks:
            try:
                guard = 2 * patience + _GUARD_SECONDS
                most = _MAX_GUARDS * (guard + patience + scenario.seconds) + scenario.pieces * _EVENT_SECONDS
                _guarded(session, guard + scenario.quiet_seconds, most, recorder)
            except Unfinished as error:
                if session.put_away_at is not None:
                    session.note_hanging(f"{HANGS}, nor let its thread go")
                else:
                    unfinished = str(error)
                    excused = isinstance(error, Interrupted | _NeedsThreadsError | _TooSlowError)
            leaks.look(program)
    finally:
        PROBES.end(program)
    if scenario.schedule is None:  # whose clock is another
        subject.longest = max(subject.longest, session.driver.took)
    return Run(recorder.trace(), unfinished, excused)


def _guarded(session: _Session, seconds: float, most: float, recorder: Recorder) -> None:
    """Run it in another thread, and leave it alone if nothing happens in it for so long, or for ``most`` in all.

    Raises:
        Unfinished: it did not come back in time, or it was interrupted.
        Exception: as it raised.
    """
    running = in_thread(session.run)
    deadline, seen, since = time.monotonic() + most, 0, time.monotonic()
    while True:
        try:
            error = running.exception(min(seconds, _LOOK_SECONDS))
            break
        except FutureTimeoutError:
            now = time.monotonic()
            if len(recorder.entries) > seen:
                seen, since = len(recorder.entries), now
            if now > since + seconds or session.is_in_vain(now):
                raise Unfinished(f"nothing happened for {seconds:g} s") from None
            if now > deadline:
                raise _TooSlowError(f"it was still at work after {most:g} s") from None
    if isinstance(error, StuckError):
        raise Unfinished(str(error)) from error
    if error is not None and not isinstance(error, Exception):
        raise Interrupted(f"{type(error).__name__} ended the scenario: {text_of(error)}") from error
    if error is not None:
        raise error


class _Session:
    """One dispatcher, opened for one scenario.

    Attributes:
        put_away_at: when closing the dispatcher began that the scenario had left open, as long as it lasts.
    """

    put_away_at: float | None = None

    def __init__(self, subject: Subject, scenario: Scenario, program: Program, driver: Driver) -> None:
        self.driver = driver
        self._subject, self._scenario, self._program = subject, scenario, program
        self._recorder = program.recorder

    def run(self) -> None:
        """Open a dispatcher where it wants to be, and drive the scenario over it."""
        scenario, subject = self._scenario, self._subject
        if scenario.registration is not None:
            self._build()
        elif scenario.loop_gone:
            self._without_its_loop()
        elif subject.needs_loop or scenario.schedule is not None:
            self._in_its_loop()
        elif subject.slow and not scenario.close and not scenario.forgotten:
            with self._kept() as dispatcher:
                self._drive(dispatcher)
        else:
            self._let_go()  # there may be but so many at a time
            with self._opened() as dispatcher, self._beside():
                self._drive(dispatcher)
                if not self._recorder.conditions.has_closed():
                    asyncio.run(self._put_away(dispatcher))

    def _drive(self, dispatcher: EventDispatcher) -> None:
        self._program.dispatcher = dispatcher
        if self._scenario.inside_loop:
            asyncio.run(self._drive_inside())
            return
        with self._unavailable():
            self.driver.in_threads()
        self.driver.settle()

    async def _drive_inside(self) -> None:
        await self._drive_in_loop(TaskLeaks(self._scenario))

    async def _drive_in_loop(self, leaks: TaskLeaks) -> None:
        with self._unavailable():
            await self.driver.in_loop()
        await leaks.look(self._recorder)  # before the handlers that are held still are let go
        await self.driver.settle_in_loop()

    @contextmanager
    def _unavailable(self) -> Generator[None]:
        """Make the engine unavailable for the while, where the scenario says so."""
        with ExitStack() as stack:
            try:
                if self._scenario.unavailable:
                    stack.enter_context(self._subject.hooks.unavailable())
            except Exception as error:
                raise CouldNotRunError(f"unavailable() raised {type(error).__name__}: {text_of(error)}") from error
            yield

    def _in_its_loop(self) -> None:
        scheduled = None if self._scenario.schedule is None else ScheduledLoop(self._scenario.schedule)
        if scheduled is not None:
            self._recorder.clock = scheduled.time
        try:
            # To be reached by another thread the wrong way is a matter of luck for a loop, except in debug mode.
            debug, factory = self._scenario.has_many_loops or None, None if scheduled is None else lambda: scheduled
            with asyncio.Runner(debug=debug, loop_factory=factory) as running:
                running.run(self._in_loop())
        except StuckError:
            if scheduled is None or not scheduled.strangers:
                raise
        finally:
            if scheduled is not None:
                self._recorder.describe(schedule=scheduled.explain())
        if scheduled is not None and scheduled.strangers:
            raise _NeedsThreadsError(f"{scheduled.strangers[0]} is a thread of the dispatcher's own")

    async def _in_loop(self) -> None:
        leaks = TaskLeaks(self._scenario)
        with self._opened() as dispatcher, self._beside():
            self._program.dispatcher = dispatcher
            await self._drive_in_loop(leaks)
            if not self._recorder.conditions.has_closed():
                await self._put_away(dispatcher)

    def _without_its_loop(self) -> None:
        """Drive it in threads; the loop that the dispatcher was built in is stopped or closed by then."""

        async def enter(opening: AbstractContextManager[EventDispatcher]) -> EventDispatcher:
            return stack.enter_context(opening)

        with asyncio.Runner() as runner, ExitStack() as stack:
            self._program.dispatcher = runner.run(enter(self._opened()))
            if is_closed := self._scenario.loop_gone == "closed":
                runner.close()
            self.driver.in_threads()
            # Should its loop run once more, it delivers what it took nevertheless.
            (asyncio.run if is_closed else runner.run)(self.driver.settle_in_loop())

    def _build(self) -> None:
        """Build with a registration that cannot be."""
        wrong = self._scenario.registration
        assert wrong is not None

        def build() -> None:
            try:
                with self._subject.open(wrong.handlers(), PROBES.on_failure):
                    self._recorder.write(Kind.BUILT, handler=wrong.what, note=wrong.what)
            except Exception as error:  # noqa: BLE001 - recorded, for law A4 to judge
                culprits = " or ".join(wrong.culprits)
                self._recorder.write(Kind.REJECTED, handler=wrong.what, **raised(error), token=culprits)

        async def build_in_loop() -> None:
            build()

        if self._subject.needs_loop:
            asyncio.run(build_in_loop())
        else:
            build()

    @contextmanager
    def _kept(self) -> Generator[EventDispatcher]:
        """One that stays open from scenario to scenario. What does not come to its end keeps it to itself."""
        subject = self._subject
        if subject.kept:
            kept = subject.kept.pop()
        else:
            subject.keeper.callback(self._let_go)
            with ExitStack() as opening:
                kept = opening.enter_context(self._opened()), opening.pop_all()
        try:
            yield kept[0]
        finally:
            subject.kept.append(kept)

    def _let_go(self) -> None:
        while self._subject.kept:
            dispatcher, opened = self._subject.kept.pop()
            with opened:
                asyncio.run(closed(dispatcher, 1.0, 2.0))

    @contextmanager
    def _beside(self) -> Generator[None]:
        """Open a neighbour, where the scenario has one and the dispatcher can have any."""
        with ExitStack() as stack:
            if self._scenario.has_neighbour:
                with suppress(CouldNotRunError):
                    self._program.neighbour = stack.enter_context(self._opened(NEIGHBOUR))
            yield

    @contextmanager
    def _opened(self, owner: str = "") -> Generator[EventDispatcher]:
        subject, forgotten = self._subject, self._scenario.forgotten
        make = PROBES.new_handlers if forgotten else PROBES.handlers
        kinds = {"async_handlers": subject.async_handlers, "usual": subject.usual_handlers}
        handlers = make(**kinds, empty=subject.empty_lists, owner=owner)
        if (only := self._scenario.only) is not None:  # no comprehension, whose cell would keep all of them alive
            handlers = dict(zip(only, map(handlers.__getitem__, only), strict=True))
        opening = subject.open(handlers, PROBES.on_failure)
        try:
            dispatcher = opening.__enter__()
        except Exception as error:
            raise CouldNotRunError(f"subject() raised {type(error).__name__}: {text_of(error)}") from error
        if forgotten:
            forget(handlers)
        del handlers
        try:
            yield dispatcher
        finally:
            try:
                opening.__exit__(None, None, None)
            except Exception as error:
                raise CouldNotRunError(f"leaving subject() raised {type(error).__name__}: {text_of(error)}") from error

    async def _put_away(self, dispatcher: EventDispatcher) -> None:
        """Close a dispatcher that a scenario left open. Where nothing is pending, it has nothing to return."""
        settled = self._recorder.conditions.settled()
        self._recorder.cut_short = not settled
        with_time = settled and not self._subject.hangs
        for each in (dispatcher, self._program.neighbour):
            self.put_away_at = time.monotonic()
            undelivered, failure = await closed(each, 1.0 if with_time else 0.0, 2.0 if with_time else 0.5)
            self.put_away_at = None
            if failure.startswith(HANGS):
                self.note_hanging(failure)
            elif settled and (undelivered or failure):
                self._recorder.write(Kind.PUT_AWAY, events=tuple(map(id_of, undelivered)), note=failure)

    def is_in_vain(self, now: float) -> bool:
        """Return whether it is being put away, as others were in vain, and has blocked its thread."""
        return self._subject.hangs and self.put_away_at is not None and now > self.put_away_at + _BLOCKED_SECONDS

    def note_hanging(self, how: str) -> None:
        """Note that putting it away had no end; where something is pending, it may wait for that."""
        self._subject.hangs = True
        if self._recorder.conditions.settled():
            self._recorder.write(Kind.PUT_AWAY, note=how)
