"""Scenarios: the steps that the suite takes with a dispatcher, as data.

Callers take steps, and each event has a plan for its handlers. A scenario says nothing about the outcome that is
due: that is for the laws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from eventpact.domain.dispatcher import Guarantees
from eventpact.domain.events import DomainEvent
from eventpact_contracts.scenarios import steps
from eventpact_contracts.scenarios.events import ROLES
from eventpact_contracts.scenarios.invalid import InvalidRegistration
from eventpact_contracts.scenarios.schedule import Schedule

__all__ = [
    "ALWAYS",
    "NOTHING",
    "Caller",
    "EventPlan",
    "HandlerPlan",
    "Scenario",
    "Traits",
]

S = TypeVar("S", bound=steps.Step)

FLOODED: Final = "a flood of"
"""Begins the hindrance of one that many events are dispatched to, of which it may refuse some."""

WITHOUT_LOOP: Final = "a loop that is"
"""Begins the hindrance of a dispatcher whose loop does not run."""

_FLOOD: Final = 500
"""So many deliveries may be too many for a dispatcher."""

_RECOVERY_SECONDS: Final = 40.0
"""An engine that was unavailable may take so long until it works again."""

_SLOW_SECONDS: Final = 0.2
_LONG_SECONDS: Final = 4.0

ALWAYS: Final = -1
"""As a number of failures: every attempt fails."""


@dataclass(frozen=True)
class Traits:
    """The traits of a subject that the strategies have to know."""

    guarantees: Guarantees
    needs_loop: bool = False
    depth: int = 1_200
    """The depth that a cascade may have: less where an event takes milliseconds."""
    quick: bool = True
    """Thousands of events are no trouble."""
    async_handlers: bool = True
    """An ``async def handle`` may be registered."""
    schedulable: bool = False
    """It runs on an event loop whose schedule can be chosen."""
    has_schedulable_tasks: bool = False
    """It does so at least where each handler is a coroutine: others may have threads."""
    empty_lists: bool = False
    """An event type may be registered with an empty list of handlers."""
    in_memory: bool = False
    """It has no engine that is slow to open or outlives it, which two of them might share."""


@dataclass(frozen=True)
class HandlerPlan:
    """The behaviour of one handler with one event.

    Attributes:
        fails: how many attempts fail; :data:`ALWAYS` for all.
        how: the name of the exception: see :mod:`eventpact_contracts.scenarios.failures`.
        then: the name of that of later attempts, where it is another one.
        held: whether it waits until the scenario lets it go on, before all else.
        resists: whether it goes on waiting when it is cancelled, the first time.
        report_held: whether the failure sink does so, when this is reported to it.
        pauses: how often an ``async def`` handler gives way before it ends.
        seconds: how long it takes.
        spawns: the events that it dispatches in turn.
        non_events: the objects that are no events, by number, that it dispatches likewise.
        beside: the events that it dispatches to a neighbour: another dispatcher of the same class.
        afterwards: the events that a thread dispatches, in a copy of its context, once the event is settled.
        returns: whether it returns something that is not ``None``, and means nothing.
        pauses_after: after how many lines the thread that called it pauses, once it has ended: see
            :class:`eventpact_contracts.driver.threads.Pausing`.
    """

    fails: int = 0
    how: str = "ValueError"
    then: str = ""
    held: bool = False
    resists: bool = False
    report_held: bool = False
    pauses: int = 0
    seconds: float = 0.0
    spawns: tuple[EventPlan, ...] = ()
    non_events: tuple[int, ...] = ()
    beside: tuple[EventPlan, ...] = ()
    afterwards: tuple[EventPlan, ...] = ()
    returns: bool = False
    pauses_after: int | None = None


NOTHING: Final = HandlerPlan()
"""The plan of a handler that just succeeds."""


@dataclass(frozen=True)
class EventPlan:
    """An event that will be dispatched.

    Attributes:
        kind: its type.
        values: its fields, save the ``event_id``, which is always new.
        handlers: plans of its handlers, by role; a handler that is not mentioned succeeds.
        chain: how many more events of its type follow from it, each dispatched by the handler of the one before.
    """

    kind: type[DomainEvent]
    values: Mapping[str, Any] = field(default_factory=dict)
    handlers: Mapping[str, HandlerPlan] = field(default_factory=dict)
    chain: int = 0

    def of(self, handler: str) -> HandlerPlan:
        """The plan of a handler, by its name."""
        return self.handlers.get(handler.rpartition(".")[2], NOTHING)

    def children(self, handler: str) -> tuple[EventPlan, ...]:
        """The events that a handler dispatches."""
        if self.chain and handler.rpartition(".")[2] == ROLES[self.kind][0]:
            return (*self.of(handler).spawns, EventPlan(self.kind, values=self.values, chain=self.chain - 1))
        return self.of(handler).spawns

    def __repr__(self) -> str:
        said = [f"{name}={value!r}" for name, value in self.values.items()]
        said += [f"{role}: {plan!r}" for role, plan in self.handlers.items()]
        said += [f"chain={self.chain}"] if self.chain else []
        return f"{self.kind.__name__}({', '.join(said)})"


@dataclass(frozen=True)
class Caller:
    """A caller, who takes steps one after the other.

    Attributes:
        steps: the steps.
        thread: whether it is a thread of its own, also where the others are tasks of an event loop.
        own_loop: whether that thread runs an event loop of its own, in which it takes its steps.
    """

    steps: tuple[steps.Step, ...]
    thread: bool = False
    own_loop: bool = False


@dataclass(frozen=True)
class Scenario:
    """The steps that are taken with a dispatcher in one run.

    Attributes:
        events: the events, which steps name by number.
        callers: the callers, all at once.
        inside_loop: whether the callers run inside an event loop, where the dispatcher does not need one.
        sink_raises: the name of the exception that the failure sink raises, if it does.
        registration: build a dispatcher with this, and do nothing more.
        close: whether it is about closing, so that it needs a dispatcher of its own.
        leaks: whether to look for leaks.
        schedule: the order in which ready tasks run.
        releases: where there are no tasks whose order could be chosen: the order in which held handlers go on.
        loop_gone: the events are dispatched when the dispatcher's event loop is ``stopped``, or ``closed``.
        unavailable: whether they are dispatched while the engine is unavailable.
        interleaved: whether callers that are threads give way in the middle of ``dispatch``, again and again.
        forgotten: whether nobody but the dispatcher knows the handlers.
        only: the event types that have handlers, where not all of them have.
    """

    events: tuple[EventPlan, ...] = ()
    callers: tuple[Caller, ...] = ()
    inside_loop: bool = False
    sink_raises: str = ""
    registration: InvalidRegistration | None = None
    close: bool = False
    leaks: bool = False
    schedule: Schedule | None = None
    releases: tuple[int, ...] = ()
    loop_gone: str = ""
    unavailable: bool = False
    interleaved: bool = False
    forgotten: bool = False
    only: tuple[type[DomainEvent], ...] | None = None

    @property
    def hindrance(self) -> str:
        """The reason for which a dispatcher may have to refuse, other than closing; empty if there is none."""
        if self.loop_gone:
            return f"{WITHOUT_LOOP} {self.loop_gone}"
        if self.unavailable:
            return "an engine that is unavailable"
        number = sum(
            flood.limit * len(ROLES.get(self.events[flood.event].kind, ())) for flood in self.steps_of(steps.Flood)
        )
        return f"{FLOODED} {number:,} deliveries" if number >= _FLOOD else ""

    @property
    def may_delay(self) -> bool:
        """Return whether an event may be late with good reason: a thread is, where the loop's clock has run ahead."""
        return bool(self.hindrance) or self.schedule is not None

    def on_one_loop(self) -> Scenario:
        """The same with callers that are tasks, as far as it is not about threads, or about pauses in them."""
        apart = self.interleaved or any(map(self.steps_of, (steps.DispatchPaused, steps.AwaitPaused)))
        about = {type(step) for caller in self.callers for step in caller.steps} - {steps.Dispatch}
        if apart or not about or any(caller.own_loop for caller in self.callers):
            return self
        return replace(self, callers=tuple(replace(caller, thread=False) for caller in self.callers))

    def steps_of(self, kind: type[S]) -> list[S]:
        """The steps of a kind, of all callers."""
        return [step for caller in self.callers for step in caller.steps if isinstance(step, kind)]

    @property
    def handler_plans(self) -> list[HandlerPlan]:
        """The plans of the handlers of all events."""
        return [plan for event in self.events for plan in event.handlers.values()]

    @property
    def has_neighbour(self) -> bool:
        """Return whether another dispatcher of the same class, with handlers of its own, is open at the same time."""
        return any(plan.beside for plan in self.handler_plans)

    @property
    def seconds(self) -> float:
        """Return how long its closing, its handlers and its rests may take, even where nothing is slow."""
        return sum(self._closings) + sum(plan.seconds for plan in self.handler_plans) + self._rests

    @property
    def quiet_seconds(self) -> float:
        """Return for how long nothing may happen in it: one closing or handler is at work, or the caller rests."""
        return max((*self._closings, *(plan.seconds for plan in self.handler_plans)), default=0.0) + self._rests

    @property
    def _closings(self) -> list[float]:
        return [step.timeout + 1.0 for step in self.steps_of(steps.Close)]

    @property
    def _rests(self) -> float:
        away = _RECOVERY_SECONDS if self.unavailable else 0.0
        return sum(rest.seconds for rest in self.steps_of(steps.Rest)) + away

    @property
    def pieces(self) -> int:
        """Return how many events floods and chains consist of, beside those that are listed."""
        return sum(flood.limit for flood in self.steps_of(steps.Flood)) + sum(event.chain for event in self.events)

    @property
    def has_many_loops(self) -> bool:
        """Return whether there are callers with event loops of their own."""
        return any(caller.own_loop for caller in self.callers)

    @property
    def pauses_a_call(self) -> bool:
        """Return whether a call of ``dispatch`` pauses half-way."""
        return bool(self.steps_of(steps.DispatchPaused))

    @property
    def mostly_waits(self) -> bool:
        """Return whether it takes its time with any dispatcher: a handler does, or closing, which has to give up."""
        plans = self.handler_plans
        if any(plan.pauses_after is not None for plan in plans):
            return False  # it is a matter of milliseconds who comes first
        is_held = any(plan.held or plan.report_held for plan in plans)
        gives_up = is_held and any(step.timeout < _LONG_SECONDS for step in self.steps_of(steps.Close))
        rests = bool(self.steps_of(steps.Rest))
        return gives_up or rests or sum(plan.seconds for plan in plans) >= _SLOW_SECONDS

    @property
    def bears_others(self) -> bool:
        """Return whether other scenarios may be played beside it, and it beside them."""
        alone = self.leaks or self.loop_gone or self.unavailable or self.forgotten or self.registration is not None
        # What another logs would be taken for its own; and a matter of milliseconds is not to be left to others.
        fine = any(plan.pauses_after is not None or (plan.fails and plan.seconds > 0.1) for plan in self.handler_plans)
        return not (alone or self.sink_raises or fine)

    @property
    def size(self) -> tuple[int, int]:
        """Return how much there is to read: scenarios are shrunk by this."""
        return len(self.events) + sum(len(caller.steps) for caller in self.callers), len(repr(self))
