"""Opens a dispatcher as it wants to be opened, plays a script over it, and tells what happened."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, nullcontext

from eventpact.domain.dispatcher import EventDispatcher
from eventpact_contracts.driver.driver import PlayError, in_loop, in_threads, watched
from eventpact_contracts.driver.fingerprints import kin
from eventpact_contracts.driver.leaks import Leftovers, tasks_watched
from eventpact_contracts.driver.probes import STAGE
from eventpact_contracts.driver.recorder import Run
from eventpact_contracts.driver.scheduled_loop import ScheduledLoop
from eventpact_contracts.driver.trace import Kind, Trace
from eventpact_contracts.scenarios.scenario import Script
from eventpact_contracts.subjects.subject import CouldNotRunError, Hooks

__all__ = ["perform"]


def perform(hooks: Hooks, script: Script, patience: float) -> tuple[Trace, str]:
    """Play the script; return what happened and, where it did not come to its end, why.

    Raises:
        CouldNotRunError: there is no dispatcher to play over.
    """
    run = Run(
        STAGE,
        hooks.guarantees,
        patience=patience,
        sink_raises=script.sink_raises,
        virtual=script.schedule is not None,
    )
    STAGE.begin(run)
    broken = ""
    try:
        with _log_watched(script, run), Leftovers(script) as leftovers:
            try:
                watched(lambda: _Performance(hooks, run, script).perform(), 6 * hooks.settle_timeout + 30.0)
            except PlayError as error:
                broken = str(error)
            leftovers.look(run)
    finally:
        STAGE.end(run)
        STAGE.forget()
    hooks.longest = max(hooks.longest, run.took)
    return run.trace(), broken


class _Performance:
    def __init__(self, hooks: Hooks, run: Run, script: Script) -> None:
        self._hooks, self._run, self._script = hooks, run, script

    def perform(self) -> None:
        """Open a dispatcher where it wants to be, and play the script over it."""
        if self._script.impossible is not None:
            self._build()
        elif self._script.loop_gone:
            self._without_its_loop()
        elif self._hooks.needs_loop or self._script.schedule is not None:
            self._in_its_loop()
        elif self._hooks.slow and not self._script.close:
            self._play_over(self._kept())
        else:
            self._let_go()  # an engine that is slow to start may allow but one at a time
            with _fresh(self._hooks) as dispatcher:
                self._play_over(dispatcher)
                if not self._run.has_closed():
                    asyncio.run(_put_away(dispatcher, self._run))

    def _play_over(self, dispatcher: EventDispatcher) -> None:
        with self._unavailable():
            if self._script.inside_loop:
                asyncio.run(self._play_inside(dispatcher))
            else:
                in_threads(self._run, dispatcher, self._script)

    async def _play_inside(self, dispatcher: EventDispatcher) -> None:
        async with tasks_watched(self._script, self._run):
            await in_loop(self._run, dispatcher, self._script)

    @contextmanager
    def _unavailable(self) -> Generator[None]:
        """What the engine cannot do without is away for the while, where the script says so."""
        with self._hooks.subject.unavailable() if self._script.unavailable else nullcontext():
            yield

    def _in_its_loop(self) -> None:
        scheduled = None if self._script.schedule is None else ScheduledLoop(self._script.schedule)
        if scheduled is not None:
            self._run.clock = scheduled.time
        try:
            with asyncio.Runner(loop_factory=None if scheduled is None else lambda: scheduled) as running:
                running.run(self._in_loop())
        finally:
            if scheduled is not None:
                self._run.schedule = scheduled.explain()

    async def _in_loop(self) -> None:
        async with tasks_watched(self._script, self._run):
            await self._in_loop_watched()

    async def _in_loop_watched(self) -> None:
        with _fresh(self._hooks) as dispatcher:
            with self._unavailable():
                await in_loop(self._run, dispatcher, self._script)
            if not self._run.has_closed():
                await _put_away(dispatcher, self._run)

    def _without_its_loop(self) -> None:
        """The loop that the dispatcher was built in is closed by the time that it is used."""
        with ExitStack() as stack:

            async def build() -> EventDispatcher:
                return stack.enter_context(_fresh(self._hooks))

            in_threads(self._run, asyncio.run(build()), self._script)

    def _build(self) -> None:
        """Build with what cannot be."""
        wrong = self._script.impossible
        assert wrong is not None

        def build() -> None:
            try:
                with self._hooks.subject.subject(wrong.handlers(), STAGE.on_failure):
                    self._run.write(Kind.BUILT, handler=wrong.what, note=wrong.what)
            except Exception as error:  # noqa: BLE001 - written down, for law A4 to judge
                self._run.write(
                    Kind.REJECTED,
                    handler=wrong.what,
                    exception=kin(error),
                    note=str(error),
                    token=" or ".join(wrong.culprits),
                )

        async def build_in_loop() -> None:
            build()

        if self._hooks.needs_loop:
            asyncio.run(build_in_loop())
        else:
            build()

    def _kept(self) -> EventDispatcher:
        """The one that stays open from script to script."""
        hooks = self._hooks
        if hooks.kept is None:
            assert hooks.keeper is not None
            hooks.keeper.callback(self._let_go)
            with ExitStack() as opening:
                dispatcher = opening.enter_context(_fresh(hooks))
                hooks.kept = dispatcher, opening.pop_all()
        return hooks.kept[0]

    def _let_go(self) -> None:
        if self._hooks.kept is not None:
            (dispatcher, opened), self._hooks.kept = self._hooks.kept, None
            with opened:
                asyncio.run(_put_away(dispatcher))


@contextmanager
def _fresh(hooks: Hooks) -> Generator[EventDispatcher]:
    opening = hooks.open()
    try:
        dispatcher = opening.__enter__()
    except Exception as error:
        raise CouldNotRunError(f"subject() raised {type(error).__name__}: {error}") from error
    try:
        yield dispatcher
    finally:
        try:
            opening.__exit__(None, None, None)
        except Exception as error:
            raise CouldNotRunError(f"leaving subject() raised {type(error).__name__}: {error}") from error


async def _put_away(dispatcher: EventDispatcher, run: Run | None = None) -> None:
    """Close what a script left open; how it closes is for other laws to judge."""
    settled = run is None or run.settled()
    try:
        await asyncio.wait_for(dispatcher.aclose(1.0 if settled else 0.0), 5.0)
    except Exception:
        logging.getLogger("eventpact").debug("closing after a script raised", exc_info=True)


@contextmanager
def _log_watched(script: Script, run: Run) -> Generator[None]:
    watcher = _LogWatcher(run if script.sink_raises else None)
    logging.getLogger().addHandler(watcher)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(watcher)


class _LogWatcher(logging.Handler):
    """Writes down that something was logged; and keeps what scripts provoke from the screen, if nobody else listens."""

    def __init__(self, run: Run | None) -> None:
        super().__init__(logging.WARNING)
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        if self._run is not None:
            self._run.write(Kind.LOGGED, note=f"{record.name} {record.levelname}")
