"""The driver takes the steps of a scenario's callers, as threads or as tasks, and waits until everything is settled."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import nullcontext, suppress
from functools import partial
from inspect import isawaitable
from typing import Any, Final

from eventpact_contracts.driver.conditions import Until
from eventpact_contracts.driver.gates import Delay, Obstacle, announced, run_awaiting, run_blocking
from eventpact_contracts.driver.program import Program
from eventpact_contracts.driver.recorder import raised
from eventpact_contracts.driver.threads import Lateness, giving_way, in_thread, restless
from eventpact_contracts.driver.trace import Kind
from eventpact_contracts.scenarios import steps
from eventpact_contracts.scenarios.invalid import NON_EVENTS
from eventpact_contracts.scenarios.scenario import Caller, Scenario

__all__ = ["Driver"]

_OVERTIME_SECONDS: Final = 2.0
"""Seconds past the second of grace after which ``aclose`` is given up."""

_CANCELLED_SECONDS: Final = 0.03
"""Seconds after which ``aclose`` is cancelled, where the scenario says so."""

_MAX_ROUNDS: Final = 10
"""So often the suite goes on waiting because something still happens."""

_BLOCKED_SECONDS: Final = 0.5
"""Seconds that one dispatch of a flood takes only where the caller waits for handlers, so that there is no flood."""

_MAX_REFUSALS: Final = 15
"""So often a flood goes on when it is refused."""

_LATE_SECONDS: Final = 0.5
"""Seconds in which handlers that were let go after closing may come to their end."""

_HURRIED_SECONDS: Final = 1.0
"""Seconds that one wait lasts at least where another has been in vain."""

_REPORT_SECONDS: Final = 0.02
"""Seconds in which one that failed then may be reported; whoever has called it calls the next one sooner, too."""

_BUSY_SECONDS: Final = 2.5
"""Seconds that a loop is kept busy at most: a dispatcher that needs it in order to accept has refused by then."""

_GATHERING_SECONDS: Final = 0.02
"""Seconds in which other handlers may come to be held too, before the first is let go on. Nothing is judged by it."""

_Steps = Generator[Obstacle, Any, None]


class Driver:
    """Takes the steps of one scenario.

    Attributes:
        took: how many seconds it took until everything was settled, but for the time that handlers take.
        patience: how many seconds to wait for something that has to happen.
    """

    def __init__(self, program: Program, scenario: Scenario, patience: float, *, blocks_caller: bool) -> None:
        self.took = 0.0
        self._blocks_caller = blocks_caller
        self.patience = patience
        self._program, self._scenario = program, scenario
        self._recorder, self._conditions = program.recorder, program.recorder.conditions
        self._ids: dict[int, str] = {}
        self._is_held_up = False
        self._pausing = program.pausing
        self._slowest = max((plan.seconds for plan in scenario.handler_plans), default=0.0)
        several = len(scenario.callers) > 1
        self._names = [f"caller {number}" if several else "caller" for number in range(1, len(scenario.callers) + 1)]

    def in_threads(self) -> None:
        """Drive it where no event loop runs: each caller in a thread of its own, if there are several."""
        scenario = self._scenario
        self._pausing.spare_this_thread()
        if len(scenario.callers) == 1 and not scenario.callers[0].thread:
            run_blocking(self._steps(scenario.callers[0], self._names[0]))
        elif scenario.callers:
            start = threading.Barrier(len(scenario.callers) + 1)

            def act(caller: Caller, name: str) -> None:
                start.wait(self.patience)
                self._take_steps(caller, name)

            with restless():
                callers = zip(scenario.callers, self._names, strict=True)
                acting = [in_thread(partial(act, caller, name)) for caller, name in callers]
                start.wait(self.patience)
                run_blocking(self._releases())
                for each in acting:
                    each.result()

    async def in_loop(self) -> None:
        """Drive it on the running event loop: each caller is a task, or a thread where the scenario says so."""
        scenario = self._scenario
        self._pausing.spare_this_thread()
        loop = asyncio.get_running_loop()
        threads = [caller.thread for caller in scenario.callers].count(True)
        start = None if scenario.schedule is not None or threads < 2 else threading.Barrier(threads)

        def act(caller: Caller, name: str) -> None:
            if start is not None:
                start.wait(self.patience)
            self._take_steps(caller, name)

        def place(caller: Caller, name: str) -> Awaitable[None]:
            if not caller.thread:
                return loop.create_task(run_awaiting(self._steps(caller, name)), name=name)
            if scenario.schedule is not None:
                return loop.run_in_executor(None, act, caller, name)  # a step like any other, on such a loop
            return asyncio.wrap_future(in_thread(partial(act, caller, name)))

        with restless():
            placed = [place(caller, name) for caller, name in zip(scenario.callers, self._names, strict=True)]
            await run_awaiting(self._releases())
            await asyncio.gather(*placed)

    def settle(self) -> None:
        """Wait until nothing more is to happen, and make sure of it."""
        run_blocking(self._settling())

    async def settle_in_loop(self) -> None:
        await run_awaiting(self._settling())

    def _take_steps(self, caller: Caller, name: str) -> None:
        with giving_way() if self._scenario.interleaved else nullcontext():
            if caller.own_loop:
                asyncio.run(run_awaiting(self._steps(caller, name)))
            else:
                run_blocking(self._steps(caller, name))

    def _until(self, condition: Callable[[], bool], seconds: float | None = None) -> Until:
        return Until(self._conditions, condition, self.patience if seconds is None else seconds)

    def _wait(self, condition: Callable[[], bool]) -> _Steps:
        """Wait for something. Waits in vain add up: after one of them, others are shorter."""
        if not (yield self._until(condition)):
            self.patience = min(self.patience, max(_HURRIED_SECONDS, self.patience / 5))

    def _steps(self, caller: Caller, name: str) -> _Steps:
        conditions, program = self._conditions, self._program
        for step in caller.steps:
            match step:
                case steps.Dispatch(event):
                    self._dispatch(event, name)
                case steps.DispatchPaused(event, place):
                    made = program.make(self._scenario.events[event], partial(self._ids.setdefault, event))
                    self._pausing.call(partial(program.dispatch_event, made, name), place)
                case steps.AwaitPaused(event):
                    yield from self._wait(partial(self._is_paused, event))
                case steps.Resume():
                    self._pausing.resume()
                case steps.DispatchNonEvent(number):
                    program.dispatch_non_event(*NON_EVENTS[number], name)
                case steps.Flood(event, limit):
                    self._flood(event, limit, name)
                case steps.AwaitStarted(event):
                    yield from self._wait(partial(self._is_held, event))
                case steps.AwaitEnded(event, seconds):
                    yield self._until(partial(self._has_ended, event), seconds)
                case steps.AwaitReturned(event, seconds):
                    yield self._until(partial(self._has_returned, event), seconds)
                case steps.AwaitBegun():
                    yield from self._wait(conditions.has_begun)
                case steps.AwaitClosed():
                    yield self._until(conditions.has_closed, 2 * self.patience + self._scenario.seconds)
                case steps.Rest(seconds):
                    yield Delay(seconds)
                case steps.CollectGarbage():
                    gc.collect(1)  # the younger generations, where everything of this scenario is
                case steps.Release(event):
                    if event in self._ids:
                        program.release(self._ids[event])
                case steps.Close(timeout, event, by_thread, cancelled):
                    before = None if event is None else partial(self._dispatch, event, name)
                    if before is not None and by_thread:
                        before = partial(_by_thread, before)
                    yield _Closing(program, name, timeout, before, cancelled=cancelled)

    def _is_paused(self, event: int | None) -> bool:
        return self._pausing.is_reached or (event is not None and self._has_ended(event))

    def _dispatch(self, event: int, name: str) -> None:
        # Known before dispatch returns, which it need not do before the event is released.
        self._program.dispatch(
            self._scenario.events[event], name, announce=lambda known: self._ids.setdefault(event, known)
        )

    def _flood(self, event: int, limit: int, name: str) -> None:
        refused = 0
        for _ in range(0 if self._is_held_up else limit):
            started = self._recorder.clock()
            self._dispatch(event, name)
            refused += self._recorder.entries[-1].kind is Kind.REFUSED
            self._is_held_up = self._recorder.clock() - started > _BLOCKED_SECONDS
            if refused == _MAX_REFUSALS or self._is_held_up:
                break

    def _is_held(self, event: int) -> bool:
        known = self._ids.get(event, "")
        return bool(known) and (self._conditions.held(known) or self._conditions.not_accepted(known))

    def _has_ended(self, event: int) -> bool:
        return self._conditions.ended(self._ids.get(event, ""))

    def _has_returned(self, event: int) -> bool:
        return self._conditions.returned(self._ids.get(event, ""))

    def _releases(self) -> _Steps:
        """Let held handlers go on: of those that are held at a time, the first in the scenario's order."""
        left = list(self._scenario.releases)
        gone = []
        while left:
            yield from self._wait(lambda: any(map(self._is_held, left)))
            yield self._until(lambda: all(map(self._is_held, left)), _GATHERING_SECONDS)
            event = next((each for each in left if self._is_held(each)), left[0])
            left.remove(event)
            gone.append(event)
            if event in self._ids:
                self._program.release(self._ids[event])
        if gone:
            order = ", ".join(f"event {event + 1}" for event in gone)
            self._recorder.describe(schedule=f"held handlers went on in this order: {order}")
        if self._blocks_caller or self._scenario.schedule is None:
            yield from self._let_callers_go()

    def _let_callers_go(self) -> _Steps:
        """Let all handlers go on once everybody has closed: one that was not cancelled keeps its caller waiting.

        That of a dispatcher, too, which does not claim to block its callers, and does.
        """
        if closings := len(self._scenario.steps_of(steps.Close)):
            all_closed = partial(self._conditions.has_closed, closings)
            yield self._until(all_closed, 2 * self.patience + self._scenario.seconds)
            if self._blocks_caller or self._conditions.has_open_calls():
                self._program.release_all()

    def _is_settled(self) -> bool:
        """Return whether nothing is pending, and no thread that a handler has begun is still to dispatch."""
        return self._conditions.settled() and self._program.are_threads_done()

    def _is_settled_or_endless(self) -> bool:
        return self._is_settled() or self._program.tries_without_end()

    def _settling(self) -> _Steps:
        program, recorder, conditions = self._program, self._recorder, self._conditions
        for event, caller in program.doubtful:  # as a careful caller does, once the engine answers again
            program.dispatch_event(event, caller)
        program.release_all()
        started = recorder.clock()
        # A marker fails like the others, so it comes through no sooner than they; it need not wait for them first.
        passed = program.mark() if program.failed_once and not conditions.has_begun() else None
        marked = len(recorder.entries)
        while True:
            while not ((yield self._until(self._is_settled_or_endless, self._left(started))) and self._is_settled()):
                is_late = recorder.clock() - started > _MAX_ROUNDS * self.patience
                if is_late or self._left(started) <= 0 or program.tries_without_end():
                    recorder.write(Kind.OVERDUE, timeout=recorder.clock() - started)
                    return
            if passed is None and not conditions.has_begun():
                marked = len(recorder.entries)
                passed = program.mark()
            if passed is None:
                break
            if not (yield self._until(passed)):
                if not (program.failed_once or self._scenario.may_delay):
                    program.lose_marker()
                    recorder.write(Kind.OVERDUE, timeout=self.patience)
                return
            if not any(entry.kind is Kind.DISPATCHED for entry in recorder.entries[marked:]):
                break
            # A handler that nobody waited for, because its event was left in doubt, has dispatched more meanwhile.
            passed = None
        self.took = recorder.clock() - started - sum(plan.seconds for plan in self._scenario.handler_plans)
        if conditions.has_closed():  # what was given up may still end, and be reported, though it must not be
            yield self._until(conditions.idle, _LATE_SECONDS)
            yield self._until(conditions.told, _REPORT_SECONDS)
            if conditions.ended_late():  # and whatever called it may go on to the next
                yield Delay(_REPORT_SECONDS)
                yield self._until(conditions.idle, _LATE_SECONDS)
        recorder.write(Kind.IDLE)

    def _left(self, started: float) -> float:
        """Return for how long to wait yet: as long as something happens, it is only slow."""
        last = max((started, *(entry.time for entry in self._recorder.entries[-1:])))
        return last + self.patience + self._slowest - self._recorder.clock()


