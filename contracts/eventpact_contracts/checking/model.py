"""Everything together, against a model: a state machine that dispatches, holds, lets go, fails and closes as it likes.

The model is a table of what has to become of each event; it knows nothing of the laws, and the laws nothing of it. So
what a judge overlooks, or what only happens when several things come together, has a second chance to be seen.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Final, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from eventpact.domain.dispatcher import Delivery, EventDispatcher
from eventpact.domain.events import DomainEvent
from eventpact_contracts.driver.fingerprints import kin
from eventpact_contracts.driver.probes import STAGE
from eventpact_contracts.driver.recorder import Run
from eventpact_contracts.driver.trace import Kind, Trace
from eventpact_contracts.scenarios import cast
from eventpact_contracts.scenarios.scenario import ALWAYS, Behaviour, Planned, Setting
from eventpact_contracts.scenarios.strategies.parts import USUAL, behaving, failing_or_not
from eventpact_contracts.subjects.subject import Hooks, hooks_of

__all__ = ["Model", "check_against_model"]

T = TypeVar("T")

RELATED: Final = (cast.Shipped, cast.ShippedAbroad, cast.ShippedByAir, cast.ShippedByMule)

_STEPS: Final = 20
_HURRIED: Final = 0.3
"""Seconds to wait for what ought to happen, once something is known to be wrong."""

_SECONDS: Final = 6.0
"""After this long no further example is begun."""


class _Enough(BaseException):
    """Stop. No ``Exception``, because those are counterexamples."""


@dataclass
class Model:
    """What has to become of each event that was dispatched: a table, and nothing of how a dispatcher works."""

    retries: int
    planned: dict[str, Planned] = field(default_factory=dict)

    def faults(self, trace: Trace) -> list[str]:
        """Where the trace is otherwise than the table."""
        seen = {kind: Counter(entry.delivery for entry in trace.of(kind)) for kind in Kind}
        accepted = {entry.event for entry in trace.of(Kind.ACCEPTED)}
        returned = {event for entry in trace.of(Kind.CLOSED) for event in entry.events}
        interruptions = [entry for entry in trace.of(Kind.FAILED) if "Exception" not in entry.exception]
        interrupted = {entry.delivery for entry in interruptions}
        before = list(takewhile(lambda entry: entry.kind is not Kind.CLOSING, trace))
        stopped = {entry.delivery for entry in interruptions if entry not in before}
        outlives = trace.guarantees is not None and trace.guarantees.delivery is Delivery.AT_LEAST_ONCE
        contents = {entry.event: entry.token for entry in trace.of(Kind.DISPATCHED)}
        said = [
            f"{entry.handler} received {entry.token}, which is not what was dispatched"
            for entry in trace.of(Kind.STARTED)
            if contents.get(entry.event) != entry.token
        ]
        for event, planned in {**_children(trace), **self.planned}.items():
            for subscribed, handler in trace.subscriptions:
                delivery = event, handler
                got = tuple(seen[kind][delivery] for kind in (Kind.STARTED, Kind.SUCCEEDED, Kind.REPORTED))
                due = self._due(planned.behaviours.get(handler.rpartition(".")[2], Behaviour()).fails)
                if subscribed != planned.kind.__name__ or event not in accepted:
                    due = (0, 0, 0)
                elif event in returned:
                    continue  # how far it came before it was given up is not for the table to say
                elif outlives and delivery in stopped and got[0] > 1 and got[1]:
                    due = (got[0], 1, 0)  # closing interrupted it, and the engine delivered it again
                elif delivery in interrupted:
                    due = (got[0], 0, 1)
                if got != due:
                    name = f"{trace.labels.get(event, event)} at {handler}"
                    said.append(f"{name}: attempts, successes and reports are {got}, and should be {due}")
        for entry in before:
            if entry.kind in (Kind.REFUSED, Kind.RAISED) and entry.event_type:
                said.append(f"{trace.labels[entry.event]} was {entry.kind.value}, though nothing had closed")
        return said

    def _due(self, fails: int) -> tuple[int, int, int]:
        """Attempts, successes and reports of a delivery that fails so often."""
        if fails == ALWAYS or fails > self.retries:
            return self.retries + 1, 0, 1
        return fails + 1, 1, 0


def _children(trace: Trace) -> dict[str, Planned]:
    """What handlers dispatched in turn: events of which nothing goes wrong."""
    kinds = {kind.__name__: kind for kind in USUAL}
    return {entry.event: Planned(kinds[entry.event_type]) for entry in trace.of(Kind.DISPATCHED) if entry.cause}


class _Place:
    """Where a dispatcher lives: on an event loop in a thread of its own, or nowhere in particular."""

    def __init__(self, hooks: Hooks) -> None:
        self._stack = ExitStack()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.pool = self._stack.enter_context(ThreadPoolExecutor(16, thread_name_prefix="eventpact-caller"))
        if hooks.needs_loop:
            self._loop = asyncio.new_event_loop()
            thread = threading.Thread(target=self._loop.run_forever, name="eventpact-play-loop", daemon=True)
            thread.start()
            self._stack.callback(self._end, self._loop, thread)
        self._opening = hooks.open()
        self.dispatcher: EventDispatcher = self.call(self._opening.__enter__)

    def call(self, function: Callable[[], T]) -> T:
        """Call it where the dispatcher lives, and wait."""
        if self._loop is None:
            return function()

        async def calling() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(calling(), self._loop).result(30)

    def start(self, make: Callable[[], Awaitable[None]]) -> Future[None]:
        """Await what it makes where the dispatcher lives, and do not wait."""

        async def awaiting() -> None:
            await make()

        if self._loop is not None:
            return asyncio.run_coroutine_threadsafe(awaiting(), self._loop)
        return self.pool.submit(lambda: asyncio.run(awaiting()))

    def leave(self) -> None:
        with self._stack:
            self.call(lambda: self._opening.__exit__(None, None, None))

    @staticmethod
    def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


def check_against_model(subject: Any, *, examples: int = 30, seed: int = 0) -> None:
    """Let a state machine do as it likes with the dispatcher.

    Raises:
        AssertionError: what became of an event is otherwise than the model's table; the message has the trace.
        CouldNotRunError: there is no dispatcher to play with.
    """
    hooks = hooks_of(subject)
    setting = Setting(hooks.guarantees, hooks.needs_loop)
    deadline = time.monotonic() + _SECONDS
    found: list[str] = []
    usual = behaving(USUAL, failing_or_not(setting))
    children = st.lists(st.sampled_from(USUAL).map(Planned), min_size=1, max_size=3)

    class Everything(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            if time.monotonic() > deadline:
                raise _Enough
            self.run = Run(STAGE, hooks.guarantees, patience=_HURRIED if found else hooks.settle_timeout)
            STAGE.begin(self.run)
            self.place = _Place(hooks)
            self.run.dispatcher = self.place.dispatcher
            self.model = Model(hooks.guarantees.retries)
            self.held: list[str] = []
            self.started: list[Future[None]] = []

        @rule(planned=usual, thread=st.booleans())
        def dispatch(self, planned: Planned, thread: bool) -> None:
            if thread or hooks.guarantees.blocks_caller:
                self._in_thread(planned)
            else:
                self.place.call(lambda: self._dispatch(planned))

        @rule(kind=st.sampled_from([*RELATED, cast.Noted]))
        def dispatch_what_has_relatives_or_nobody(self, kind: type[DomainEvent]) -> None:
            self.place.call(lambda: self._dispatch(Planned(kind)))

        @rule()
        def dispatch_what_is_cancelled(self) -> None:
            cancelled = Behaviour(fails=ALWAYS, how="CancelledError")
            self._in_thread(Planned(cast.Paid, behaviours={"coroutine": cancelled}))

        @rule(spawns=children)
        def dispatch_what_dispatches(self, spawns: list[Planned]) -> None:
            self._in_thread(Planned(cast.Placed, behaviours={"plain": Behaviour(spawns=tuple(spawns))}))

        @precondition(lambda self: len(self.held) < 3)
        @rule()
        def dispatch_what_is_held(self) -> None:
            self._in_thread(Planned(cast.Priced, behaviours={"coroutine": Behaviour(held=True)}), held=True)

        @precondition(lambda self: bool(self.held))
        @rule(place=st.integers(0, 2))
        def let_go(self, place: int) -> None:
            self.run.release(self.held.pop(place % len(self.held)))

        @rule()
        def dispatch_what_is_no_event(self) -> None:
            self.place.call(lambda: self.run.dispatch_junk(self.place.dispatcher, "None", None, "caller"))

        @precondition(lambda self: not self.run.has_begun())
        @rule(timeout=st.sampled_from([0.0, 5.0]))
        def close(self, timeout: float) -> None:
            self.started.append(self.place.start(lambda: self._close(timeout)))
            self.run.wait(self.run.has_begun, self.run.patience)

        @precondition(lambda self: self.run.has_begun())
        @rule()
        def close_again(self) -> None:
            self.started.append(self.place.start(lambda: self._close(1.0)))

        def teardown(self) -> None:
            run = self.run
            try:
                run.release_all()
                wait(self.started, run.patience)
                if not run.has_begun():
                    self.place.start(lambda: self._close(5.0))
                run.wait(run.has_closed, 2 * run.patience)
                run.wait(run.settled, run.patience)
            finally:
                STAGE.end(run)
                STAGE.forget()
                self.place.leave()
            faults = self.model.faults(run.trace())
            if faults:
                found.append("\n".join([*faults, "", str(run.trace())]))
                raise AssertionError(found[-1])

        def _in_thread(self, planned: Planned, *, held: bool = False) -> None:
            known: Future[str] = Future()
            dispatching = self.place.pool.submit(self._dispatch, planned, known.set_result)
            self.started.append(dispatching)
            event = known.result(self.run.patience)
            if held:
                self.held.append(event)
                here = lambda: self.run.started(event) or self.run.failed_to_start(event)  # noqa: E731
                self.run.wait(here, self.run.patience)
            elif not hooks.guarantees.blocks_caller:
                dispatching.result(self.run.patience)

        def _dispatch(self, planned: Planned, announce: Callable[[str], object] = str) -> None:
            def expect(event: str) -> None:
                self.model.planned[event] = planned
                announce(event)

            self.run.dispatch(self.place.dispatcher, planned, "caller", announce=expect)

        async def _close(self, timeout: float) -> None:
            self.run.closing("closer", timeout)
            self.run.begun("closer")
            try:
                left = await self.place.dispatcher.aclose(timeout)
            except Exception as error:  # noqa: BLE001 - written down
                self.run.write(Kind.RAISED, caller="closer", exception=kin(error), note=str(error))
            else:
                self.run.closed("closer", left, 0.0)

    hypothesis.seed(seed)(Everything)
    quiet = logging.NullHandler()  # what is provoked need not be on the screen
    logging.getLogger().addHandler(quiet)
    try:
        run_state_machine_as_test(
            Everything,
            settings=hypothesis.settings(
                max_examples=examples,
                stateful_step_count=_STEPS,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink],
                print_blob=False,
            ),
        )
    except (_Enough, AssertionError, HypothesisException):
        if not found and time.monotonic() < deadline:
            raise
    finally:
        logging.getLogger().removeHandler(quiet)
    if found:
        raise AssertionError(min(found, key=len))
