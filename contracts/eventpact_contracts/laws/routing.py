"""R1 to R7: who receives an accepted event, how often, and what exactly."""

from __future__ import annotations

from eventpact_contracts.checking.outcomes import Violation
from eventpact_contracts.driver.trace import Kind, Trace
from eventpact_contracts.laws.law import Law, Reading
from eventpact_contracts.scenarios import strategies
from eventpact_contracts.scenarios.cast import FAMILY, is_async

__all__ = ["ROUTING", "delivered", "nowhere_else", "once"]


def delivered(trace: Trace) -> Violation | None:
    """R1. An event that arrived as another one is law R6's."""
    reading = Reading(trace)
    astray = {entry.handler for entry in reading.strays}
    for event, handler in reading.deliveries:
        if (event, handler) not in reading.attempts and handler not in astray:
            return Violation("R1", f"{reading.called(event)} was accepted, and {handler} never received it", trace)
    return None


def nowhere_else(trace: Trace) -> Violation | None:
    """R2."""
    reading = Reading(trace)
    for entry in trace.of(Kind.STARTED):
        if entry.event not in reading.types:
            continue
        allowed = trace.handlers_of(reading.types[entry.event])
        if entry.handler not in allowed:
            message = f"{reading.called(entry.event)} was delivered to {entry.handler}, which is not subscribed to it"
            return Violation("R2", message, trace)
    return None


def once(trace: Trace) -> Violation | None:
    """R3. That there is an attempt at all is law R1."""
    reading = Reading(trace)
    if any(trace.of(Kind.FAILED, Kind.CRASHED)):
        return None
    for delivery in reading.deliveries:
        event, handler = delivery
        count = len(reading.attempts.get(delivery, []))
        if count > reading.accepted[event]:
            message = f"{handler} received {reading.called(event)} {count} times, though nothing failed"
            return Violation("R3", message, trace)
    return None


def _no_subscriber(trace: Trace) -> Violation | None:
    reading = Reading(trace)
    for _, call, _, end in reading.calls:
        if trace.handlers_of(call.event_type):
            continue
        if end is None or end.kind is not Kind.ACCEPTED:
            became = "never returned" if end is None else f"{end.kind.value}: {end.exception[0]}"
            return Violation(
                "R4", f"{reading.called(call.event)} has no handler, and was not accepted ({became})", trace
            )
        for entry in trace.of(Kind.STARTED, Kind.REPORTED):
            if entry.event == call.event:
                what = f"{entry.kind.value} {entry.handler}".strip()
                return Violation("R4", f"{reading.called(call.event)} has no handler, yet: {what}", trace)
    return None


def _both_kinds(trace: Trace) -> Violation | None:
    reading = Reading(trace)
    done: set[bool] = set()
    missed: dict[bool, tuple[str, str]] = {}
    for delivery in reading.deliveries:
        kind = is_async(delivery[1])
        if any(attempt.succeeded for attempt in reading.attempts.get(delivery, [])):
            done.add(kind)
        else:
            missed.setdefault(kind, delivery)
    for kind, (event, handler) in missed.items():
        if (not kind) in done:
            this, other = ("an async def", "a plain") if kind else ("a plain", "an async def")
            message = f"{this} handle, {handler}, did not complete {reading.called(event)}, while {other} handle did"
            return Violation("R5", message, trace)
    return None


def _same_event(trace: Trace) -> Violation | None:
    reading = Reading(trace)
    if reading.strays:
        stray = reading.strays[0]
        return Violation("R6", f"{stray.handler} received an event that nobody dispatched: {stray.token}", trace)
    for entry in trace.of(Kind.STARTED):
        if entry.token != reading.tokens[entry.event]:
            message = (
                f"{entry.handler} received another {reading.called(entry.event)}:\n"
                f"  dispatched {reading.tokens[entry.event]}\n  received   {entry.token}"
            )
            return Violation("R6", message, trace)
    return None


def _returns_nothing(trace: Trace) -> Violation | None:
    for entry in trace.of(Kind.ACCEPTED):
        if entry.note:
            return Violation("R7", f"dispatch returned {entry.note} instead of None", trace)
    return None


