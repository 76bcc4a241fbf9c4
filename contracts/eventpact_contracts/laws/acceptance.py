"""A1 to A5: the events that ``dispatch`` takes, those that it refuses, and how."""

from __future__ import annotations

from itertools import chain

from eventpact.domain.events import DomainEvent
from eventpact_contracts.driver.trace import Kind
from eventpact_contracts.laws.law import Fault, law
from eventpact_contracts.laws.spans import Call
from eventpact_contracts.laws.view import TraceView
from eventpact_contracts.scenarios import events, steps
from eventpact_contracts.scenarios.events import ROLES
from eventpact_contracts.scenarios.scenario import WITHOUT_LOOP, Caller, EventPlan, HandlerPlan, Scenario, Traits
from eventpact_contracts.scenarios.strategies.closing import let_go_while_closing
from eventpact_contracts.scenarios.strategies.concurrent import full_when_closing
from eventpact_contracts.scenarios.strategies.parts import FLOOD, in_turn
from eventpact_contracts.scenarios.strategies.routing import every_content, every_invalid, every_non_event

__all__: list[str] = []

_LATE_KINDS = (events.Placed, events.Priced, events.Noted)

_PARTS = 9
"""So many times other handlers get their turn in a flood that some do not take part in."""


def _non_events(view: TraceView) -> int:
    return sum(not entry.event_type for entry in view.trace.of(Kind.DISPATCHED))


@law(
    "A1",
    families=("no events",),
    fixed=every_non_event,
    observations=_non_events,
    causes=(
        "what has no handler is dropped before anyone looks at what it is",
        "what is false or empty is dropped before anyone looks at what it is",
        "an object that looks like an event is taken for one",
    ),
    rogue="omnivorous",
)
def only_events(view: TraceView) -> Fault | None:
    """Find an object that is no event and was not refused with a ``TypeError``."""
    for call in view.calls:
        if call.start.event_type:
            continue
        if call.end is None or call.accepted:
            became = "never returned" if call.end is None else "accepted it"
            return Fault(f"{call.start.note} is no event, and dispatch {became}")
        if "TypeError" not in call.end.exception and not (call.refused_as_closed and _late(view, call)):
            return Fault(
                f"{call.start.note} is no event, and dispatch raised {call.end.exception[0]} instead of TypeError"
            )
    for entry in view.trace.of(Kind.STARTED):
        if entry.event in view.types and not view.types[entry.event]:
            return Fault(f"what is no event was delivered to {entry.handler}: {entry.token}")
    return None


def _late(view: TraceView, call: Call) -> bool:
    return view.closing is not None and call.ended is not None and call.ended > view.closing


def _refusals(view: TraceView) -> int:
    return sum(call.refused for call in view.calls)


