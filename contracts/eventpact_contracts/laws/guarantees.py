"""G1 to G4: what a dispatcher declares beyond the laws of every dispatcher, from both sides."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from eventpact.domain.dispatcher import Delivery, Ordering
from eventpact_contracts.checking.outcomes import Violation
from eventpact_contracts.driver.trace import Kind, Trace
from eventpact_contracts.laws.law import Attempt, Law, Reading
from eventpact_contracts.scenarios import strategies

__all__ = ["GUARANTEES"]

_GROWTH: Final = 1.2
"""The last wait must be longer than the first by this factor at least; a wait that is constant varies by less."""


def _blocks_caller(trace: Trace) -> Violation | None:
    reading = Reading(trace)
    causes = {call.event: call.cause for _, call, _, _ in reading.calls}
    for _, call, stop, end in reading.calls:
        if call.cause or end is None or end.kind is not Kind.ACCEPTED or stop is None:
            continue
        for event, handler in reading.deliveries:
            if not _caused_by(event, call.event, causes):
                continue
            attempts = reading.attempts.get((event, handler))
            if not attempts or any(attempt.ended is None or attempt.ended > stop for attempt in attempts):
                message = (
                    f"dispatch({reading.called(call.event)}) returned while {handler} had not settled"
                    f" {reading.called(event)}"
                )
                return Violation("G1", message, trace)
    return None


def _caused_by(event: str, root: str, causes: dict[str, str]) -> bool:
    while event and event != root:
        event = causes.get(event, "")
    return event == root


def _retries(trace: Trace) -> Violation | None:
    reading = Reading(trace)
    allowed = 1 + (trace.guarantees.retries if trace.guarantees else 0)
    for delivery in reading.deliveries:
        event, handler = delivery
        attempts = reading.attempts.get(delivery, [])
        what = f"{handler}'s delivery of {reading.called(event)}"
        for number, attempt in enumerate(attempts[:-1], start=1):
            if attempt.succeeded:
                return Violation("G2", f"{what} was tried again, though attempt {number} had succeeded", trace)
        if len(attempts) > allowed:
            return Violation("G2", f"{what} had {len(attempts)} attempts, and {allowed} are allowed", trace)
        if not attempts or attempts[-1].succeeded or attempts[-1].end is None:
            continue
        if len(attempts) < allowed and event not in reading.returned:
            message = f"{what} had {len(attempts)} attempt(s) that failed, and {allowed} are promised"
            return Violation("G2", message, trace)
    return _waits_grow(reading)


def _one_attempt(trace: Trace) -> str | None:
    reading = Reading(trace)
    for (event, handler), attempts in reading.attempts.items():
        if len(attempts) == 1 and attempts[0].end is not None and attempts[0].end.kind is Kind.FAILED:
            return f"{handler} failed with {reading.called(event)}, and had exactly one attempt"
    return None


def _waits_grow(reading: Reading) -> Violation | None:
    waits: dict[int, list[float]] = {}
    for attempts in reading.attempts.values():
        for place, wait in enumerate(_waits(attempts)):
            waits.setdefault(place, []).append(wait)
    if len(waits) < 2:
        return None
    shortest = [min(waits[place]) for place in sorted(waits)]
    if shortest[-1] < shortest[0] * _GROWTH:
        shown = ", ".join(f"{wait * 1000:.0f} ms" for wait in shortest)
        message = f"the waits before the attempts that followed do not grow: {shown}"
        return Violation("G2", message, reading.trace, timed=True)
    return None


def _waits(attempts: list[Attempt]) -> list[float]:
    return [after.start.time - before.end.time for before, after in pairwise(attempts) if before.end is not None]


def _survives(trace: Trace) -> Violation | None:
    reading = Reading(trace)
    if trace.guarantees is not None and trace.guarantees.delivery is Delivery.AT_MOST_ONCE:
        return _attempted_after_crash(reading)
    for delivery in reading.deliveries:
        event, handler = delivery
        if not any(attempt.succeeded for attempt in reading.attempts.get(delivery, [])):
            return Violation("G3", f"{reading.called(event)} was accepted, and lost: {handler} never succeeded", trace)
    return None


def _attempted_after_crash(reading: Reading) -> Violation | None:
    crash = reading.first(Kind.CRASHED)
    for (event, handler), attempts in reading.attempts.items():
        before = [attempt for attempt in attempts if crash is not None and attempt.started < crash]
        if before and any(attempt.started > crash for attempt in attempts if crash is not None):
            message = f"{handler} received {reading.called(event)} before the crash, and again after it"
            return Violation("G3", message, reading.trace)
    return None


def _loss(trace: Trace) -> str | None:
    reading = Reading(trace)
    for event, handler in reading.deliveries:
        if not any(attempt.succeeded for attempt in reading.attempts.get((event, handler), [])):
            return f"{reading.called(event)} was accepted before the kill, and {handler} never completed it"
    return None


def _fifo(trace: Trace) -> Violation | None:
    reading = Reading(trace)
    places: dict[str, tuple[str, int]] = {}
    for number, (_, call, _, _) in enumerate(reading.calls):
        if not call.cause and call.event_type:
            places.setdefault(call.event, (call.caller, number))
    latest: dict[tuple[str, str], tuple[int, str]] = {}
    for entry in trace.of(Kind.STARTED):
        if entry.event not in places:
            continue
        caller, number = places[entry.event]
        before, other = latest.get((caller, entry.handler), (-1, ""))
        if number < before:
            message = (
                f"{entry.handler} received {reading.called(other)} before {reading.called(entry.event)}, which {caller}"
                " dispatched first"
            )
            return Violation("G4", message, trace)
        latest[caller, entry.handler] = number, entry.event
    return None


def _outermost(trace: Trace) -> int:
    return sum(not e.cause and bool(trace.handlers_of(e.event_type)) for e in trace.of(Kind.ACCEPTED))


def _with_failure(trace: Trace) -> int:
    return len({entry.delivery for entry in trace.of(Kind.FAILED)})


def _in_danger(trace: Trace) -> int:
    """Deliveries that were accepted and not settled at a crash."""
    reading = Reading(trace)
    crashes = [index for index, entry in enumerate(trace.entries) if entry.kind is Kind.CRASHED]
    accepted = {entry.event: index for index, entry in enumerate(trace.entries) if entry.kind is Kind.ACCEPTED}
    return sum(
        any(
            accepted[event] < crash
            and not any(
                a.succeeded and a.ended is not None and a.ended < crash
                for a in reading.attempts.get((event, handler), [])
            )
            for crash in crashes
        )
        for event, handler in reading.deliveries
    )


def _ordered_pairs(trace: Trace) -> int:
    reading = Reading(trace)
    seen: dict[tuple[str, str], set[str]] = {}
    for _, call, _, _ in reading.calls:
        for handler in trace.handlers_of(call.event_type):
            if not call.cause and (call.event, handler) in reading.attempts:
                seen.setdefault((call.caller, handler), set()).add(call.event)
    return sum(len(events) - 1 for events in seen.values())


GUARANTEES = (
    Law(
        id="G1",
        title="blocks_caller",
        promise="yes: when the outermost `dispatch` returns, everything that it caused is settled. No: `dispatch`"
        " returns while a handler is still held.",
        scripts=strategies.held,
        judge=_blocks_caller,
        observations=_outermost,
        promised=lambda guarantees: guarantees.blocks_caller,
        share=0.2,
        causes=(
            "handlers run in tasks, threads or workers that dispatch does not wait for; declare blocks_caller=False",
            "what a handler dispatched in turn is not waited for",
        ),
        rogue="hasty",
    ),
    Law(
        id="G2",
        title="retries",
        promise="n: a handler that fails k ≤ n times and then succeeds is delivered with k + 1 attempts, only"
        " deliveries that failed are tried again (a handler of the same event that succeeded is not), and the"
        " waits grow; it is reported failed only after n + 1 attempts. 0: exactly one attempt.",
        scripts=strategies.retried,
        judge=_retries,
        observations=_with_failure,
        promised=lambda guarantees: guarantees.retries > 0,
        witness=_one_attempt,
        share=0.3,
        causes=(
            "the whole message is tried again, with the handlers that had succeeded",
            "retries are counted by event instead of by delivery, or the first attempt is counted as a retry",
            "the wait between attempts is constant",
        ),
        rogue="impatient",
    ),
    Law(
        id="G3",
        title="delivery",
        promise="`AT_LEAST_ONCE`: an accepted event outlives the SIGKILL of the process that dispatched it and of any"
        " worker at any step, and a restart of the broker: every accepted delivery succeeds at least once."
        " `AT_MOST_ONCE`: nothing is attempted again after a crash; a witness run shows the loss.",
        judge=_survives,
        observations=_in_danger,
        promised=lambda guarantees: guarantees.delivery is Delivery.AT_LEAST_ONCE,
        processes=True,
        witness=_loss,
        share=0.1,
        causes=(
            "the message is acknowledged before the handler has run, or when its worker dies",
            "accepted events are only in the memory of the process",
            "a failed event is acknowledged in a finally",
        ),
        rogue="forgets_on_crash",
    ),
    Law(
        id="G4",
        title="ordering",
        promise="`FIFO`: one handler sees events in the order in which one caller dispatched them, on every schedule."
        " `NONE`: no promise; the suite permutes.",
        scripts=strategies.ordered,
        judge=_fifo,
        observations=_ordered_pairs,
        promised=lambda guarantees: guarantees.ordering is Ordering.FIFO,
        causes=(
            "several workers, threads or tasks serve one handler",
            "a delivery that failed is tried again behind those that came after it",
            "a stack or a set where a queue was meant",
        ),
        rogue="shuffling",
    ),
)
