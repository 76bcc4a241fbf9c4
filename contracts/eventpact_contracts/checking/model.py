"""Everything together, against a model: a state machine that dispatches, holds, lets go, fails and closes at random.

The model is a table of the outcome that each event must have. It knows nothing of the laws, and the laws nothing of it.
So a fault that a judge overlooks, or that only shows when several things come together, has a second chance to be seen.
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
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from eventpact.domain.dispatcher import Delivery, EventDispatcher
from eventpact.domain.events import DomainEvent
from eventpact_contracts.checking.warm_up import find_home
from eventpact_contracts.driver.probes import PROBES, SUBSCRIPTIONS
from eventpact_contracts.driver.program import Program
from eventpact_contracts.driver.recorder import Recorder, logging_to, raised
from eventpact_contracts.driver.threads import THREAD_PREFIX
from eventpact_contracts.driver.trace import Entry, Kind, Trace
from eventpact_contracts.scenarios import events
from eventpact_contracts.scenarios.drawing import EnoughDrawn, quiet_settings
from eventpact_contracts.scenarios.events import FAMILY, ROLES, label_of
from eventpact_contracts.scenarios.failures import PERMANENT, text_of
from eventpact_contracts.scenarios.scenario import ALWAYS, EventPlan, HandlerPlan
from eventpact_contracts.scenarios.strategies.parts import ANY, USUAL, failing_or_not, planning
from eventpact_contracts.subjects.subject import CouldNotRunError, Subject

__all__ = ["Model", "check_against_model"]

T = TypeVar("T")

_MAX_STEPS: Final = 20
_HURRIED_SECONDS: Final = 0.3
"""Seconds to wait for expected events, once something is known to be wrong."""

_MAX_SECONDS: Final = 6.0
"""After this long no further example is begun."""


@dataclass
class Model:
    """The outcome that each event must have: a table, and nothing of how a dispatcher works."""

    retries: int
    plans: dict[str, EventPlan] = field(default_factory=dict)

    def faults(self, trace: Trace) -> list[str]:
        """Return where the trace is otherwise than the table."""
        seen = {kind: Counter(entry.delivery for entry in trace.of(kind)) for kind in Kind}
        accepted = {entry.event for entry in trace.of(Kind.ACCEPTED)}
        returned = {event for entry in trace.of(Kind.CLOSED) for event in entry.events}
        interruptions = [entry for entry in trace.of(Kind.FAILED) if entry.interruption]
        interrupted = {entry.delivery for entry in interruptions}
        before = list(takewhile(lambda entry: entry.kind is not Kind.CLOSING, trace))
        stopped = {entry.delivery for entry in interruptions if entry not in before}
        at_least_once = trace.guarantees is not None and trace.guarantees.delivery is Delivery.AT_LEAST_ONCE
        outlives = trace.outlives or at_least_once
        contents = {entry.event: entry.token for entry in trace.of(Kind.DISPATCHED)}
        said = [
            f"{entry.handler} received {entry.token}, which is not what was dispatched"
            for entry in trace.of(Kind.STARTED)
            if contents.get(entry.event) != entry.token
        ]
        for event, plan in {**_children(trace), **self.plans}.items():
            for subscribed, handler in trace.subscriptions:
                delivery = event, handler
                got = tuple(seen[kind][delivery] for kind in (Kind.STARTED, Kind.SUCCEEDED, Kind.REPORTED))
                handled = plan.handlers.get(handler.rpartition(".")[2], HandlerPlan())
                due = self._due(handled.fails, permanent=handled.how in PERMANENT)
                if subscribed != label_of(plan.kind) or event not in accepted:
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
            if entry.kind in (Kind.REFUSED, Kind.RAISED) and entry.event_type and entry.event not in accepted:
                if "DispatchUncertainError" in entry.exception or self._may_be_full(before, entry):
                    continue  # laws A2 and A5 allow it
                said.append(f"{trace.labels[entry.event]} was {entry.kind.value}, though nothing had closed")
        return said

    def _may_be_full(self, before: list[Entry], refused: Entry) -> bool:
        """Return whether much was pending when an event was refused."""
        so_far = before[: before.index(refused)]
        accepted = [entry for entry in so_far if entry.kind is Kind.ACCEPTED]
        ended = {entry.delivery for entry in so_far if entry.kind in (Kind.SUCCEEDED, Kind.REPORTED)}
        handlers = {label_of(kind): len(roles) for kind, roles in ROLES.items()}
        pending = sum(handlers.get(entry.event_type, 0) for entry in accepted) - len(ended)
        return refused.kind is Kind.REFUSED and pending > 2

    def _due(self, fails: int, *, permanent: bool) -> tuple[int, int, int]:
        """Attempts, successes and reports of a delivery that fails so often."""
        if permanent and fails:
            return 1, 0, 1
        if fails == ALWAYS or fails > self.retries:
            return self.retries + 1, 0, 1
        return fails + 1, 1, 0


def _children(trace: Trace) -> dict[str, EventPlan]:
    """The events that handlers dispatched in turn: nothing goes wrong with them."""
    kinds = {label_of(kind): kind for kind in USUAL}
    return {entry.event: EventPlan(kinds[entry.event_type]) for entry in trace.of(Kind.DISPATCHED) if entry.cause}


class _Home:
    """The home of a dispatcher: an event loop in a thread of its own, or none in particular."""

    def __init__(self, subject: Subject) -> None:
        self._stack = ExitStack()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.pool = self._stack.enter_context(ThreadPoolExecutor(16, thread_name_prefix=THREAD_PREFIX))
        if subject.needs_loop:
            self._loop = asyncio.new_event_loop()
            thread = threading.Thread(target=self._loop.run_forever, name=f"{THREAD_PREFIX}-loop", daemon=True)
            thread.start()
            self._stack.callback(self._end, self._loop, thread)
        self._opening = subject.open(PROBES.handlers(async_handlers=subject.async_handlers), PROBES.on_failure)
        try:
            self.dispatcher: EventDispatcher = self.call(self._opening.__enter__)
        except Exception as error:
            raise CouldNotRunError(f"subject() raised {type(error).__name__}: {text_of(error)}") from error

    def call(self, function: Callable[[], T]) -> T:
        """Call it where the dispatcher lives, and wait."""
        if self._loop is None:
            return function()

        async def calling() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(calling(), self._loop).result(30)

    def start(self, make: Callable[[], Awaitable[None]]) -> Future[None]:
        """Await its result where the dispatcher lives, and do not wait."""

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


def check_against_model(subject: Any, *, examples: int = 30, seed: int = 0) -> tuple[int, int]:
    """Let a state machine do as it likes with the dispatcher.

    Returns how many runs were judged, and how many events in them.

    Raises:
        AssertionError: the end of an event differs from the model's table; the message has the trace.
        CouldNotRunError: there is no dispatcher to play with, or no event was judged.
    """
    known = Subject.of(subject)
    find_home(known)
    deadline = time.monotonic() + _MAX_SECONDS
    found: list[str] = []
    judged: list[int] = []
    usual = planning((*USUAL, *ANY), failing_or_not(known.traits))
    children = st.lists(st.sampled_from(USUAL).map(EventPlan), min_size=1, max_size=3)

    class Everything(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            if time.monotonic() > deadline:
                raise EnoughDrawn
            self.patience = _HURRIED_SECONDS if found else known.settle_timeout
            self.recorder = Recorder(SUBSCRIPTIONS, known.guarantees, outlives=known.outlives, on_loop=known.needs_loop)
            self.conditions = self.recorder.conditions
            self.program = Program(
                self.recorder,
                retries=known.guarantees.retries,
                claim=lambda event: PROBES.claim(event, self.program),
            )
            PROBES.begin(self.program)
            self.home = _Home(known)
            self.program.dispatcher = self.home.dispatcher
            self.model = Model(known.guarantees.retries)
            self.held: list[str] = []
            self.started: list[Future[None]] = []

        @rule(plan=usual, thread=st.booleans())
        def dispatch(self, plan: EventPlan, thread: bool) -> None:
            if thread or known.guarantees.blocks_caller:
                self._in_thread(plan)
            else:
                self.home.call(lambda: self._dispatch(plan))

        @rule(kind=st.sampled_from([*FAMILY, events.Noted]))
        def dispatch_what_has_relatives_or_nobody(self, kind: type[DomainEvent]) -> None:
            self.home.call(lambda: self._dispatch(EventPlan(kind)))

        @rule()
        def dispatch_what_is_cancelled(self) -> None:
            cancelled = HandlerPlan(fails=ALWAYS, how="CancelledError")
            self._in_thread(EventPlan(events.Paid, handlers={"coroutine": cancelled}))

        @rule(spawns=children)
        def dispatch_what_dispatches(self, spawns: list[EventPlan]) -> None:
            self._in_thread(EventPlan(events.Placed, handlers={"plain": HandlerPlan(spawns=tuple(spawns))}))

        @precondition(lambda self: len(self.held) < 3)
        @rule()
        def dispatch_what_is_held(self) -> None:
            self._in_thread(EventPlan(events.Priced, handlers={"coroutine": HandlerPlan(held=True)}), held=True)

        @precondition(lambda self: bool(self.held))
        @rule(place=st.integers(0, 2))
        def let_go(self, place: int) -> None:
            self.program.release(self.held.pop(place % len(self.held)))

        @rule()
        def dispatch_what_is_no_event(self) -> None:
            self.home.call(lambda: self.program.dispatch_non_event("None", None, "caller"))

        @precondition(lambda self: not self.conditions.has_begun())
        @rule(timeout=st.sampled_from([0.0, 5.0]))
        def close(self, timeout: float) -> None:
            self.started.append(self.home.start(lambda: self._close(timeout)))
            self.conditions.wait(self.conditions.has_begun, self.patience)

        @precondition(lambda self: self.conditions.has_begun())
        @rule()
        def close_again(self) -> None:
            self.started.append(self.home.start(lambda: self._close(1.0)))

        def teardown(self) -> None:
            conditions = self.conditions
            try:
                self.program.release_all()
                wait(self.started, self.patience)
                if not conditions.has_begun():
                    self.home.start(lambda: self._close(5.0))
                conditions.wait(conditions.has_closed, 2 * self.patience)
                conditions.wait(conditions.settled, self.patience)
            finally:
                PROBES.end(self.program)
                self.home.leave()
            trace = self.recorder.trace()
            judged.append(len(self.model.plans))
            if faults := self.model.faults(trace):
                found.append("\n".join([*faults, "", str(trace)]))
                raise AssertionError(found[-1])

        def _in_thread(self, plan: EventPlan, *, held: bool = False) -> None:
            announced: Future[str] = Future()
            dispatching = self.home.pool.submit(self._dispatch, plan, announced.set_result)
            self.started.append(dispatching)
            event = announced.result(self.patience)
            if held:
                self.held.append(event)
                here = lambda: self.conditions.held(event) or self.conditions.not_accepted(event)  # noqa: E731
                self.conditions.wait(here, self.patience)
            elif not known.guarantees.blocks_caller:
                dispatching.result(self.patience)

        def _dispatch(self, plan: EventPlan, announce: Callable[[str], object] = str) -> None:
            def expect(event: str) -> None:
                self.model.plans[event] = plan
                announce(event)

            self.program.dispatch(plan, "caller", announce=expect)

        async def _close(self, timeout: float) -> None:
            self.recorder.write(Kind.CLOSING, caller="closer", timeout=timeout)
            self.recorder.write(Kind.BEGUN, caller="closer")
            try:
                left = await self.home.dispatcher.aclose(timeout)
            except Exception as error:  # noqa: BLE001 - recorded
                self.recorder.write(Kind.RAISED, caller="closer", **raised(error))
            else:
                self.program.closed("closer", left, 0.0)

    hypothesis.seed(seed)(Everything)
    try:
        with logging_to(logging.NullHandler()):
            run_state_machine_as_test(Everything, settings=quiet_settings(examples, steps=_MAX_STEPS))
    except AssertionError:
        if not found:
            raise  # an assertion of the suite itself, which is no verdict
    except (EnoughDrawn, HypothesisException):
        if not found and time.monotonic() < deadline:
            raise
    if found:
        raise AssertionError(min(found, key=len))
    if not any(judged):
        raise CouldNotRunError("no event was dispatched")
    return len(judged), sum(judged)