def _cannot_accept(traits: Traits) -> tuple[Scenario, ...]:
    """A flood of events, a loop that is closed, an engine that is unavailable."""
    held_up = EventPlan(events.Crowded, handlers={role: HandlerPlan(held=True) for role in ROLES[events.Crowded]})
    found = []
    if traits.quick and not traits.guarantees.blocks_caller:
        # Should it block its caller all the same, the caller gets free, and the flood ends: law G1 has its say.
        rescuer = Caller((steps.AwaitStarted(0), steps.AwaitReturned(0, 1.0), steps.Release(0)), thread=True)
        # Who must not wait on the loop may wait in a thread, after the flood, and have his event refused in the end.
        flooding = Caller((steps.Flood(0, FLOOD // 5), steps.Dispatch(1)))  # each with several deliveries
        last = Caller((steps.AwaitReturned(1), steps.Dispatch(0), steps.Dispatch(0)), thread=True)  # one was let go
        plans = (held_up, EventPlan(events.Noted))
        found.append(Scenario(plans, (flooding, rescuer, last), inside_loop=True, close=True))
        found += [_full_for_some(rescuer), full_when_closing(5.0), full_when_closing(0.02)]
    if traits.needs_loop:
        gone = tuple(EventPlan(kind) for kind in (events.Priced, events.Placed, events.Paid, *events.ODD)) * 3
        found += [Scenario(gone, (in_turn(len(gone)),), loop_gone=how, close=True) for how in ("closed", "stopped")]
    plans = (EventPlan(events.Paid), EventPlan(events.Placed))
    found.append(Scenario(plans, (in_turn(2),), unavailable=True))
    return tuple(found)


def _full_for_some(rescuer: Caller) -> Scenario:
    """A flood of events of which some handlers are held, and others have time for theirs."""
    held = {role: HandlerPlan(held=True) for role in ROLES[events.Paid][2:]}
    plans = (EventPlan(events.Paid, handlers=held), *(EventPlan(events.Placed) for _ in range(_PARTS)))
    parts = (
        (steps.Flood(0, FLOOD // 3 // _PARTS), steps.Dispatch(number), steps.AwaitEnded(number, 0.05))
        for number in range(1, 1 + _PARTS)
    )
    return Scenario(plans, (Caller(tuple(chain(*parts))), rescuer), inside_loop=True, close=True)


@law(
    "A2",
    families=("closed", "racing"),
    fixed=_cannot_accept,
    observations=_refusals,
    causes=(
        "one message or task for each handler, and the second one could not be sent",
        "the event is queued first, and whether it can be taken is asked afterwards",
        "a time-out after sending raises DispatchError instead of DispatchUncertainError",
        "an event that was left in doubt is dispatched again, and handled once more for each time",
    ),
    rogue="halfhearted",
)
def all_or_nothing(view: TraceView) -> Fault | None:
    """Find a refused event that was delivered, or one in doubt whose repetition did harm."""
    for event, calls in view.calls_of.items():
        if any(call.in_doubt for call in calls):
            if fault := _harmful(view, event, calls):
                return fault
            continue
        if not any(call.refused for call in calls) or event in view.accepted:
            continue
        if received := view.receivers(event):
            return Fault(f"{view.name(event)} was refused, and delivered to {', '.join(dict.fromkeys(received))}")
    return None


def _harmful(view: TraceView, event: str, calls: list[Call]) -> Fault | None:
    """Find the harm in dispatching an event again that was left in doubt."""
    times = sum(call.accepted or call.in_doubt for call in calls)
    what = f"{view.name(event)} was dispatched {times} times, as it was in doubt"
    for handler in view.handlers_of(event):
        attempts, reports = view.attempts.get((event, handler), []), view.reports.get((event, handler), [])
        if len(attempts) > times * view.allowed and not any(view.trace.of(Kind.CRASHED)):
            return Fault(f"{what}, and {handler} had {len(attempts)} attempts")
        if len(reports) > times:
            return Fault(f"{what}, and the failure of {handler} was reported {len(reports)} times")
        if event in view.accepted and not attempts and view.closing is None and view.is_unbroken:
            return Fault(f"{what}, and accepted in the end, and {handler} never received it")
    return None


def _dispatched_late(view: TraceView) -> int:
    return 0 if view.begun is None else sum(call.began > view.begun for call in view.calls)


def _still_closed(traits: Traits) -> tuple[Scenario, ...]:
    """Events that are dispatched by a handler that had begun before; after closing was cancelled; and to a full one."""
    found = [_dispatching_late(events.Placed, "plain"), _dispatching_late(events.Priced, "coroutine")]
    if traits.in_memory:
        found.append(_cancelled_closing())
    if traits.quick and not traits.guarantees.blocks_caller:
        found.append(_full_and_closing())
    return tuple(found)


def _cancelled_closing() -> Scenario:
    """Closing waits for a handler, and is cancelled; events are dispatched then, with and without a handler."""
    plans = (EventPlan(events.Placed, handlers={"plain": HandlerPlan(held=True)}), *map(EventPlan, _LATE_KINDS))
    late = tuple(steps.Dispatch(number) for number in range(1, len(plans)))
    closing = Caller((steps.AwaitStarted(0), steps.Close(0.5, cancelled=True), *late, steps.Release(0)))
    return Scenario(plans, (Caller((steps.Dispatch(0),), thread=True), closing), close=True)


def _dispatching_late(kind: type[DomainEvent], role: str) -> Scenario:
    """A handler that has begun before dispatches while closing waits for it."""
    spawning = HandlerPlan(held=True, spawns=tuple(map(EventPlan, _LATE_KINDS)))
    return let_go_while_closing(EventPlan(kind, handlers={role: spawning}))


def _full_and_closing() -> Scenario:
    """Closing begins when no other event could be taken, if the dispatcher is ever full."""
    held = EventPlan(events.Placed, handlers={"plain": HandlerPlan(held=True)})
    flooding = Caller((steps.Flood(0, FLOOD), steps.Close(0.1)))
    late = Caller((steps.AwaitBegun(), steps.Dispatch(1), steps.Dispatch(2), steps.Release(0)), thread=True)
    return Scenario((held, EventPlan(events.Placed), EventPlan(events.Noted)), (flooding, late), close=True)


@law(
    "A3",
    families=("closed", "racing", "paused"),
    fixed=_still_closed,
    cancelled=True,
    observations=_dispatched_late,
    causes=(
        "the flag is set when closing ends instead of when it begins",
        "whether there is a handler is asked first, and whether it is closed afterwards",
        "a closed dispatcher takes events, and drops them",
        "closing that is cancelled takes back that it has begun",
    ),
    rogue="undead",
)
def closed(view: TraceView) -> Fault | None:
    """Find an event that was dispatched after closing had begun, and not refused as it should be."""
    begun = view.begun
    if begun is None:
        return None
    for call in view.calls:
        if call.began < begun or not call.start.event_type:
            continue
        what = f"{view.name(call.event)} was dispatched after closing had begun, and"
        if call.end is None or call.accepted:
            return Fault(f"{what} {'dispatch never returned' if call.end is None else 'was accepted'}")
        if "DispatcherClosedError" not in call.end.exception:
            if call.end.interruption:
                continue
            return Fault(f"{what} dispatch raised {call.end.exception[0]} instead of DispatcherClosedError")
        if received := view.receivers(call.event):
            return Fault(f"{what} it was delivered to {received[0]}")
    return None


def _registrations(view: TraceView) -> int:
    return sum(1 for _ in view.trace.of(Kind.BUILT, Kind.REJECTED))


@law(
    "A4",
    fixed=every_invalid,
    observations=_registrations,
    causes=(
        "the handlers are stored unseen; SubscriptionTable in eventpact.infrastructure.dispatching checks them",
        "only the first handler of a type, or only the first type, is looked at",
    ),
    rogue="careless",
)
def refused_early(view: TraceView) -> Fault | None:
    """Find an impossible registration that was taken, or refused without a reason."""
    for entry in view.trace.of(Kind.BUILT):
        return Fault(f"a dispatcher was built with {entry.note}")
    for entry in view.trace.of(Kind.REJECTED):
        if "RegistrationError" not in entry.exception:
            return Fault(f"with {entry.handler}, building raised {entry.exception[0]} instead of RegistrationError")
        if not any(culprit in entry.note for culprit in entry.token.split(" or ")):
            return Fault(
                f"with {entry.handler}, the message does not name what is wrong, {entry.token}: {entry.note!r}"
            )
    return None


def _refusals_while_open(view: TraceView) -> int:
    return sum(call.refused and not call.refused_as_closed for call in view.calls)


@law(
    "A5",
    families=("closed",),
    fixed=lambda traits: (*_cannot_accept(traits), *every_content(traits)),
    observations=_refusals_while_open,
    likeness=_refusals,
    causes=(
        "publishing retries, or waits for the broker, without a time-out",
        "the coroutine is made first, and the loop that should run it is asked for afterwards",
        "the error of the engine or of the loop reaches the caller as it is",
        "a field that the engine cannot write down raises the engine's error",
    ),
    rogue="patient",
)
def bounded(view: TraceView) -> Fault | None:
    """Find a call that did not refuse as it should, where it could not accept."""
    nested = any(call.start.cause for call in view.calls)
    for call in view.calls:
        if call.accepted and view.trace.hindrance.startswith(WITHOUT_LOOP):
            for handler in view.handlers_of(call.event):
                if (call.event, handler) not in view.attempts:
                    why = view.trace.hindrance
                    return Fault(f"{view.name(call.event)} was accepted, with {why}, and {handler} never received it")
        if call.accepted or not call.start.event_type:
            continue
        what = f"dispatching {view.name(call.event)}"
        if call.end is None:
            if nested or len(view.callers) > 1 or view.closing is not None:
                continue  # a deadlock is law C2's, C1's or L3's
            return Fault(f"{what} never returned")
        if call.raised and not view.failed_during(call):  # a handler's failure is for law I1 or I4 to judge
            return Fault(f"{what} raised {call.end.exception[0]} instead of a DispatchError: {call.end.note}")
        took = call.end.time - call.start.time
        if call.refused and call.end.bound is not None and took > call.end.bound and not view.trace.virtual:
            return Fault(f"{what} was refused after {took:.2f} s, and {call.end.bound:g} s are allowed", timed=True)
    if any(call.refused or call.raised for call in view.calls):
        for note in view.left:
            if "never awaited" in note:
                return Fault(f"an event was refused, and left behind: {note}")
    return None
