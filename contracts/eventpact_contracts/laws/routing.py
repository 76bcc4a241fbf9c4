"""R1 to R7: the handlers that receive an accepted event, how often, and how exactly."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from eventpact_contracts.driver.trace import Kind
from eventpact_contracts.laws.law import Fault, law
from eventpact_contracts.laws.spans import Attempt
from eventpact_contracts.laws.view import TraceView
from eventpact_contracts.scenarios import events, steps
from eventpact_contracts.scenarios.events import FAMILY, ROLES, UNSUBSCRIBED, is_async, is_awaitable, label_of
from eventpact_contracts.scenarios.scenario import Caller, EventPlan, HandlerPlan, Scenario, Traits
from eventpact_contracts.scenarios.strategies.parts import FLOOD, SUBSCRIBED, each_apart, in_turn
from eventpact_contracts.scenarios.strategies.routing import beside_a_neighbour, every_content
from eventpact_contracts.scenarios.values import ROUND_NUMBERS

__all__ = ["delivered", "nowhere_else", "once"]

_RELATED = frozenset(map(label_of, FAMILY))
_ONE_MOMENT = {"number": 1, "occurred_at": datetime(2024, 5, 1, tzinfo=UTC)}
_IDLE_SECONDS = 1.3
_LONG_SECONDS = 3.2
"""Longer than usual leases and time-outs."""


def _undisturbed(view: TraceView) -> int:
    return len(view.deliveries) if _is_undisturbed(view) else 0


def _is_undisturbed(view: TraceView) -> bool:
    """Return whether nothing failed, closed or stood in the way, so that all that was accepted must arrive."""
    return view.is_open and view.is_unbroken


def _every_type(traits: Traits) -> tuple[Scenario, ...]:
    """Every type that has handlers, with every content, by one caller; and handlers that nobody else knows."""
    plans = tuple(EventPlan(kind) for kind in SUBSCRIBED)
    same = (EventPlan(events.Placed, values=ROUND_NUMBERS[0]),) * 3  # as different events may have, of one moment, too
    at_once = tuple(EventPlan(kind, values=_ONE_MOMENT) for kind in (events.Paid, events.Paid, events.Placed) * 2)
    at_once += (EventPlan(events.Emptied, handlers={"plain": HandlerPlan(seconds=0.02)}), EventPlan(events.Emptied))
    return (
        Scenario(plans, (in_turn(len(plans)),), forgotten=True, close=True),
        Scenario(plans, (in_turn(len(plans)),)),
        *every_content(traits),
        Scenario(same, (in_turn(len(same)),), inside_loop=True),
        Scenario(at_once, (in_turn(len(at_once)),)),
        _by_a_thread_of_a_handler(),
        _after_a_rest(),
    )


def _after_a_rest() -> Scenario:
    """Events after a while in which there is nothing to do, by whose end idle threads and connections may be gone."""
    plans = tuple(EventPlan(kind) for kind in (events.Paid, events.Placed, events.Paid, events.Priced))
    resting = (steps.Dispatch(0), steps.Dispatch(1), steps.Rest(_IDLE_SECONDS), steps.Dispatch(2), steps.Dispatch(3))
    return Scenario(plans, (Caller(resting),))


def _by_a_thread_of_a_handler() -> Scenario:
    """Once all is settled, threads dispatch that have a copy of a handler's context."""
    plans = tuple(
        EventPlan(events.Paid, handlers={role: HandlerPlan(afterwards=(EventPlan(kind),))})
        for role, kind in (("plain", events.Paid), ("plain_too", events.Placed), ("coroutine", events.Priced))
    )
    return Scenario(plans, (in_turn(len(plans)),))


@law(
    "R1",
    families=("quiet", "any content", "kinds of handlers"),
    fixed=_every_type,
    observations=_undisturbed,
    usual_order=True,
    causes=(
        "only the first handler of a type is called, or the last one registered replaces the others",
        "a handler, an event or a field is asked for its truth, its equality or its length",
        "what dispatch puts into a queue or a task is dropped: nobody refers to the task, or nobody reads",
        "a nested dispatch overwrites the queue of the outer one",
    ),
    rogue="forgetful",
)
def delivered(view: TraceView) -> Fault | None:
    """Find a delivery that never was. An event that arrived as another one is law R6's."""
    if not _is_undisturbed(view):
        return None
    astray = {entry.handler for entry in view.strays}
    for event, handler in view.deliveries:
        if (event, handler) not in view.attempts and handler not in astray:
            return Fault(f"{view.name(event)} was accepted, and {handler} never received it")
    return None


def _related(view: TraceView) -> int:
    return sum(entry.event_type in _RELATED for entry in view.trace.of(Kind.ACCEPTED))


