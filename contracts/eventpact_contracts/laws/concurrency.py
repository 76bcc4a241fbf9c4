"""C1 to C3: many threads, cascades, and every order in which ready tasks may run."""

from __future__ import annotations

from dataclasses import replace

from eventpact_contracts.driver.trace import Kind
from eventpact_contracts.laws.isolation import caller_spared, neighbours_spared, reported
from eventpact_contracts.laws.law import Fault, law
from eventpact_contracts.laws.lifecycle import again, conserved, racing
from eventpact_contracts.laws.routing import delivered, nowhere_else, once
from eventpact_contracts.laws.spans import Call
from eventpact_contracts.laws.view import TraceView
from eventpact_contracts.scenarios import events, steps
from eventpact_contracts.scenarios.events import ROLES
from eventpact_contracts.scenarios.scenario import ALWAYS, Caller, EventPlan, HandlerPlan, Scenario, Traits
from eventpact_contracts.scenarios.schedule import Schedule
from eventpact_contracts.scenarios.strategies.concurrent import FIRST_LINES, paused_at, woken_after
from eventpact_contracts.scenarios.strategies.parts import in_turn

__all__: list[str] = []

_MANY_NESTED = 300
"""So many events one handler dispatches: more than usual bounds and batches."""

_FEW_PENDING = 2
"""A dispatcher that has no more than this to do is not full, whatever its size."""

_PATIENT_SECONDS = 1.0
"""Half of what law A5 lets a caller wait. Whoever has waited so long was not refused because others were at it."""


def _many_callers(view: TraceView) -> bool:
    return len(view.callers) > 1 and not view.trace.sink_raises


def _from_many(view: TraceView) -> int:
    return sum(call.accepted or call.refused for call in view.calls) if _many_callers(view) else 0


def _fixed(traits: Traits) -> tuple[Scenario, ...]:
    """The first events together; a second caller between any two lines of those in which an event is taken, or in which
    a thread finds that there is nothing left to do.
    """
    kinds = events.Placed, events.Paid, events.Paid  # the second is the first of its type
    between = (paused_at(place, closes=False, kinds=kinds) for place in range(FIRST_LINES if traits.quick else 0))
    idle = () if traits.guarantees.blocks_caller or not traits.quick else range(FIRST_LINES)
    woken = (woken_after(place, kind=kind) for place in idle for kind in (events.Placed, events.Priced))
    apart = (_with_loops_of_their_own(),) if traits.needs_loop else ()
    return (*_first_together(traits), *between, *woken, *apart)


def _with_loops_of_their_own() -> Scenario:
    """Threads dispatch, each inside an event loop of its own: one ends when its event has, another at once."""
    kinds = (events.Placed, events.Priced, events.Paid, events.Signed)
    first, second = in_turn(2).steps, in_turn(2, 2).steps
    turns = ((*first, steps.AwaitEnded(1)), second)
    return Scenario(tuple(map(EventPlan, kinds)), tuple(Caller(turn, thread=True, own_loop=True) for turn in turns))


def _first_together(traits: Traits) -> tuple[Scenario, ...]:
    """Threads dispatch the first events that a dispatcher ever has, again and again."""
    kinds = (events.Placed, events.Priced, events.Paid)
    callers = tuple(Caller((steps.Dispatch(number), steps.Dispatch(number)), thread=True) for number in range(6))
    return tuple(
        Scenario(
            tuple(EventPlan(kinds[(number + again) % 3], values={"number": again}) for number in range(6)),
            callers,
            interleaved=True,
            close=True,
        )
        for again in range(12 if traits.quick else 2)
    )


