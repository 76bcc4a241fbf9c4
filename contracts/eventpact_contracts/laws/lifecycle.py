"""L1 to L4: the events that closing settles and returns, and its leaks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final

from eventpact_contracts.driver.trace import Entry, Kind
from eventpact_contracts.laws.law import Fault, law
from eventpact_contracts.laws.spans import Attempt, Closing
from eventpact_contracts.laws.view import TraceView
from eventpact_contracts.scenarios import events, steps
from eventpact_contracts.scenarios.events import is_plain
from eventpact_contracts.scenarios.scenario import ALWAYS, Caller, EventPlan, HandlerPlan, Scenario, Traits
from eventpact_contracts.scenarios.strategies.closing import closing_in_each_state
from eventpact_contracts.scenarios.strategies.concurrent import FIRST_LINES, paused_at
from eventpact_contracts.scenarios.strategies.leaking import leaking_in_each_state
from eventpact_contracts.scenarios.strategies.parts import in_turn

__all__ = ["again", "conserved", "racing"]

_GRACE_SECONDS: Final = 1.0
_REST_SECONDS: Final = 0.6  # of that second: longer than most dispatchers wait in it for handlers that are running
_SIMULTANEOUS_SECONDS: Final = 0.05
"""Seconds before ``aclose`` returned in which it need not have noticed that a handler ended."""


def _accepted_before_close(view: TraceView) -> int:
    return sum(1 for _ in view.trace.of(Kind.ACCEPTED)) if view.closed is not None else 0


@law(
    "L1",
    families=("closing", "racing", "paused", "closed", "leaks", "raising sink"),
    fixed=closing_in_each_state,
    observations=_accepted_before_close,
    usual_order=True,
    causes=(
        "closing cancels what is pending, and returns nothing",
        "closing sets a flag and returns, while handlers are still running",
        "closing returns all that is pending at its start, also what is settled by its end",
        "only what is queued is returned, and not what was running or waiting for its next attempt at the deadline",
        "closing waits for a handler that never ends",
    ),
    rogue="lossy",
)
def conserved(view: TraceView) -> Fault | None:
    """Find an event that was lost, returned though it was settled, or settled though it was returned."""
    return (
        _raised(view, first=True)
        or _returned_wrongly(view)
        or _never_returned(view)
        or _lost(view)
        or _settled_later(view)
        or _reported_later(view)
        or _late(view)
        or _badly_put_away(view)
    )


def _raised(view: TraceView, *, first: bool) -> Fault | None:
    for closing in view.closings[:1] if first else view.closings[1:]:
        if closing.end is not None and closing.end.kind is Kind.RAISED:
            return Fault(f"aclose raised {closing.end.exception[0]}: {closing.end.note}")
    return None


def _badly_put_away(view: TraceView) -> Fault | None:
    """Find an event that closing returned long after its last delivery had settled, or closing that failed then."""
    for entry in view.trace.of(Kind.PUT_AWAY):
        if entry.note:
            return Fault(f"{entry.note}, though everything was settled", timed=True)
        for event in entry.events:
            if not any(call.in_doubt for call in view.calls_of.get(event, ())):
                return Fault(f"aclose returned {view.name(event)} as undelivered, though it was settled", timed=True)
    return None


def _returned_wrongly(view: TraceView) -> Fault | None:
    closed = view.closed
    if closed is None:
        return None
    for entry in view.trace.of(Kind.CLOSED):
        if entry.note:
            return Fault(f"aclose returned {entry.note} instead of a tuple of the undelivered")
    for event in view.returned:
        if fault := _wrong_to_return(view, event, closed):
            return fault
    return None


def _wrong_to_return(view: TraceView, event: str, closed: int) -> Fault | None:
    trace = view.trace
    what = f"aclose returned {view.name(event)} as undelivered"
    if event not in view.accepted:
        in_doubt = any(call.in_doubt for call in view.calls_of.get(event, ()))
        return None if in_doubt else Fault(f"{what}, which it never accepted")
    if view.returned[event] > view.accepted[event] and len(view.closings) < 2:
        return Fault(f"aclose returned {view.name(event)} {view.returned[event]} times")
    handlers = () if view.is_being_reported(event, closed) else view.handlers_of(event)
    margin = 0.0 if trace.virtual else _SIMULTANEOUS_SECONDS
    if handlers and all(_settled_before(view, (event, handler), closed, margin) for handler in handlers):
        return Fault(f"{what}, though all its deliveries were settled")
    for handler in handlers:
        if any(attempt.began > closed for attempt in view.attempts.get((event, handler), [])):
            return Fault(f"{what}, and then {handler} received it")
        if any(place > closed for place, _ in view.reports.get((event, handler), [])):
            return Fault(f"{what}, and then it was reported as failed")
    if handlers and all(len(view.reports.get((event, handler), [])) >= view.accepted[event] for handler in handlers):
        return Fault(f"{what}, though it had been reported as failed")
    return None


def _settled_before(view: TraceView, delivery: tuple[str, str], closed: int, margin: float) -> bool:
    latest = view.trace.entries[closed].time - margin
    attempts = view.attempts.get(delivery)
    if not attempts:
        return False
    last = attempts[-1]
    if last.ended is None or last.end is None or last.ended > closed or last.end.time > latest:
        return False
    return view.is_settled(delivery) and not _is_beyond_reach(view, delivery[1], last.end)


def _is_beyond_reach(view: TraceView, handler: str, end: Entry) -> bool:
    """Return whether a plain handler has ended in its thread when closing had given up whoever waits for it there.

    A loop can cancel the one who waits and not the thread, so that nobody is told how the handler ended.
    """
    start = view.closings[0].start
    given_up = end.time >= start.time + (start.timeout or 0.0)
    return view.trace.on_loop and given_up and is_plain(handler)


def _never_returned(view: TraceView) -> Fault | None:
    if not view.closings or view.closings[0].end is not None:
        return None
    timeout = view.closings[0].start.timeout or 0.0
    return Fault(f"aclose({timeout:g}) never returned", timed=True)


def _lost(view: TraceView, events: set[str] | None = None) -> Fault | None:
    if view.closing is None:
        return None
    for delivery in view.deliveries:
        event, handler = delivery
        if (events is not None and event not in events) or view.is_settled(delivery) or event in view.returned:
            continue
        attempts = view.attempts.get(delivery)
        if not attempts:
            became = "never received it"
        elif attempts[-1].end is None:
            became = "never came to an end with it"
        elif attempts[-1].interrupted:
            became = f"ended with {attempts[-1].end.exception[0]}, which is no success"
        else:
            became = "failed, and was owed another attempt"
        return Fault(f"{view.name(event)} was accepted, {handler} {became}, and aclose did not return it")
    return None


def _settled_later(view: TraceView) -> Fault | None:
    """Find an event that was neither settled nor returned when ``aclose`` returned, though it was settled later."""
    closed = view.closed
    if closed is None or view.trace.outlives:
        return None
    accepted = {call.event for call in view.calls if call.accepted and call.ended is not None and call.ended < closed}
    for delivery in view.deliveries:
        event, handler = delivery
        if event in view.returned or event not in accepted:
            continue
        attempts = view.attempts.get(delivery, [])
        late = next((a for a in attempts if a.began > closed or a.ended is None or a.ended > closed), None)
        if late is not None:
            return Fault(
                f"aclose returned, and {view.name(event)} was neither among the undelivered nor settled: {handler}"
                f" {_went_on(late, closed)}"
            )
    return None


def _reported_later(view: TraceView) -> Fault | None:
    """Find a failure that was reported after ``aclose`` had returned, though there was time to wait for that."""
    if view.closed is None or view.trace.outlives or len(view.closings) > 1 or view.interruptions:
        return None
    start, end = view.closings[0].start, view.trace.entries[view.closed]
    if end.time > start.time + (start.timeout or 0.0) - _SIMULTANEOUS_SECONDS:
        return None
    for (event, handler), reports in view.reports.items():
        if reports[-1][0] > view.closed and event in view.accepted:
            return Fault(f"aclose returned before {handler}'s failure with {view.name(event)} was reported")
    return None


def _went_on(attempt: Attempt, closed: int) -> str:
    return "received it afterwards" if attempt.began > closed else "was still running"


def _late(view: TraceView) -> Fault | None:
    for closing in view.closings[:1]:
        if closing.end is None or closing.start.timeout is None:
            continue
        took, timeout = closing.end.time - closing.start.time, closing.start.timeout
        if closing.end.kind is Kind.OVERDUE:
            return Fault(f"aclose({timeout:g}) did not return within {took:.2f} s")
        if took > timeout + _GRACE_SECONDS + (closing.end.bound or 0.0):
            message = f"aclose({timeout:g}) took {took:.2f} s, {took - timeout:.2f} s past its deadline"
            return Fault(message, timed=True)
        early = took < timeout - (0.0 if view.trace.virtual else _SIMULTANEOUS_SECONDS)
        if closing.end.events and early and not any(not entry.imposed for entry in view.interruptions):
            name = view.name(closing.end.events[0])
            return Fault(f"aclose({timeout:g}) gave up {name} after {took:.2f} s, before its deadline")
    return None


def _closed_again(view: TraceView) -> int:
    return max(0, sum(closing.end is not None for closing in view.closings) - 1)


def _again_and_again(traits: Traits) -> tuple[Scenario, ...]:  # noqa: ARG001
    """Closing several times, one after the other, with and without something to settle."""
    closes = tuple(steps.Close(timeout) for timeout in (5.0, 0.0, 1.0, 5.0, 0.0, 0.02))
    plans = (EventPlan(events.Placed), EventPlan(events.Paid, handlers={"plain": HandlerPlan(fails=ALWAYS)}))
    held = EventPlan(events.Priced, handlers={"coroutine": HandlerPlan(held=True)})
    together = (
        Caller((steps.Dispatch(0),), thread=True),
        Caller((steps.AwaitStarted(0), steps.Close(5.0))),
        Caller((steps.AwaitBegun(), steps.Close(0.0))),
        Caller((steps.AwaitBegun(), steps.Rest(_REST_SECONDS), steps.Release(0))),
    )
    return (
        *(
            Scenario(some, (Caller((*in_turn(len(some)).steps, *closes)),), inside_loop=inside, close=True)
            for some in ((), plans)
            for inside in (False, True)
        ),
        # A second call has less time than the first, which goes on waiting.
        Scenario((held,), together, close=True),
    )


@law(
    "L2",
    families=("closing twice",),
    fixed=_again_and_again,
    observations=_closed_again,
    usual_order=True,
    causes=(
        "the undelivered are kept, and returned again",
        "the second call finds closed what it wants to close, and raises",
        "the second call waits for what the first has already ended",
    ),
    rogue="repetitive",
)
def again(view: TraceView) -> Fault | None:
    """Find a second ``aclose`` that did something."""
    if fault := _raised(view, first=False):
        return fault
    for first, closing in product(view.closings[:1], view.closings[1:]):
        # It may wait for the first call, however long that is allowed to take.
        hangs = first.end is None or first.end.kind is Kind.OVERDUE or (closing.ended or 0) < (first.ended or 0)
        if closing.end is not None and closing.end.kind is Kind.OVERDUE and not hangs:
            return Fault("closing again did not return")
        meanwhile = first.ended is None or closing.began < first.ended
        for each in (closing, first) if meanwhile and all(entry.imposed for entry in view.interruptions) else ():
            if each.end is not None and each.end.events and _has_time_left(first, each.end.time):
                return Fault(f"closing again gave up {view.name(each.end.events[0])}, and the first call had time")
    full = [entry for entry in view.trace.of(Kind.CLOSED) if entry.events]
    if len(full) > 1:
        names = ", ".join(view.name(event) for event in full[1].events)
        return Fault(f"closing again returned {names}")
    return None


def _has_time_left(first: Closing, time: float) -> bool:
    deadline = first.start.time + (first.start.timeout or 0.0)
    return time < deadline - _SIMULTANEOUS_SECONDS and (first.end is None or first.end.time >= time)


def _raced(view: TraceView) -> Iterator[str]:
    """The events whose dispatch overlapped closing."""
    if view.closing is None:
        return
    last = len(view.trace) if view.closed is None else view.closed
    for call in view.calls:
        if call.began < last and (call.ended is None or call.ended > view.closing):
            yield call.event


def _between_any_steps(traits: Traits) -> tuple[Scenario, ...]:
    """Closing comes between any two lines of those in which an event is taken or refused, or before the event loop has
    had a turn since a thread has dispatched.
    """
    if not traits.quick:
        return ()
    kinds = (events.Priced, events.Placed)
    closing = [(kind, Caller((steps.Close(timeout, 0, by_thread=True),))) for kind in kinds for timeout in (5.0, 0.0)]
    return (
        *(Scenario((EventPlan(kind),), (caller,), inside_loop=True, close=True) for kind, caller in closing),
        *(paused_at(place, closes=True) for place in range(FIRST_LINES)),
    )


@law(
    "L3",
    families=("racing", "paused", "closed"),
    fixed=_between_any_steps,
    observations=lambda view: sum(1 for _ in _raced(view)),
    usual_order=True,
    causes=(
        "dispatch asks whether it is closed, and adds its event, in two steps without a lock",
        "closing looks at what is pending before it refuses what is new",
    ),
    rogue="leaking_close",
)
def racing(view: TraceView) -> Fault | None:
    """Find an event whose dispatch raced closing, and that was lost."""
    raced = set(_raced(view))
    for call in view.calls:
        if call.event not in raced or call.accepted or not call.start.event_type:
            continue
        if call.end is None or (call.raised and not view.failed_during(call)):
            return Fault(f"{view.name(call.event)} was dispatched while the dispatcher closed, and {call.outcome}")
    return _lost(view, raced)


def _closings(view: TraceView) -> int:
    started = any(view.trace.of(Kind.STARTED))
    return sum(1 for _ in view.trace.of(Kind.CLOSED)) if started else 0


@law(
    "L4",
    families=("leaks",),
    fixed=leaking_in_each_state,
    observations=_closings,
    causes=(
        "a thread or an executor that is never shut down or joined",
        "a background task that is neither cancelled nor awaited",
        "a connection or a loop that is left to the garbage collector",
    ),
    rogue="littering",
)
def nothing_left(view: TraceView) -> Fault | None:
    """Find something that a closed dispatcher left behind."""
    if view.closed is None:
        return None
    return Fault(f"a closed dispatcher left behind: {view.left[0]}") if view.left else None
