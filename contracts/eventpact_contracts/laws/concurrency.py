"""C1 to C3: many threads, cascades, and every order in which what is ready may run."""

from __future__ import annotations

from eventpact_contracts.checking.outcomes import Violation
from eventpact_contracts.driver.trace import Kind, Trace
from eventpact_contracts.laws.isolation import caller_spared, neighbours_spared, reported
from eventpact_contracts.laws.law import Law, Reading
from eventpact_contracts.laws.lifecycle import again, conserved, racing
from eventpact_contracts.laws.routing import delivered, nowhere_else, once
from eventpact_contracts.scenarios import strategies

__all__ = ["CONCURRENCY"]


def _threads(trace: Trace) -> Violation | None:
    reading = Reading(trace)
    for _, call, _, end in reading.calls:
        if end is None or end.kind is Kind.RAISED:
            became = "never returned" if end is None else f"raised {end.exception[0]}: {end.note}"
            return Violation(
                "C1", f"{call.caller} dispatched {reading.called(call.event)}, and dispatch {became}", trace
            )
    for delivery in reading.deliveries:
        event, handler = delivery
        count, due = len(reading.attempts.get(delivery, [])), reading.accepted[event]
        if count < due:
            return Violation(
                "C1", f"{reading.called(event)} was accepted, and lost: {handler} never received it", trace
            )
        if count > due:
            return Violation("C1", f"{reading.called(event)} was doubled: {handler} received it {count} times", trace)
    return None


def _cascades(trace: Trace) -> Violation | None:
    reading = Reading(trace)
    for _, call, _, end in reading.calls:
        if end is not None and end.kind is Kind.ACCEPTED:
            continue
        what = f"a handler dispatched {reading.called(call.event)}" if call.cause else f"{reading.called(call.event)}"
        if end is None:
            return Violation("C2", f"{what}, and dispatch never returned: a deadlock", trace)
        return Violation("C2", f"{what}, and dispatch raised {end.exception[0]}: {end.note}", trace)
    for event, handler in reading.deliveries:
        attempts = reading.attempts.get((event, handler))
        end = attempts[-1].end if attempts else None
        if end is not None and "RecursionError" not in end.exception:
            continue
        where = f"{_depth(reading, event)} deep in a cascade"
        if not attempts:
            return Violation("C2", f"{handler} never received {reading.called(event)}, {where}", trace)
        if end is None:
            return Violation("C2", f"{handler} never came to an end with {reading.called(event)}, {where}", trace)
        return Violation("C2", f"RecursionError in {handler}, {where}", trace)
    return None


def _depth(reading: Reading, event: str) -> int:
    causes = {call.event: call.cause for _, call, _, _ in reading.calls}
    depth, seen = 0, {event}
    while (event := causes.get(event, "")) and event not in seen:
        seen.add(event)
        depth += 1
    return depth


def _every_schedule(trace: Trace) -> Violation | None:
    closing = any(trace.of(Kind.CLOSING))
    judges = (nowhere_else, once, caller_spared, reported, again, conserved, racing)
    for judge in judges if closing else (delivered, nowhere_else, once, caller_spared, neighbours_spared, reported):
        if violation := judge(trace):
            return Violation("C3", f"{violation.law_id} does not hold on this schedule: {violation.message}", trace)
    return None


def _from_many(trace: Trace) -> int:
    callers = {call.caller for _, call, _, _ in Reading(trace).calls}
    return sum(1 for _ in trace.of(Kind.ACCEPTED, Kind.REFUSED)) if len(callers) > 1 else 0


def _nested(trace: Trace) -> int:
    return sum(bool(entry.cause) for entry in trace.of(Kind.DISPATCHED))


def _scheduled(trace: Trace) -> int:
    return sum(1 for _ in trace.of(Kind.STARTED)) if trace.schedule else 0


CONCURRENCY = (
    Law(
        id="C1",
        title="threads",
        promise="events dispatched from many threads at once are each accepted or refused as if alone: none lost,"
        " none doubled.",
        scripts=strategies.threads,
        judge=_threads,
        observations=_from_many,
        share=0.3,
        causes=(
            "one queue, flag or current event for all threads, without a lock",
            "asyncio.get_running_loop() in dispatch, which raises in a thread without a loop",
            "loop.create_task or loop.call_soon from another thread than the loop's",
        ),
        rogue="racy",
    ),
    Law(
        id="C2",
        title="cascades",
        promise="a handler may dispatch. A cascade of any depth settles, without deadlock or recursion error.",
        scripts=strategies.cascades,
        judge=_cascades,
        observations=_nested,
        share=0.4,
        causes=(
            "a nested dispatch runs its handlers on the stack of the outer one",
            "a lock that is not re-entrant is held while handlers run",
            "a nested dispatch waits for a worker, and all workers wait like it",
        ),
        rogue="recursive",
    ),
    Law(
        id="C3",
        title="every schedule",
        promise="R1 to R3, I1 to I3 and L1 to L3 hold under every order in which ready tasks may run, not only the"
        " event loop's usual one.",
        scripts=strategies.schedules,
        judge=_every_schedule,
        observations=_scheduled,
        share=1.5,
        causes=(
            "something is read before an await, and written after it",
            "closing looks at what is pending once, and another task adds to it afterwards",
        ),
        rogue="lucky",
    ),
)