@law(
    "C1",
    families=("threads", "paused", "held"),
    fixed=_fixed,
    observations=_from_many,
    causes=(
        "one queue, flag or current event for all threads, without a lock",
        "asyncio.get_running_loop() in dispatch, which raises in a thread without a loop",
        "loop.create_task or loop.call_soon from another thread than the loop's",
    ),
    rogue="racy",
)
def threads(view: TraceView) -> Fault | None:
    """Find an event that was lost, doubled or not answered because others were dispatched at the same time."""
    if not _many_callers(view) or view.closing is not None or view.trace.hindrance:
        return None
    for call in view.calls:
        if call.end is None or (call.raised and not view.failed_during(call)):
            return Fault(f"{call.start.caller} dispatched {view.name(call.event)}, and {call.outcome}")
        # One that has a loop may have no other way.
        if fault := None if view.trace.on_loop else _refused_for_little(view, call, f"{call.start.caller} dispatched"):
            return fault
    if view.interruptions:
        return None
    failed = any(view.failures)
    astray = {entry.handler for entry in view.strays}
    for delivery in view.deliveries:
        event, handler = delivery
        count = len(view.attempts.get(delivery, ()))
        if count == 0 and handler not in astray:
            return Fault(f"{view.name(event)} was accepted, and lost: {handler} never received it")
        if count > view.due(event) and not failed:
            return Fault(f"{view.name(event)} was doubled: {handler} received it {count} times")
    return None


def _refused_for_little(view: TraceView, call: Call, what: str) -> Fault | None:
    """Find a call that was refused by one that was open, worked, and had little to do."""
    if not call.refused or call.in_doubt or view.closing is not None or view.failed_during(call) or call.end is None:
        return None
    if call.end.time - call.start.time > _PATIENT_SECONDS and view.meets_others(call):
        return None  # it has waited for them, and gave up because each of them took long
    pending = view.unsettled_at(call.began)
    if pending > _FEW_PENDING:
        return None
    said = call.end.note
    return Fault(f"{what} {view.name(call.event)}, and it was refused, though little was pending ({pending}): {said}")


def _nested(view: TraceView) -> int:
    return sum(bool(call.start.cause and call.start.event_type) for call in view.calls)


def _deep(traits: Traits) -> tuple[Scenario, ...]:
    """Cascades as deep as they can be, and a wide one."""
    kinds = (events.Placed, events.Priced)
    chains = (Scenario((EventPlan(kind, chain=traits.depth),), (in_turn(1),)) for kind in kinds)
    wide = (EventPlan(events.Paid), EventPlan(events.Noted)) * 12
    many = (EventPlan(events.Priced),) * (_MANY_NESTED if traits.quick else 0)
    # Handlers that dispatch, and then take their time or fail.
    plans = [
        EventPlan(events.Paid, handlers={role: replace(plan, spawns=(EventPlan(kind),))})
        for role in ("plain", "coroutine")
        for kind in kinds
        for plan in (HandlerPlan(seconds=0.05), HandlerPlan(fails=ALWAYS), HandlerPlan(pauses=3))
    ]
    return (
        *chains,
        *(
            Scenario((EventPlan(kind, handlers={"plain": HandlerPlan(spawns=spawns)}),), (in_turn(1),))
            for kind, spawns in ((events.Paid, wide), (events.Placed, many))
        ),
        Scenario(tuple(plans), (in_turn(len(plans)),)),
    )


