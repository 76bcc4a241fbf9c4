"""L1 to L4: what closing settles, returns and leaves behind."""

from __future__ import annotations

from typing import Final

from eventpact_contracts.checking.outcomes import Violation
from eventpact_contracts.driver.trace import Kind, Trace
from eventpact_contracts.laws.law import Law, Reading
from eventpact_contracts.scenarios import strategies

__all__ = ["LIFECYCLE", "again", "conserved", "racing"]

_GRACE: Final = 1.0
_SIMULTANEOUS: Final = 0.05
"""Seconds before ``aclose`` returned in which it need not have noticed that a handler ended."""


def conserved(trace: Trace) -> Violation | None:
    """L1."""
    reading = Reading(trace)
    return _close_raised(reading, "L1") or _returned_wrongly(reading) or _lost(reading, "L1") or _late(reading)


def _close_raised(reading: Reading, law: str) -> Violation | None:
    for entry in reading.trace.of(Kind.RAISED):
        if not entry.event:
            return Violation(law, f"aclose raised {entry.exception[0]}: {entry.note}", reading.trace)
    return None


def _returned_wrongly(reading: Reading) -> Violation | None:
    trace = reading.trace
    closed = reading.first(Kind.CLOSED)
    if closed is None:
        return None
    margin = 0.0 if trace.virtual else _SIMULTANEOUS
    for event in dict.fromkeys(reading.returned):
        if event not in reading.accepted:
            message = f"aclose returned {reading.called(event)} as undelivered, which it never accepted"
            return Violation("L1", message, trace)
        if reading.returned.count(event) > reading.accepted[event]:
            message = f"aclose returned {reading.called(event)} {reading.returned.count(event)} times"
            return Violation("L1", message, trace)
        handlers = trace.handlers_of(reading.types[event])
        if all(_settled_before(reading, (event, handler), closed, margin) for handler in handlers):
            message = f"aclose returned {reading.called(event)} as undelivered, though all its deliveries were settled"
            return Violation("L1", message, trace)
        reports = [reading.reports.get((event, handler), []) for handler in handlers]
        if all(len(each) >= reading.accepted[event] for each in reports):
            late = any(entry in trace.entries[closed:] for each in reports for entry in each)
            became = "and then it was reported as failed" if late else "though it had been reported as failed"
            return Violation("L1", f"aclose returned {reading.called(event)} as undelivered, {became}", trace)
        for handler in handlers:
            if any(attempt.started > closed for attempt in reading.attempts.get((event, handler), [])):
                message = f"aclose returned {reading.called(event)} as undelivered, and then {handler} received it"
                return Violation("L1", message, trace)
    return None


def _settled_before(reading: Reading, delivery: tuple[str, str], closed: int, margin: float) -> bool:
    latest = reading.trace.entries[closed].time - margin
    attempts = reading.attempts.get(delivery)
    if not attempts:
        return False
    last = attempts[-1]
    if last.ended is None or last.end is None or last.ended > closed or last.end.time > latest:
        return False
    return reading.settled(delivery)


def _lost(reading: Reading, law: str) -> Violation | None:
    for delivery in reading.deliveries:
        event, handler = delivery
        if reading.settled(delivery) or event in reading.returned:
            continue
        attempts = reading.attempts.get(delivery)
        if not attempts:
            became = "never received it"
        elif attempts[-1].end is None:
            became = "never came to an end with it"
        else:
            became = f"ended with {attempts[-1].end.exception[0]}, which is no success"
        message = f"{reading.called(event)} was accepted, {handler} {became}, and aclose did not return it"
        return Violation(law, message, reading.trace)
    return None


def _late(reading: Reading) -> Violation | None:
    trace = reading.trace
    begun = None
    for entry in trace.of(Kind.CLOSING, Kind.CLOSED, Kind.OVERDUE):
        if entry.kind is Kind.CLOSING:
            begun = begun or entry
        elif begun is not None and begun.timeout is not None and entry.caller == begun.caller:
            took = entry.time - begun.time
            if entry.kind is Kind.OVERDUE:
                return Violation("L1", f"aclose({begun.timeout:g}) did not return within {took:.2f} s", trace)
            late = entry.bound or 0.0
            if took > begun.timeout + _GRACE + late:
                message = f"aclose({begun.timeout:g}) took {took:.2f} s, {took - begun.timeout:.2f} s past its deadline"
                return Violation("L1", message, trace, timed=True)
            if entry.events and took < begun.timeout - (0.0 if trace.virtual else _SIMULTANEOUS):
                message = (
                    f"aclose({begun.timeout:g}) gave up {reading.called(entry.events[0])} after {took:.2f} s, before"
                    " its deadline"
                )
                return Violation("L1", message, trace)
            return None
    return None