@law(
    "R2",
    families=("relatives", "quiet"),
    fixed=beside_a_neighbour,
    observations=_related,
    usual_order=True,
    causes=(
        "handlers are looked up with isinstance or along the MRO instead of by exact type",
        "handlers are looked up by a name that several types share",
        "the handlers are kept on the class, or for the process, and another dispatcher has others",
    ),
    rogue="inheriting",
)
def nowhere_else(view: TraceView) -> Fault | None:
    """Find a handler that received an event of a type that it is not subscribed to."""
    for entry in view.trace.of(Kind.STARTED):
        if entry.event in view.types and entry.handler not in view.handlers_of(entry.event):
            return Fault(f"{view.name(entry.event)} was delivered to {entry.handler}, which is not subscribed to it")
    return None


def _slow(traits: Traits) -> tuple[Scenario, ...]:
    """Handlers of each kind that take as long as a usual time-out, and one that gives way very often."""
    plans = (
        EventPlan(events.Placed, handlers={"plain": HandlerPlan(seconds=1.1)}),
        EventPlan(events.Priced, handlers={"coroutine": HandlerPlan(seconds=1.1)}),
        EventPlan(events.Signed, handlers={"awaitable": HandlerPlan(seconds=1.1, pauses=50)}),
    )
    long = tuple(
        EventPlan(kind, handlers={role: HandlerPlan(seconds=_LONG_SECONDS)})
        for kind, role in ((events.Placed, "plain"), (events.Priced, "coroutine"), (events.Signed, "awaitable"))
    )
    usual = Scenario(plans, each_apart(len(plans)))
    return (usual, Scenario(long, each_apart(len(long)))) if traits.quick else (usual,)


def _slow_or_with_a_result(traits: Traits) -> tuple[Scenario, ...]:
    """Slow handlers, and handlers that return something: each meaningless thing, in all likelihood."""
    returning = {role: HandlerPlan(returns=True) for role in ROLES[events.Paid]}
    plans = (EventPlan(events.Paid, handlers=returning),) * 20
    return (*_slow(traits), Scenario(plans, (in_turn(len(plans)),)))


@law(
    "R3",
    families=("quiet", "kinds of handlers"),
    fixed=_slow_or_with_a_result,
    observations=_undisturbed,
    usual_order=True,
    causes=(
        "one event goes out as several messages, and each message runs all handlers",
        "a message is acknowledged too late, or twice delivered, and run again without a failure",
        "a lease or a visibility time-out ends while the handler is still running",
    ),
    rogue="stuttering",
)
def once(view: TraceView) -> Fault | None:
    """Find a delivery with more attempts than are due. That there is an attempt at all is law R1."""
    if not view.is_unbroken:
        return None
    for delivery in view.deliveries:
        event, handler = delivery
        # Where the engine outlives the dispatcher, what runs when closing gives it up is another's to deliver.
        count = sum(not view.was_cut_off(attempt) for attempt in view.attempts.get(delivery, ()))
        if count > view.due(event):
            return Fault(f"{handler} received {view.name(event)} {count} times, though nothing failed")
    return None


def _unsubscribed(view: TraceView) -> int:
    return sum(bool(entry.event_type) and not view.handlers_of(entry.event) for entry in view.trace.of(Kind.ACCEPTED))


def _without_handler(traits: Traits) -> tuple[Scenario, ...]:
    """Events without a handler only, and very many; the dispatcher closes at once, and has nothing to return."""
    plans = tuple(EventPlan(kind) for kind in UNSUBSCRIBED)
    dispatching = in_turn(len(plans)).steps
    many = FLOOD if traits.quick else 20
    return (
        Scenario((plans[0], EventPlan(events.Placed)), (Caller((steps.Flood(0, many), steps.Dispatch(1))),)),
        Scenario(plans, (in_turn(len(plans)),)),
        Scenario(plans, (Caller((*dispatching, steps.Close(0.0))),), close=True),
        Scenario(
            (*plans, EventPlan(events.Placed)),
            (Caller((*dispatching, steps.Dispatch(len(plans)), steps.Close(5.0))),),
            close=True,
        ),
    )


@law(
    "R4",
    families=("relatives", "closing"),
    fixed=_without_handler,
    observations=_unsubscribed,
    causes=(
        "the handlers are looked up with handlers[type(event)], which raises KeyError",
        "an event without a handler is queued like any other, and nobody takes it out",
    ),
    rogue="demanding",
)
def no_subscriber(view: TraceView) -> Fault | None:
    """Find an event without a handler that is refused, pending, reported or returned."""
    handled = {entry.event: entry for entry in reversed([*view.trace.of(Kind.STARTED, Kind.REPORTED)])}
    for call in view.calls:
        if view.handlers_of(call.event) or not call.start.event_type:
            continue
        if not call.accepted and view.is_open and not call.in_doubt:
            outcome = "never returned" if call.end is None else f"{call.end.kind.value}: {call.end.exception[0]}"
            return Fault(f"{view.name(call.event)} has no handler, and was not accepted ({outcome})")
        if entry := handled.get(call.event):
            return Fault(f"{view.name(call.event)} has no handler, yet: {entry.kind.value} {entry.handler}".rstrip())
        if call.event in view.returned:
            return Fault(f"{view.name(call.event)} has no handler, and aclose returned it as undelivered")
    return None


_KINDS = ("a plain handle", "an async def handle", "a plain handle that returns an awaitable")