def _deliveries(trace: Trace) -> int:
    return len(Reading(trace).deliveries)


def _of_family(trace: Trace) -> int:
    return sum(entry.event_type in FAMILY for entry in trace.of(Kind.ACCEPTED))


def _without_failure(trace: Trace) -> int:
    return 0 if any(trace.of(Kind.FAILED, Kind.CRASHED)) else _deliveries(trace)


def _unsubscribed(trace: Trace) -> int:
    return sum(not trace.handlers_of(entry.event_type) for entry in trace.of(Kind.DISPATCHED))


def _pairs_of_kinds(trace: Trace) -> int:
    kinds = [is_async(handler) for _, handler in Reading(trace).deliveries]
    return min(kinds.count(True), kinds.count(False))


def _compared(trace: Trace) -> int:
    return sum(1 for _ in trace.of(Kind.STARTED))


def _accepted(trace: Trace) -> int:
    return sum(1 for _ in trace.of(Kind.ACCEPTED))


ROUTING = (
    Law(
        id="R1",
        title="delivered",
        promise="every accepted event is delivered to each handler subscribed to its exact type.",
        scripts=strategies.quiet,
        judge=delivered,
        observations=_deliveries,
        causes=(
            "only the first handler of a type is called, or the last one registered replaces the others",
            "what dispatch puts into a queue or a task is dropped: nobody refers to the task, or nobody reads",
            "a nested dispatch overwrites the queue of the outer one",
        ),
        rogue="forgetful",
    ),
    Law(
        id="R2",
        title="nowhere else",
        promise="it is delivered to no other handler: not to those of a base class, a subclass or a sibling.",
        scripts=strategies.family,
        judge=nowhere_else,
        observations=_of_family,
        causes=(
            "handlers are looked up with isinstance or along the MRO instead of by exact type",
            "handlers are looked up by a name that several types share",
        ),
        rogue="inheriting",
    ),
    Law(
        id="R3",
        title="once",
        promise="where nothing fails and nothing crashes, each delivery has exactly one attempt.",
        scripts=strategies.quiet,
        judge=once,
        observations=_without_failure,
        causes=(
            "one event goes out as several messages, and each message runs all handlers",
            "a message is acknowledged too late, or twice delivered, and run again without a failure",
        ),
        rogue="stuttering",
    ),
    Law(
        id="R4",
        title="no subscriber",
        promise="an event of a type without a handler is accepted, and nothing happens.",
        scripts=strategies.unsubscribed,
        judge=_no_subscriber,
        observations=_unsubscribed,
        causes=("the handlers are looked up with handlers[type(event)], which raises KeyError",),
        rogue="demanding",
    ),
    Law(
        id="R5",
        title="both kinds",
        promise="a plain `handle` and an `async def handle` are served alike.",
        scripts=strategies.both_kinds,
        judge=_both_kinds,
        observations=_pairs_of_kinds,
        causes=(
            "what an async def handle returns is not awaited",
            "what a plain handle returns is awaited: None",
            "a coroutine is driven without an event loop, so that it ends at its first await",
        ),
        rogue="unawaiting",
    ),
    Law(
        id="R6",
        title="the same event",
        promise="what a handler receives equals what was dispatched: type, every field, `event_id`, `occurred_at`;"
        " any Unicode, any UTC offset, any number the field admits.",
        scripts=strategies.rich,
        judge=_same_event,
        observations=_compared,
        causes=(
            "the event is rebuilt in the worker with a new event_id or occurred_at",
            "a serializer in between loses something: str() of a datetime, float() of a Decimal, a list for a tuple",
            "the event is changed on its way, e.g. stamped by the dispatcher or by an earlier handler",
        ),
        rogue="restamping",
    ),
    Law(
        id="R7",
        title="returns nothing",
        promise="`dispatch` returns `None`.",
        scripts=strategies.quiet,
        judge=_returns_nothing,
        observations=_accepted,
        causes=(
            "dispatch returns the task, the message or the handlers' results; callers then depend on the engine",
            "dispatch is an async def: without an await, it does nothing",
        ),
        rogue="chatty",
    ),
)