def again(trace: Trace) -> Violation | None:
    """L2."""
    reading = Reading(trace)
    ends = list(trace.of(Kind.CLOSED))
    if violation := _close_raised(reading, "L2"):
        return violation
    full = [entry for entry in ends if entry.events]
    if len(full) > 1:
        names = ", ".join(reading.called(event) for event in full[1].events)
        return Violation("L2", f"closing again returned {names}", trace)
    if len(ends) > 1:
        second = trace.entries.index(ends[1])
        for entry in trace.entries[second:]:
            if entry.kind is Kind.STARTED and entry.event in reading.returned:
                return Violation("L2", f"after closing again, {entry.handler} received what had been returned", trace)
    return None


def racing(trace: Trace) -> Violation | None:
    """L3."""
    reading = Reading(trace)
    closing = reading.first(Kind.CLOSING)
    if closing is None:
        return None
    for _, call, _, end in reading.calls:
        if end is None or end.kind is Kind.RAISED:
            became = "never returned" if end is None else f"raised {end.exception[0]}: {end.note}"
            message = f"{reading.called(call.event)} was dispatched while the dispatcher closed, and dispatch {became}"
            return Violation("L3", message, trace)
    return _lost(reading, "L3")


def _nothing_left(trace: Trace) -> Violation | None:
    for entry in trace.of(Kind.LEFT):
        return Violation("L4", f"a closed dispatcher left behind: {entry.note}", trace)
    return None


def _accepted_before_close(trace: Trace) -> int:
    closed = any(trace.of(Kind.CLOSED))
    return sum(1 for _ in trace.of(Kind.ACCEPTED)) if closed else 0


def _closed_again(trace: Trace) -> int:
    return max(0, sum(1 for _ in trace.of(Kind.CLOSED)) - 1)


def _raced(trace: Trace) -> int:
    reading = Reading(trace)
    closing, closed = reading.first(Kind.CLOSING), reading.first(Kind.CLOSED)
    if closing is None:
        return 0
    last = len(trace) if closed is None else closed
    return sum(start < last and (stop is None or stop > closing) for start, _, stop, _ in reading.calls)


def _closings(trace: Trace) -> int:
    return sum(1 for _ in trace.of(Kind.CLOSED)) if any(trace.of(Kind.STARTED)) else 0


LIFECYCLE = (
    Law(
        id="L1",
        title="conservation",
        promise="accepted = succeeded + failed + undelivered, by identity of events. `aclose(timeout)` settles what"
        " it can by its deadline and returns exactly the undelivered, no later than 1 s after the deadline (a"
        " handler that is running when it passes may end in that second, and then counts as settled). What an"
        " engine that outlives the dispatcher (a broker, a database) has taken over is that engine's to"
        " settle: it is not undelivered, and the trace is judged when the engine is idle.",
        scripts=strategies.closing,
        judge=conserved,
        observations=_accepted_before_close,
        share=0.25,
        causes=(
            "closing cancels what is pending, and returns nothing",
            "closing returns all that is pending at its start, also what is settled by its end",
            "only what is queued is returned, and not what was running at the deadline",
            "closing waits for a handler that never ends",
        ),
        rogue="lossy",
    ),
    Law(
        id="L2",
        title="again",
        promise="closing twice does nothing more.",
        scripts=strategies.closing_twice,
        judge=again,
        observations=_closed_again,
        share=0.25,
        causes=(
            "the undelivered are kept, and returned again",
            "the second call finds closed what it wants to close, and raises",
        ),
        rogue="repetitive",
    ),
    Law(
        id="L3",
        title="racing close",
        promise="an event dispatched while the dispatcher closes is refused, settled or returned as undelivered;"
        " never silently lost.",
        scripts=strategies.racing,
        judge=racing,
        observations=_raced,
        share=0.4,
        causes=(
            "dispatch asks whether it is closed, and adds its event, in two steps without a lock",
            "closing looks at what is pending before it refuses what is new",
        ),
        rogue="leaking_close",
    ),
    Law(
        id="L4",
        title="nothing left",
        promise="a closed dispatcher leaves no task, thread, connection, unawaited coroutine or resource warning"
        " behind.",
        scripts=strategies.left_behind,
        judge=_nothing_left,
        observations=_closings,
        share=0.15,
        causes=(
            "a thread or an executor that is never shut down or joined",
            "a background task that is neither cancelled nor awaited",
            "a connection or a loop that is left to the garbage collector",
        ),
        rogue="littering",
    ),
)
