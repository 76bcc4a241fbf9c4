"""A1 to A5: what ``dispatch`` takes, what it refuses, and how."""

from __future__ import annotations

from eventpact_contracts.checking.outcomes import Violation
from eventpact_contracts.driver.trace import Kind, Trace
from eventpact_contracts.laws.law import Law, Reading
from eventpact_contracts.scenarios import strategies

__all__ = ["ACCEPTANCE"]


def _only_events(trace: Trace) -> Violation | None:
    reading = Reading(trace)
    for _, call, _, end in reading.calls:
        if call.event_type:
            continue
        if end is None or end.kind is Kind.ACCEPTED:
            became = "never returned" if end is None else "accepted it"
            return Violation("A1", f"{call.note} is no event, and dispatch {became}", trace)
        if "TypeError" not in end.exception:
            message = f"{call.note} is no event, and dispatch raised {end.exception[0]} instead of TypeError"
            return Violation("A1", message, trace)
    for entry in trace.of(Kind.STARTED):
        if not reading.types.get(entry.event):
            return Violation("A1", f"what is no event was delivered to {entry.handler}: {entry.token}", trace)
    return None


def _all_or_nothing(trace: Trace) -> Violation | None:
    reading = Reading(trace)
    for _, call, _, end in reading.calls:
        if end is None or end.kind is not Kind.REFUSED or call.event in reading.accepted:
            continue
        if "DispatchUncertainError" in end.exception:
            continue
        received = [entry.handler for entry in trace.of(Kind.STARTED) if entry.event == call.event]
        if received:
            message = f"{reading.called(call.event)} was refused, and delivered to {', '.join(received)}"
            return Violation("A2", message, trace)
    return None


def _closed(trace: Trace) -> Violation | None:
    reading = Reading(trace)
    begun = reading.first(Kind.BEGUN)
    if begun is None:
        return None
    for start, call, _, end in reading.calls:
        if start < begun or not call.event_type:
            continue
        what = f"{reading.called(call.event)} was dispatched after closing had begun, and"
        if end is None or end.kind is Kind.ACCEPTED:
            return Violation("A3", f"{what} {'dispatch never returned' if end is None else 'was accepted'}", trace)
        if "DispatcherClosedError" not in end.exception:
            return Violation("A3", f"{what} dispatch raised {end.exception[0]} instead of DispatcherClosedError", trace)
        received = [entry.handler for entry in trace.of(Kind.STARTED) if entry.event == call.event]
        if received:
            return Violation("A3", f"{what} it was delivered to {received[0]}", trace)
    return None


def _refused_early(trace: Trace) -> Violation | None:
    for entry in trace.of(Kind.BUILT):
        return Violation("A4", f"a dispatcher was built with {entry.note}", trace)
    for entry in trace.of(Kind.REJECTED):
        if "RegistrationError" not in entry.exception:
            message = f"with {entry.handler}, building raised {entry.exception[0]} instead of RegistrationError"
            return Violation("A4", message, trace)
        if not any(culprit in entry.note for culprit in entry.token.split(" or ")):
            message = f"with {entry.handler}, the message does not name what is wrong, {entry.token}: {entry.note!r}"
            return Violation("A4", message, trace)
    return None


def _bounded(trace: Trace) -> Violation | None:
    reading = Reading(trace)
    for _, call, _, end in reading.calls:
        if end is not None and end.kind is Kind.ACCEPTED:
            continue
        what = f"dispatching {reading.called(call.event)}"
        if end is None:
            return Violation("A5", f"{what} never returned", trace)
        if end.kind is Kind.RAISED:
            return Violation("A5", f"{what} raised {end.exception[0]} instead of a DispatchError: {end.note}", trace)
        if end.kind is Kind.REFUSED and end.bound is not None and end.time - call.time > end.bound:
            message = f"{what} was refused after {end.time - call.time:.2f} s, and {end.bound:g} s are allowed"
            return Violation("A5", message, trace, timed=True)
    for entry in trace.of(Kind.LEFT):
        if "never awaited" in entry.note:
            return Violation("A5", f"an event was refused, and left behind: {entry.note}", trace)
    return None


def _junk(trace: Trace) -> int:
    return sum(not entry.event_type for entry in trace.of(Kind.DISPATCHED))


def _refusals(trace: Trace) -> int:
    return sum(1 for _ in trace.of(Kind.REFUSED))


def _refusals_while_open(trace: Trace) -> int:
    return sum("DispatcherClosedError" not in entry.exception for entry in trace.of(Kind.REFUSED))


def _dispatched_late(trace: Trace) -> int:
    reading = Reading(trace)
    begun = reading.first(Kind.BEGUN)
    return 0 if begun is None else sum(start > begun for start, _, _, _ in reading.calls)


def _registrations(trace: Trace) -> int:
    return sum(1 for _ in trace.of(Kind.BUILT, Kind.REJECTED))


ACCEPTANCE = (
    Law(
        id="A1",
        title="only events",
        promise="anything that is not a `DomainEvent` raises `TypeError`; nothing is delivered.",
        scripts=strategies.junk,
        judge=_only_events,
        observations=_junk,
        causes=(
            "what has no handler is dropped before anyone looks at what it is",
            "an object that looks like an event is taken for one",
        ),
        rogue="omnivorous",
    ),
    Law(
        id="A2",
        title="all or nothing",
        promise="a refused event is delivered to no handler: not to some of its handlers, not later. Where a remote"
        " engine leaves it in doubt (time-out after sending), the error is `DispatchUncertainError` (a"
        " `DispatchError`), and dispatching the same event again does no harm.",
        scripts=strategies.refused,
        judge=_all_or_nothing,
        observations=_refusals,
        causes=(
            "one message or task for each handler, and the second one could not be sent",
            "the event is queued first, and whether it can be taken is asked afterwards",
            "a time-out after sending raises DispatchError instead of DispatchUncertainError",
        ),
        rogue="halfhearted",
    ),
    Law(
        id="A3",
        title="closed",
        promise="from the moment closing begins, `dispatch` raises `DispatcherClosedError` (a `DispatchError`);"
        " nothing is delivered.",
        scripts=strategies.closed,
        judge=_closed,
        observations=_dispatched_late,
        causes=(
            "the flag is set when closing ends instead of when it begins",
            "a closed dispatcher takes events, and drops them",
        ),
        rogue="undead",
    ),
    Law(
        id="A4",
        title="refused early",
        promise="an impossible registration (a key that is no event type, two types with one wire name, an event type"
        " that is mutable or not wire-safe, a handler without `handle`) raises `RegistrationError` when the"
        " dispatcher is built, naming what is wrong and what to do.",
        scripts=strategies.impossible,
        judge=_refused_early,
        observations=_registrations,
        causes=(
            "the handlers are stored unseen; SubscriptionTable in eventpact.infrastructure.dispatching checks them",
        ),
        rogue="careless",
    ),
    Law(
        id="A5",
        title="bounded",
        promise="where it cannot accept (no broker, no running loop, full), `dispatch` raises `DispatchError` within"
        " its declared bound (2 s unless stated), leaves no coroutine unawaited and never hangs.",
        scripts=strategies.cannot_accept,
        judge=_bounded,
        observations=_refusals_while_open,
        likeness=_refusals,
        share=0.25,
        causes=(
            "publishing retries, or waits for the broker, without a time-out",
            "the coroutine is made first, and the loop that should run it is asked for afterwards",
            "the error of the engine or of the loop reaches the caller as it is",
        ),
        rogue="patient",
    ),
)
