"""What a law is, and how one reads a trace to judge it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from hypothesis import strategies as st

from eventpact.domain.dispatcher import Guarantees
from eventpact_contracts.checking.outcomes import Violation
from eventpact_contracts.driver.trace import Entry, Kind, Trace
from eventpact_contracts.scenarios.scenario import Script, Setting

__all__ = ["Attempt", "Law", "Reading", "always"]


def _none(setting: Setting) -> st.SearchStrategy[Script]:  # noqa: ARG001 - strategies share one signature
    return st.nothing()


def always(guarantees: Guarantees) -> bool:  # noqa: ARG001 - the other claims look at it
    """A law of every dispatcher."""
    return True


@dataclass(frozen=True, kw_only=True)
class Law:
    """One law of CONTRACT.md.

    Attributes:
        id: its ID there.
        title: its title there.
        promise: its words there.
        scripts: the strategy for scripts that reach the state that it is about, in a setting.
        judge: says how a trace breaks it, or None.
        observations: how often a trace reached the state that it is about.
        promised: whether a dispatcher with such guarantees promises it. If it does not, a trace that breaks it is the
            witness of its absence.
        share: what part of the usual number of examples it gets; less than 1 where an example takes long.
        processes: whether it is about processes that are killed, so that its traces come from elsewhere.
        witness: which trace shows the absence, where that is not the one that ``judge`` convicts. A dispatcher that
            does not promise the law is then judged all the same.
        likeness: how often a trace reached a state like the one that it is about, which stands in for that one where
            the dispatcher could not be brought to it. The law is then upheld with a word on what was tried.
        causes: what usually breaks it.
        rogue: the dispatcher of the known-bad gallery that fails alike, by name.
    """

    id: str
    title: str
    promise: str
    judge: Callable[[Trace], Violation | None]
    observations: Callable[[Trace], int]
    scripts: Callable[[Setting], st.SearchStrategy[Script]] = _none
    promised: Callable[[Guarantees], bool] = always
    share: float = 1.0
    processes: bool = False
    witness: Callable[[Trace], str | None] | None = None
    likeness: Callable[[Trace], int] | None = None
    causes: tuple[str, ...] = ()
    rogue: str = ""


@dataclass(frozen=True)
class Attempt:
    """One call of a handler: where in the trace it started, and where it ended, if it did."""

    started: int
    start: Entry
    ended: int | None = None
    end: Entry | None = None

    @property
    def succeeded(self) -> bool:
        return self.end is not None and self.end.kind is Kind.SUCCEEDED

    @property
    def interrupted(self) -> bool:
        """Whether what ended it was no ``Exception``: a cancellation, ``KeyboardInterrupt``, ``SystemExit``."""
        return self.end is not None and self.end.kind is Kind.FAILED and "Exception" not in self.end.exception


@dataclass(frozen=True)
class Reading:
    """A trace, sorted by what the laws ask."""

    trace: Trace

    @cached_property
    def types(self) -> dict[str, str]:
        """The type of each event that was dispatched."""
        return {entry.event: entry.event_type for entry in self.trace.of(Kind.DISPATCHED)}

    @cached_property
    def tokens(self) -> dict[str, str]:
        return {entry.event: entry.token for entry in self.trace.of(Kind.DISPATCHED)}

    @cached_property
    def accepted(self) -> dict[str, int]:
        """How often each event was accepted, in order."""
        counts: dict[str, int] = {}
        for entry in self.trace.of(Kind.ACCEPTED):
            counts[entry.event] = counts.get(entry.event, 0) + 1
        return counts

    @cached_property
    def deliveries(self) -> list[tuple[str, str]]:
        """Each accepted event with each handler that is subscribed to its type."""
        return [
            (event, handler) for event in self.accepted for handler in self.trace.handlers_of(self.types.get(event, ""))
        ]

    @cached_property
    def attempts(self) -> dict[tuple[str, str], list[Attempt]]:
        """The attempts of each delivery, in order."""
        found: dict[tuple[str, str], list[Attempt]] = {}
        for index, entry in enumerate(self.trace.entries):
            if entry.kind is Kind.STARTED:
                found.setdefault(entry.delivery, []).append(Attempt(index, entry))
            elif entry.kind in (Kind.SUCCEEDED, Kind.FAILED):
                several = found.get(entry.delivery, [])
                for place, attempt in enumerate(several):
                    if attempt.start.attempt == entry.attempt and attempt.end is None:
                        several[place] = Attempt(attempt.started, attempt.start, index, entry)
                        break
        return found

    @cached_property
    def reports(self) -> dict[tuple[str, str], list[Entry]]:
        found: dict[tuple[str, str], list[Entry]] = {}
        for entry in self.trace.of(Kind.REPORTED):
            found.setdefault(entry.delivery, []).append(entry)
        return found

    @cached_property
    def strays(self) -> list[Entry]:
        """Attempts of what nobody dispatched."""
        return [entry for entry in self.trace.of(Kind.STARTED) if entry.event not in self.types]

    @cached_property
    def calls(self) -> list[tuple[int, Entry, int | None, Entry | None]]:
        """Each call of ``dispatch``: where it began, and where and how it ended, if it did."""
        open_calls: dict[tuple[str, str], list[int]] = {}
        found: list[tuple[int, Entry, int | None, Entry | None]] = []
        for index, entry in enumerate(self.trace.entries):
            key = (entry.event, entry.caller)
            if entry.kind is Kind.DISPATCHED:
                open_calls.setdefault(key, []).append(len(found))
                found.append((index, entry, None, None))
            elif entry.kind in (Kind.ACCEPTED, Kind.REFUSED, Kind.RAISED) and open_calls.get(key):
                place = open_calls[key].pop(0)
                found[place] = (found[place][0], found[place][1], index, entry)
        return found

    @cached_property
    def returned(self) -> list[str]:
        """What ``aclose`` returned, all calls together."""
        return [event for entry in self.trace.of(Kind.CLOSED) for event in entry.events]

    def first(self, kind: Kind) -> int | None:
        """Where the first entry of this kind is."""
        return next((index for index, entry in enumerate(self.trace.entries) if entry.kind is kind), None)

    def called(self, event: str) -> str:
        """The event as the rendered trace calls it."""
        label = self.trace.labels.get(event, event)
        kind = self.types.get(event)
        return f"{kind} {label}" if kind else label

    def settled(self, delivery: tuple[str, str]) -> bool:
        """Whether it succeeded, was reported, or had as many attempts as are allowed."""
        attempts = self.attempts.get(delivery, [])
        if any(attempt.succeeded for attempt in attempts) or delivery in self.reports:
            return True
        allowed = 1 + (self.trace.guarantees.retries if self.trace.guarantees else 0)
        failed = [attempt for attempt in attempts if attempt.end is not None and not attempt.interrupted]
        return len(failed) >= allowed