def _kind_of(handler: str) -> str:
    return _KINDS[1 if is_async(handler) else 2 if is_awaitable(handler) else 0]


def _served(view: TraceView) -> int:
    return len({(event, _kind_of(handler)) for event, handler in view.deliveries}) if _is_undisturbed(view) else 0


def _with_and_without_waiting(traits: Traits) -> tuple[Scenario, ...]:
    """A handler that returns an awaitable for one event and none for another, and slow handlers."""
    orders = ((1, 2, 2), (2, 1, 1))
    taken = (steps.Dispatch(0), steps.AwaitEnded(0), steps.Dispatch(1), steps.Dispatch(2))
    return (
        *(
            Scenario(
                tuple(EventPlan(events.Odd, values={"number": number}) for number in order),
                (Caller(taken, thread=True),),
            )
            for order in orders
        ),
        *_slow(traits),
    )


@law(
    "R5",
    families=("kinds of handlers", "quiet"),
    fixed=_with_and_without_waiting,
    observations=_served,
    needs="async_handlers",
    causes=(
        "what an async def handle returns is not awaited, or only if inspect.iscoroutinefunction says so",
        "what a plain handle returns is awaited: None",
        "a coroutine is driven without an event loop, so that it ends at its first await",
        "a handler is cancelled, or no longer waited for, after a time-out that nobody declared",
    ),
    rogue="unawaiting",
)
def all_kinds(view: TraceView) -> Fault | None:
    """Find a kind of handler that is not served as the others are."""
    if not view.is_open:
        return None
    for attempt in _attempts(view):
        if attempt.end is not None and attempt.end.imposed:
            took = attempt.end.time - attempt.start.time
            return Fault(
                f"{_kind_of(attempt.start.handler)}, {attempt.start.handler}, was broken off after {took:.2f} s with"
                f" {view.name(attempt.start.event)} ({attempt.end.exception[0]})"
            )
    if not view.is_unbroken:
        return None
    succeeded = any(attempt.succeeded for attempt in _attempts(view))
    at_work = {entry.delivery for entry in view.trace.of(Kind.HELD)}
    for event, handler in view.deliveries if succeeded else ():
        attempts = view.attempts.get((event, handler))
        if attempts and attempts[-1].end is None and (event, handler) not in at_work:
            return Fault(
                f"{_kind_of(handler)}, {handler}, began with {view.name(event)}, and was not awaited to its end"
            )
    # Awaitables are of several kinds themselves, which the role tells.
    done: set[tuple[str, str]] = set()
    missed: dict[tuple[str, str], tuple[str, str]] = {}
    for delivery in view.deliveries:
        kind = _kind_of(delivery[1]), delivery[1].rpartition(".")[2] if is_awaitable(delivery[1]) else ""
        if any(attempt.succeeded for attempt in view.attempts.get(delivery, ())):
            done.add(kind)
        else:
            missed.setdefault(kind, delivery)
    for kind, (event, handler) in missed.items():
        others = [each for each, _ in done if each != kind[0]]
        if kind not in done and others:
            return Fault(f"{kind[0]}, {handler}, did not complete {view.name(event)}, while {min(others)} did")
    return None


def _attempts(view: TraceView) -> Iterator[Attempt]:
    return (attempt for attempts in view.attempts.values() for attempt in attempts)


def _compared(view: TraceView) -> int:
    return sum(1 for _ in view.trace.of(Kind.STARTED))


@law(
    "R6",
    families=("any content", "retried"),
    fixed=every_content,
    observations=_compared,
    causes=(
        "the event is rebuilt in the worker with a new event_id or occurred_at",
        "a serializer in between loses something: str() of a datetime, float() of a Decimal, a list for a tuple",
        "text is normalised, stripped or truncated",
        "the event is changed on its way, e.g. stamped by the dispatcher or by an earlier handler",
    ),
    rogue="restamping",
)
def same_event(view: TraceView) -> Fault | None:
    """Find a handler that received another event than the dispatched one."""
    if view.strays:
        stray = view.strays[0]
        return Fault(f"{stray.handler} received an event that nobody dispatched: {stray.token}")
    for entry in view.trace.of(Kind.STARTED):
        if entry.token != view.fingerprints[entry.event]:
            return Fault(
                f"{entry.handler} received another {view.name(entry.event)}:\n"
                f"  dispatched {view.fingerprints[entry.event]}\n  received   {entry.token}"
            )
    return None


def _accepted(view: TraceView) -> int:
    return sum(1 for _ in view.trace.of(Kind.ACCEPTED))


@law(
    "R7",
    families=("quiet",),
    observations=_accepted,
    causes=(
        "dispatch returns the task, the message or the handlers' results; callers then depend on the engine",
        "dispatch is an async def: without an await, it does nothing",
    ),
    rogue="chatty",
)
def returns_nothing(view: TraceView) -> Fault | None:
    """Find a call of ``dispatch`` that returned something."""
    for entry in view.trace.of(Kind.ACCEPTED):
        if entry.note:
            return Fault(f"dispatch returned {entry.note} instead of None")
    return None