def _by_thread(act: Callable[[], object]) -> None:
    """Act in a thread, and wait for it without letting the loop run: as long as ``dispatch`` may take, and longer."""
    with suppress(FutureTimeoutError):
        in_thread(act).exception(_BUSY_SECONDS)


class _Closing:
    """The obstacle of a caller who closes the dispatcher."""

    def __init__(
        self, program: Program, caller: str, timeout: float, before: Callable[[], object] | None, *, cancelled: bool
    ) -> None:
        self._program, self._recorder = program, program.recorder
        self._caller, self._timeout, self._before = caller, timeout, before
        self._seconds = _CANCELLED_SECONDS if cancelled else timeout + 1.0 + _OVERTIME_SECONDS
        self._vain = Kind.CANCELLED if cancelled else Kind.OVERDUE
        self._is_given_up = False

    def block(self) -> bool:
        return asyncio.run(self.wait())

    async def wait(self) -> bool:
        closing = asyncio.ensure_future(self._close())
        done, _ = await asyncio.wait({closing}, timeout=self._seconds)
        if done:
            return closing.result()
        self._is_given_up = True
        self._recorder.write(self._vain, caller=self._caller, timeout=self._seconds)
        closing.cancel()
        await asyncio.wait({closing}, timeout=_OVERTIME_SECONDS)
        return False

    async def _close(self) -> bool:
        """Close, and record it in the same step of the loop, so that nothing comes between."""
        recorder, caller, dispatcher = self._recorder, self._caller, self._program.dispatcher
        assert dispatcher is not None
        if self._before is not None:
            self._before()
        recorder.write(Kind.CLOSING, caller=caller, timeout=self._timeout)
        try:
            with Lateness() as lateness:
                aclose = dispatcher.aclose(self._timeout)
                if not isawaitable(aclose):
                    raise TypeError(f"aclose is no async def: it returned {ascii(aclose)[:80]}")
                left = await announced(aclose, lambda: recorder.write(Kind.BEGUN, caller=caller))
        except BaseException as error:  # noqa: BLE001 - recorded, for the laws to judge
            if not self._is_given_up:
                recorder.write(Kind.RAISED, caller=caller, **raised(error))
            return False
        if self._is_given_up:
            return False
        self._program.closed(caller, left, lateness.seconds)
        return True