@law(
    "C2",
    families=("cascades", "held"),
    fixed=_deep,
    observations=_nested,
    causes=(
        "a nested dispatch runs its handlers on the stack of the outer one",
        "a lock that is not re-entrant is held while handlers run",
        "a nested dispatch waits for a worker, and all workers wait like it",
    ),
    rogue="recursive",
)
def cascades(view: TraceView) -> Fault | None:
    """Find a cascade that does not settle; an event that is refused to a handler is no part of it."""
    if not _nested(view) or view.trace.hindrance:
        return None
    for call in view.calls:
        what = f"a handler dispatched {view.name(call.event)}" if call.start.cause else f"{view.name(call.event)}"
        if call.end is None:
            return Fault(f"{what}, and dispatch never returned: a deadlock")
        if not (call.start.cause and call.start.event_type) or call.accepted or call.end.interruption:
            continue
        if call.raised and not view.failed_during(call):
            return Fault(f"{what}, and dispatch raised {call.end.exception[0]}: {call.end.note}")
        if fault := _refused_for_little(view, call, "a handler dispatched"):
            return fault
    for entry in view.failures:
        if entry.exception[:1] == ("RecursionError",):  # one that a handler makes is of a class of its own
            return Fault(f"RecursionError in {entry.handler}, {view.depth(entry.event)} deep in a cascade")
    if view.closing is not None or view.interruptions or view.trace.sink_raises:
        return None
    for delivery in view.deliveries:
        event, handler = delivery
        attempts = view.attempts.get(delivery)
        if attempts and attempts[-1].end is not None:
            continue
        where = f"{view.depth(event)} deep in a cascade"
        if not attempts:
            return Fault(f"{handler} never received {view.name(event)}, {where}")
        return Fault(f"{handler} never came to an end with {view.name(event)}, {where}")
    return None


def _scheduled(view: TraceView) -> int:
    return sum(1 for _ in view.trace.of(Kind.STARTED)) if view.trace.schedule else 0


def _and_close(count: int) -> Caller:
    """A caller that dispatches so many events, and closes with the last one."""
    return Caller((*in_turn(count).steps[:-1], steps.Close(5.0, count - 1)))


def _overtaken(traits: Traits) -> tuple[Scenario, ...]:
    """Events of one type and of two, of which each step that is ready early is overtaken by some others; the same where
    closing follows; and one whose handler fails.
    """
    alike = tuple(EventPlan(events.Priced, values={"number": number}) for number in range(3))
    mixed = (EventPlan(events.Priced), EventPlan(events.ShippedByAir), EventPlan(events.Priced))
    failing, failing_plain = (
        EventPlan(kind, handlers={ROLES[kind][0]: HandlerPlan(fails=ALWAYS)})
        for kind in (events.Priced, events.Mirrored)
    )
    some = [(plans, _and_close(len(plans))) for plans in (alike, mixed, (failing,))]
    if traits.schedulable:  # with its plain handlers, of which a marker has one, too
        some += [(alike, in_turn(3)), (mixed, in_turn(3)), ((failing_plain,), in_turn(1))]
    choices = [(decision, held) for decision in range(8 if traits.has_schedulable_tasks else 0) for held in (1, 2)]
    return tuple(
        Scenario(
            each,
            (caller,),
            inside_loop=True,
            close=isinstance(caller.steps[-1], steps.Close),
            schedule=Schedule({decision: held}),
        )
        for decision, held in choices
        for each, caller in some
    )


_OPEN = {"R1": delivered, "R2": nowhere_else, "R3": once, "I1": caller_spared, "I2": neighbours_spared, "I3": reported}
_CLOSING = {
    "R2": nowhere_else,
    "R3": once,
    "I1": caller_spared,
    "I3": reported,
    "L2": again,
    "L1": conserved,
    "L3": racing,
}


@law(
    "C3",
    families=("schedules", "ordered"),
    fixed=_overtaken,
    observations=_scheduled,
    causes=(
        "something is read before an await, and written after it",
        "closing looks at what is pending once, and another task adds to it afterwards",
    ),
    rogue="lucky",
)
def every_schedule(view: TraceView) -> Fault | None:
    """Find another law that does not hold on a schedule that is not the usual one."""
    if view.is_usual:
        return None
    if view.trace.virtual and view.closing is not None and view.closed is None and any(view.trace.of(Kind.OVERDUE)):
        return None  # closing may wait for the real clock, beside which the loop's has run ahead
    for law_id, judge in (_OPEN if view.closing is None else _CLOSING).items():
        if fault := judge(view):
            return Fault(f"{law_id} does not hold on this schedule: {fault.message}", fault.timed)
    return None
