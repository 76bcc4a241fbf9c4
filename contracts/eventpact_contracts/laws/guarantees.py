"""G1 to G4: the declarations of a dispatcher beyond the laws of every dispatcher, from both sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import inf
from typing import Final

from eventpact.domain.dispatcher import Delivery, Ordering
from eventpact_contracts.driver.trace import Kind
from eventpact_contracts.laws.law import Fault, law
from eventpact_contracts.laws.spans import Call
from eventpact_contracts.laws.view import TraceView
from eventpact_contracts.scenarios import events, steps
from eventpact_contracts.scenarios.events import ROLES, is_shared
from eventpact_contracts.scenarios.failures import PERMANENT
from eventpact_contracts.scenarios.scenario import ALWAYS, Caller, EventPlan, HandlerPlan, Scenario, Traits
from eventpact_contracts.scenarios.strategies.parts import in_turn

__all__: list[str] = []

_GROWTH: Final = 1.2
"""The last wait must be longer than the first by this factor at least; a wait that is constant varies by less."""

_SHRINKING: Final = 0.7
"""A wait that is shorter than the one before by this factor has shrunk, however much it varies."""

_SLOW_SECONDS: Final = 0.25
"""An attempt takes longer than most dispatchers wait for the second one."""

_NO_WAIT_SECONDS: Final = 0.0015
"""The time before a handler is called again at once; it varies, and so seems to grow now and then."""

_FEW: Final = 3
"""Of more deliveries that are tried again meanwhile, one waits for another, and not for its time alone."""


def _outermost(view: TraceView) -> int:
    return sum(call.accepted and not call.start.cause and bool(view.handlers_of(call.event)) for call in view.calls)


@law(
    "G1",
    families=("held", "cascades", "threads", "paused"),
    observations=_outermost,
    promised=lambda guarantees: guarantees.blocks_caller,
    causes=(
        "handlers run in tasks, threads or workers that dispatch does not wait for; declare blocks_caller=False",
        "what a handler dispatched in turn is not waited for",
        "an outermost dispatch that finds another thread at work leaves its event to it, and does not wait",
    ),
    rogue="hasty",
)
def blocks_caller(view: TraceView) -> Fault | None:
    """Find a call that returned before everything that it caused was settled."""
    caused: dict[str, list[tuple[str, str]]] = {}
    for delivery in view.deliveries:
        if delivery[0] not in view.returned:
            caused.setdefault(view.roots[delivery[0]], []).append(delivery)
    for call in view.calls:
        if call.start.cause or not call.accepted or call.ended is None:
            continue
        for event, handler in caused.get(call.event, ()):
            attempts = view.attempts.get((event, handler))
            if not attempts or any(attempt.ended is None or attempt.ended > call.ended for attempt in attempts):
                return Fault(
                    f"dispatch({view.name(call.event)}) returned while {handler} had not settled {view.name(event)}"
                )
            if view.closing is None and any(place > call.ended for place, _ in view.reports.get((event, handler), ())):
                return Fault(f"dispatch({view.name(call.event)}) returned before {handler}'s failure was reported")
    return None


def _with_failure(view: TraceView) -> int:
    return len({entry.delivery for entry in view.failures})


def _one_attempt(view: TraceView) -> str | None:
    for (event, handler), attempts in view.attempts.items():
        if len(attempts) == 1 and attempts[0].failed and not attempts[0].final:
            return f"{handler} failed with {view.name(event)}, and had exactly one attempt"
    return None


def _permanent(traits: Traits) -> tuple[Scenario, ...]:
    """Permanent failures, beside others; each number of failures; a delivery that nothing delays but its waits; and one
    whose attempts take longer than these.
    """
    counts = (*range(1, traits.guarantees.retries + 1), ALWAYS)
    for_good = tuple(
        EventPlan(events.Paid, handlers={"plain": HandlerPlan(fails=ALWAYS, how=how), "coroutine": HandlerPlan(1)})
        for how in PERMANENT
    )
    each = tuple(
        EventPlan(kind, handlers={role: HandlerPlan(fails=count)})
        for kind, role in ((events.Placed, "plain"), (events.Priced, "coroutine"), (events.Signed, "awaitable"))
        for count in counts
    )
    changing = tuple(
        EventPlan(events.Placed, handlers={"plain": HandlerPlan(fails=ALWAYS, then=how)}) for how in PERMANENT
    )
    # It was a permanent failure, with which the handler has dealt.
    changing += (EventPlan(events.Placed, handlers={"plain": HandlerPlan(fails=1, how="with a permanent cause")}),)
    alone = (EventPlan(events.Placed, handlers={"plain": HandlerPlan(fails=ALWAYS)}),)
    usual = tuple(Scenario(plans, (in_turn(len(plans)),)) for plans in (for_good, changing, each, alone))
    if traits.guarantees.retries < 2:
        return usual
    slow = HandlerPlan(fails=ALWAYS, seconds=_SLOW_SECONDS)
    slowly = Scenario((EventPlan(events.Placed, handlers={"plain": slow}),) * 2, (in_turn(2),))  # of which one is quiet
    return (*usual, _beside_successes(), *((slowly,) if traits.quick else ()))


def _beside_successes() -> Scenario:
    """A delivery that is tried again and again, while the same handler succeeds with other events."""
    plans = (EventPlan(events.Placed, handlers={"plain": HandlerPlan(fails=ALWAYS)}), EventPlan(events.Placed))
    others = (steps.Dispatch(1), steps.Rest(0.01)) * 30
    return Scenario(plans, (Caller((steps.Dispatch(0), steps.AwaitEnded(0), *others), thread=True),))


@law(
    "G2",
    families=("retried", "failing"),
    fixed=_permanent,
    observations=_with_failure,
    promised=lambda guarantees: guarantees.retries > 0,
    witness=_one_attempt,
    causes=(
        "the whole message is tried again, with the handlers that had succeeded",
        "retries are counted by event instead of by delivery, or the first attempt is counted as a retry",
        "PermanentFailureError, or a subclass of it, is tried again",
        "the wait between attempts is constant",
    ),
    rogue="impatient",
)
def retries(view: TraceView) -> Fault | None:
    """Find a delivery with too many attempts, too few, or attempts that it should not have had."""
    for delivery in view.deliveries:
        event, handler = delivery
        attempts = view.attempts.get(delivery, [])
        what = f"{handler}'s delivery of {view.name(event)}"
        if view.due(event) > 1:
            continue  # several deliveries of one event, whose attempts cannot be told apart
        for number, (before, after) in enumerate(pairwise(attempts), start=1):
            if before.succeeded and not view.was_cut_off(before):
                return Fault(f"{what} was tried again, though attempt {number} had succeeded")
            if before.final:
                return Fault(f"{what} was tried again, though attempt {number} had failed for good")
            if (before.ended is None or before.ended > after.began) and not view.trace.outlives:
                return Fault(f"{what} was tried again while attempt {number} was still running")
        counted = sum(not view.was_cut_off(attempt) for attempt in attempts)
        if counted > view.allowed and not (view.trace.outlives and view.interruptions):
            return Fault(f"{what} had {counted} attempts, and {view.allowed} are allowed")
        if not attempts or not attempts[-1].failed or attempts[-1].final:
            continue
        if len(attempts) < view.allowed and (view.closing is None or delivery in view.reports):
            return Fault(f"{what} had {len(attempts)} attempt(s) that failed, and {view.allowed} are promised")
    return _waits_grow(view)


def _waits_grow(view: TraceView) -> Fault | None:
    again = {
        delivery: (attempts[0].start.time, attempts[-1].start.time)
        for delivery, attempts in view.attempts.items()
        if len(attempts) > 1 and view.due(delivery[0]) < 2
    }
    waits: dict[int, list[tuple[float, float]]] = {}
    for delivery, (began, ended) in again.items():
        together = sum(first <= ended and last >= began for first, last in again.values())
        cut = any(attempt.interrupted or view.was_cut_off(attempt) for attempt in view.attempts[delivery])
        if together <= _FEW and not cut:
            for place, wait in enumerate(_waits(view, delivery)):
                waits.setdefault(place, []).append(wait)
    if len(waits) < 2:
        return None
    # An attempt that is due may have to wait for others, too. So a wait was as long as it is seen to be or shorter, and
    # as long as what is left of it without the time in which others were served, or longer.
    at_most = [min(wait for wait, _ in waits[place]) for place in sorted(waits)]
    at_least = [min(wait - served for wait, served in waits[place]) for place in sorted(waits)]
    # They may stop growing where there is a longest one.
    is_none = at_most[-1] < _NO_WAIT_SECONDS
    has_shrunk = any(after < before * _SHRINKING for before, after in zip(at_least, at_most[1:], strict=False))
    if is_none or at_most[-1] < at_least[0] * _GROWTH or has_shrunk:
        shown = ", ".join(f"{wait * 1000:.0f} ms" for wait in at_most)
        return Fault(f"the waits before the attempts that followed do not grow: {shown}", timed=True, shortest=True)
    return None


def _waits(view: TraceView, delivery: tuple[str, str]) -> Iterator[tuple[float, float]]:
    """Yield the seconds before each attempt but the first, and for how many of them another delivery was served."""
    for before, after in pairwise(view.attempts[delivery]):
        if before.end is None:
            continue
        began, ended = before.end.time, after.start.time
        served, until = 0.0, began
        for start, end in sorted(span for other, span in _served(view) if other != delivery):
            served += max(0.0, min(end, ended) - max(start, until))
            until = max(until, end)
        yield ended - began, served


def _served(view: TraceView) -> Iterator[tuple[tuple[str, str], tuple[float, float]]]:
    """Yield when each delivery was served: from the call of ``dispatch`` to the end of the first attempt, and in the
    attempts that followed.
    """
    for call in view.calls:
        for handler in view.handlers_of(call.event) if call.accepted or call.in_doubt else ():
            attempts = view.attempts.get((call.event, handler), [])
            begins = [call.start.time, *(attempt.start.time for attempt in attempts[1:])]
            ends = [attempt.end.time if attempt.end else inf for attempt in attempts]
            yield from (((call.event, handler), span) for span in zip(begins, ends, strict=False))


def _in_danger(view: TraceView) -> int:
    """Count deliveries that were accepted and not settled at a crash."""
    crashes = [index for index, entry in enumerate(view.trace.entries) if entry.kind is Kind.CRASHED]
    accepted = {entry.event: index for index, entry in enumerate(view.trace.entries) if entry.kind is Kind.ACCEPTED}
    return sum(
        any(
            accepted[event] < crash
            and not any(
                a.succeeded and a.ended is not None and a.ended < crash for a in view.attempts.get((event, handler), [])
            )
            for crash in crashes
        )
        for event, handler in view.deliveries
    )


def _loss(view: TraceView) -> str | None:
    for event, handler in view.deliveries:
        if not any(attempt.succeeded for attempt in view.attempts.get((event, handler), [])):
            return f"{view.name(event)} was accepted before the kill, and {handler} never completed it"
    return None


@law(
    "G3",
    observations=_in_danger,
    promised=lambda guarantees: guarantees.delivery is Delivery.AT_LEAST_ONCE,
    processes=True,
    witness=_loss,
    causes=(
        "the message is acknowledged before the handler has run, or when its worker dies",
        "accepted events are only in the memory of the process",
        "a failed event is acknowledged in a finally",
    ),
    rogue="forgets_on_crash",
)
def delivery(view: TraceView) -> Fault | None:
    """Find an accepted delivery that a kill lost, or one that was attempted again where nothing is promised."""
    if view.trace.guarantees is not None and view.trace.guarantees.delivery is Delivery.AT_MOST_ONCE:
        return _attempted_after_crash(view)
    for event, handler in view.deliveries:
        if not any(attempt.succeeded for attempt in view.attempts.get((event, handler), [])):
            return Fault(f"{view.name(event)} was accepted, and lost: {handler} never succeeded")
    return None


def _attempted_after_crash(view: TraceView) -> Fault | None:
    crash = view.first(Kind.CRASHED)
    for (event, handler), attempts in view.attempts.items():
        before = [attempt for attempt in attempts if crash is not None and attempt.began < crash]
        if before and any(attempt.began > crash for attempt in attempts if crash is not None):
            return Fault(f"{handler} received {view.name(event)} before the crash, and again after it")
    return None


def _caller(call: Call) -> tuple[str, str]:
    """Return who dispatched: a handler is another caller with each event that it handles."""
    return call.start.caller, call.start.cause


def _ordered_pairs(view: TraceView) -> int:
    seen: dict[tuple[tuple[str, str], str], set[str]] = {}
    for call in view.calls:
        for handler in view.handlers_of(call.event):
            if (call.event, handler) in view.attempts:
                seen.setdefault((_caller(call), handler), set()).add(call.event)
    return sum(len(several) - 1 for several in seen.values())


def _back_in_time(traits: Traits) -> tuple[Scenario, ...]:
    """Events that happened one before the other, and are dispatched the other way round; some that a handler
    dispatches; and one that fails once.
    """
    now = datetime(2024, 5, 1, tzinfo=UTC)
    backwards = tuple(
        EventPlan(kind, values={"occurred_at": now - timedelta(days=number), "number": -number})
        for kind in (events.Placed, events.Paid, events.Priced)
        for number in range(4)
    )
    scenarios = [Scenario(backwards, (in_turn(len(backwards)),), inside_loop=inside) for inside in (False, True)]
    held = replace(backwards[0], handlers={"plain": HandlerPlan(seconds=0.05)})
    scenarios.append(Scenario((held, *backwards[1:4]), (in_turn(4),)))
    several = HandlerPlan(spawns=tuple(EventPlan(kind) for kind in (events.Paid, events.Priced) for _ in range(3)))
    spawning = tuple(EventPlan(events.Signed, handlers={role: several}) for role in ROLES[events.Signed])
    scenarios.append(Scenario((EventPlan(events.Placed, handlers={"plain": several}), *spawning), (in_turn(2),)))
    # A handler of two types, which come in turn behind one that is held up.
    slow = EventPlan(events.Recorded, handlers={role: HandlerPlan(seconds=0.05) for role in ROLES[events.Recorded]})
    behind = tuple(EventPlan(kind) for kind in (events.Recorded, events.Returned, events.Recorded, events.Returned))
    scenarios.append(Scenario((slow, *behind), (in_turn(5),)))
    if traits.guarantees.retries:
        # A failed event comes again behind later ones, unless the engine makes the others wait.
        fails = EventPlan(events.Placed, handlers={"plain": HandlerPlan(fails=1)})
        scenarios.append(Scenario((fails, EventPlan(events.Placed)), (in_turn(2),)))
    return tuple(scenarios)


@law(
    "G4",
    families=("ordered", "schedules", "quiet"),
    fixed=_back_in_time,
    observations=_ordered_pairs,
    promised=lambda guarantees: guarantees.ordering is Ordering.FIFO,
    causes=(
        "several workers, threads or tasks serve one handler",
        "a delivery that failed is tried again behind those that came after it",
        "events are sorted by occurred_at, which is not the order of dispatching",
        "a stack or a set where a queue was meant",
    ),
    rogue="shuffling",
)
def ordering(view: TraceView) -> Fault | None:
    """Find a handler that saw events in another order than their caller dispatched them."""
    places: dict[str, tuple[tuple[str, str], int]] = {}
    for number, call in enumerate(view.calls):
        if call.start.event_type and len(view.calls_of[call.event]) == 1:
            places.setdefault(call.event, (_caller(call), number))
    latest: dict[tuple[tuple[str, str], str], tuple[int, str]] = {}
    for entry in view.trace.of(Kind.STARTED):
        if entry.event not in places:
            continue
        caller, number = places[entry.event]
        handler = entry.handler.rpartition(".")[2] if is_shared(entry.handler) else entry.handler
        before, other = latest.get((caller, handler), (-1, ""))
        if number < before:
            return Fault(
                f"{entry.handler} received {view.name(other)} before {view.name(entry.event)}, which {caller[0]}"
                " dispatched first"
            )
        latest[caller, handler] = number, entry.event
    return None
