"""The view that laws have of a trace: its calls, deliveries, attempts and reports, sorted out once for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeVar

from eventpact_contracts.driver.trace import SINK, Entry, Kind, Trace
from eventpact_contracts.laws.spans import Attempt, Call, Closing, Span
from eventpact_contracts.scenarios.events import RETURNED_COROUTINES, is_plain
from eventpact_contracts.scenarios.scenario import FLOODED

__all__ = ["TraceView"]

S = TypeVar("S", bound=Span)

Delivery = tuple[str, str]
"""An event, and a handler that is subscribed to its type."""

_SIMULTANEOUS_SECONDS: Final = 0.05
"""Seconds in which a dispatcher need not have noticed that a handler ended."""


@dataclass(frozen=True)
class TraceView:
    """A trace, sorted for the laws."""

    trace: Trace

    # -- dispatching --------------------------------------------------------------------------------------------------

    @cached_property
    def calls(self) -> list[Call]:
        """Each call of ``dispatch``, in order."""
        return self._spans(Call, Kind.DISPATCHED, Kind.ACCEPTED, Kind.REFUSED, Kind.RAISED)

    def _spans(self, make: type[S], begins: Kind, *ends: Kind) -> list[S]:
        """The calls that begin with entries of a kind; the one that ends a call is of the same event and caller."""
        open_calls: dict[tuple[str, str], list[int]] = {}
        found: list[S] = []
        for index, entry in enumerate(self.trace.entries):
            key = (entry.event, entry.caller)
            if entry.kind is begins:
                open_calls.setdefault(key, []).append(len(found))
                found.append(make(index, entry))
            elif entry.kind in ends and open_calls.get(key):
                place = open_calls[key].pop(0)
                found[place] = make(found[place].began, found[place].start, index, entry)
        return found

    def failed_during(self, call: Call) -> bool:
        """Return whether an attempt failed while a call of ``dispatch`` was under way."""
        return any(entry.kind is Kind.FAILED for entry in self.trace.entries[call.began : call.ended])

    @cached_property
    def calls_of(self) -> dict[str, list[Call]]:
        """The calls of each event."""
        found: dict[str, list[Call]] = {}
        for call in self.calls:
            found.setdefault(call.event, []).append(call)
        return found

    @cached_property
    def types(self) -> dict[str, str]:
        """The type of each event that was dispatched."""
        return {entry.event: entry.event_type for entry in self.trace.of(Kind.DISPATCHED)}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        return {entry.event: entry.token for entry in self.trace.of(Kind.DISPATCHED)}

    @cached_property
    def causes(self) -> dict[str, str]:
        """The event whose handler dispatched each."""
        return {entry.event: entry.cause for entry in self.trace.of(Kind.DISPATCHED)}

    @cached_property
    def accepted(self) -> dict[str, int]:
        """Return how often each event was accepted, in order."""
        return Counter(entry.event for entry in self.trace.of(Kind.ACCEPTED))

    def due(self, event: str) -> int:
        """Return how often each handler may succeed with the event: once for each call that took it, or may have."""
        return sum(call.accepted or call.in_doubt for call in self.calls_of.get(event, ()))

    @cached_property
    def roots(self) -> dict[str, str]:
        """For each event, the one that an outermost caller dispatched and that it followed from."""
        found: dict[str, str] = {}
        for event in self.causes:
            chain = [event]
            while (cause := self.causes.get(chain[-1], "")) and cause not in found and len(chain) <= len(self.causes):
                chain.append(cause)
            root = found.get(cause, chain[-1])
            found.update(dict.fromkeys(chain, root))
        return found

    def ancestors(self, event: str) -> list[str]:
        """An event, the event whose handler dispatched it, and so on."""
        chain = {event: None}
        while (event := self.causes.get(event, "")) and event not in chain:
            chain[event] = None
        return list(chain)

    def depth(self, event: str) -> int:
        """Return how deep in a cascade an event is."""
        return len(self.ancestors(event)) - 1

    @cached_property
    def callers(self) -> set[str]:
        """The outermost callers."""
        return {call.start.caller for call in self.calls if not call.start.cause}

    # -- deliveries ---------------------------------------------------------------------------------------------------

    @cached_property
    def deliveries(self) -> list[Delivery]:
        """Each accepted event with each handler that is subscribed to its type."""
        return [(event, handler) for event in self.accepted for handler in self.handlers_of(event)]

    @cached_property
    def _subscribed(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for event_type, handler in self.trace.subscriptions:
            found[event_type] = (*found.get(event_type, ()), handler)
        return found

    def handlers_of(self, event: str) -> tuple[str, ...]:
        """The handlers that are subscribed to the exact type of an event."""
        return self._subscribed.get(self.types.get(event, ""), ())

    @cached_property
    def attempts(self) -> dict[Delivery, list[Attempt]]:
        """The attempts of each delivery, in order."""
        found: dict[Delivery, list[Attempt]] = {}
        for index, entry in enumerate(self.trace.entries):
            if entry.kind is Kind.STARTED:
                found.setdefault(entry.delivery, []).append(Attempt(index, entry))
            elif entry.kind in (Kind.SUCCEEDED, Kind.FAILED):
                several = found.get(entry.delivery, [])
                for place, attempt in enumerate(several):
                    if attempt.start.attempt == entry.attempt and attempt.end is None:
                        several[place] = Attempt(attempt.began, attempt.start, index, entry)
                        break
        return found

    @cached_property
    def reports(self) -> dict[Delivery, list[tuple[int, Entry]]]:
        """The reports of each delivery, with their places."""
        found: dict[Delivery, list[tuple[int, Entry]]] = {}
        for index, entry in enumerate(self.trace.entries):
            if entry.kind is Kind.REPORTED:
                found.setdefault(entry.delivery, []).append((index, entry))
        return found

    def receivers(self, event: str) -> list[str]:
        """The handlers that received an event, once for each attempt."""
        return [entry.handler for entry in self.trace.of(Kind.STARTED) if entry.event == event]

    @cached_property
    def strays(self) -> list[Entry]:
        """Attempts with an event that nobody dispatched."""
        return [entry for entry in self.trace.of(Kind.STARTED) if entry.event not in self.types]

    @cached_property
    def failures(self) -> list[Entry]:
        """Attempts that ended with an ``Exception``."""
        return [entry for entry in self.trace.of(Kind.FAILED) if not entry.interruption]

    @cached_property
    def interruptions(self) -> list[Entry]:
        """Attempts that ended with something that is no ``Exception``."""
        return [entry for entry in self.trace.of(Kind.FAILED) if entry.interruption]

    @property
    def allowed(self) -> int:
        """Return how many attempts a delivery may have."""
        return 1 + (self.trace.guarantees.retries if self.trace.guarantees else 0)

    def was_cut_off(self, attempt: Attempt) -> bool:
        """Return whether closing interrupted an attempt whose delivery the engine takes over.

        The closed dispatcher learns nothing of its end any more, so it counts as undelivered then, not as failed.
        """
        if not self.trace.outlives or self.closed is None or attempt.began > self.closed:
            return False
        return attempt.ended is None or attempt.ended > self.closed

    def must_have_noticed(self, attempt: Attempt, handler: str, place: int) -> bool:
        """Return whether an attempt ended so long before that place of the trace that the dispatcher knew of it there.

        A loop learns of the end of a plain handler, which runs in a thread, in one of its next steps.
        """
        if attempt.end is None or attempt.ended is None or attempt.ended > place:
            return False
        if self.trace.virtual:
            return not (self.trace.on_loop and is_plain(handler))
        return attempt.end.time <= self.trace.entries[place].time - _SIMULTANEOUS_SECONDS

    def has_failed(self, delivery: Delivery) -> bool:
        """Return whether no other attempt may follow those that failed."""
        attempts = self.attempts.get(delivery, [])
        ended = [each for each in attempts if each.end and not each.succeeded and not self.was_cut_off(each)]
        return any(each.final for each in ended) or len(ended) >= self.allowed

    def is_settled(self, delivery: Delivery) -> bool:
        """Return whether it succeeded, was reported, or failed as often as is allowed."""
        attempts = self.attempts.get(delivery, [])
        if any(attempt.succeeded for attempt in attempts) or delivery in self.reports:
            return True
        failed = [attempt for attempt in attempts if attempt.failed and not self.was_cut_off(attempt)]
        return any(attempt.final for attempt in failed) or len(failed) >= self.allowed

    def meets_others(self, call: Call) -> bool:
        """Return whether other calls were at it meanwhile, not counting those that waited for what caused this one."""
        above = {call.event}
        event = call.event
        while (event := self.causes.get(event, "")) and event not in above:
            above.add(event)
        never = len(self.trace.entries)
        until = never if call.ended is None else call.ended
        return any(
            each.began < until and call.began < (never if each.ended is None else each.ended)
            for each in self.calls
            if each.event not in above
        )

    def is_being_reported(self, event: str, place: int) -> bool:
        """Return whether the failure sink is at work there: its delivery is settled, or will be when that returns."""
        held, released = self._held_reports.get(event), self._releases.get(event, place)
        return held is not None and held < place <= released

    @cached_property
    def _held_reports(self) -> dict[str, int]:
        """The place where a report of each event was held for the first time."""
        return self._first_places(lambda entry: entry.kind is Kind.HELD and entry.handler == SINK)

    @cached_property
    def _releases(self) -> dict[str, int]:
        """The place where something of each event was let go for the first time."""
        return self._first_places(lambda entry: entry.kind is Kind.RELEASED)

    def _first_places(self, wanted: Callable[[Entry], bool]) -> dict[str, int]:
        found: dict[str, int] = {}
        for place, entry in enumerate(self.trace.entries):
            if wanted(entry):
                found.setdefault(entry.event, place)
        return found

    def unsettled_at(self, place: int) -> int:
        """Return how many deliveries of events that dispatch was called with before are not settled there."""
        count = 0
        for call in self.calls:
            if call.began >= place or (call.ended is not None and call.ended < place and not call.accepted):
                continue
            for handler in self.handlers_of(call.event):
                attempts = self.attempts.get((call.event, handler), ())
                ended = [a for a in attempts if a.ended is not None and a.ended < place]
                reports = [i for i, _ in self.reports.get((call.event, handler), ()) if i < place]
                settled = reports or any(a.succeeded or a.final for a in ended) or len(ended) >= self.allowed
                count += not settled
        return count

    # -- closing ------------------------------------------------------------------------------------------------------

    @cached_property
    def closings(self) -> list[Closing]:
        """Each call of ``aclose``, in order."""
        return self._spans(Closing, Kind.CLOSING, Kind.CLOSED, Kind.OVERDUE, Kind.RAISED)

    @cached_property
    def closing(self) -> int | None:
        """Return where closing was asked for."""
        return self.first(Kind.CLOSING)

    @cached_property
    def begun(self) -> int | None:
        """Return where closing had begun, at the latest."""
        return self.first(Kind.BEGUN)

    @cached_property
    def closed(self) -> int | None:
        """Return where closing ended. Of several callers who close at the same time, the last to return tells."""
        first = self.first(Kind.CLOSED)
        if first is None:
            return None
        ends = [each.ended for each in self.closings if each.began < first and each.ended is not None]
        return max((end for end in ends if self.trace.entries[end].kind is Kind.CLOSED), default=first)

    @cached_property
    def left(self) -> list[str]:
        """The things that were left behind by the dispatcher itself.

        A plain handler in a thread may return a coroutine to a loop where closing has given up whoever waits for it.
        """
        found = [entry.note for entry in self.trace.of(Kind.LEFT)]
        if self.trace.on_loop and self.returned:
            found = [note for note in found if not any(name in note for name in RETURNED_COROUTINES)]
        return found

    @cached_property
    def returned(self) -> Counter[str]:
        """Return how often ``aclose`` returned each event, all calls together."""
        return Counter(event for entry in self.trace.of(Kind.CLOSED) for event in entry.events)

    # -- the run ------------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Return whether the dispatcher was not closed, and nothing kept it from delivering, as full as it may be."""
        return self.closing is None and (not self.trace.hindrance or self.trace.hindrance.startswith(FLOODED))

    @property
    def is_unbroken(self) -> bool:
        """Return whether nothing failed and nothing crashed."""
        return not any(self.trace.of(Kind.FAILED, Kind.CRASHED))

    @cached_property
    def was_cancelled(self) -> bool:
        """Return whether closing was cancelled, of which law A3 alone says something."""
        return any(self.trace.of(Kind.CANCELLED))

    @property
    def is_usual(self) -> bool:
        """Return whether ready tasks ran in the usual order. Law C3 judges the other traces."""
        return not self.trace.schedule

    def first(self, kind: Kind) -> int | None:
        """Return where the first entry of this kind is."""
        return next((index for index, entry in enumerate(self.trace.entries) if entry.kind is kind), None)

    def name(self, event: str) -> str:
        """The event as the rendered trace calls it."""
        label = self.trace.labels.get(event, event)
        kind = self.types.get(event)
        return f"{kind} {label}" if kind else label
