"""Parts of a trace that have a beginning and, perhaps, an end: attempts, and calls of the dispatcher."""

from __future__ import annotations

from dataclasses import dataclass

from eventpact_contracts.driver.trace import Entry, Kind

__all__ = ["Attempt", "Call", "Closing", "Span"]


@dataclass(slots=True)
class Span:
    """One call in the trace: where it began, and where and how it ended, if it did."""

    began: int
    start: Entry
    ended: int | None = None
    end: Entry | None = None


class Attempt(Span):
    """One call of a handler."""

    @property
    def succeeded(self) -> bool:
        return self.end is not None and self.end.kind is Kind.SUCCEEDED

    @property
    def failed(self) -> bool:
        """Return whether it ended with an ``Exception``."""
        return self.end is not None and self.end.kind is Kind.FAILED and not self.end.interruption

    @property
    def interrupted(self) -> bool:
        """Return whether it ended with something that is no ``Exception``."""
        return self.end is not None and self.end.kind is Kind.FAILED and self.end.interruption

    @property
    def final(self) -> bool:
        """Return whether it ended with a failure after which there must be no other attempt."""
        return self.failed and self.end is not None and "PermanentFailureError" in self.end.exception


class Closing(Span):
    """One call of ``aclose``."""


class Call(Span):
    """One call of ``dispatch``."""

    @property
    def event(self) -> str:
        return self.start.event

    @property
    def accepted(self) -> bool:
        return self.end is not None and self.end.kind is Kind.ACCEPTED

    @property
    def refused(self) -> bool:
        return self.end is not None and self.end.kind is Kind.REFUSED

    @property
    def raised(self) -> bool:
        """Return whether it raised something that is neither a ``DispatchError`` nor an interruption."""
        return self.end is not None and self.end.kind is Kind.RAISED and not self.end.interruption

    @property
    def in_doubt(self) -> bool:
        return self.refused and self.end is not None and "DispatchUncertainError" in self.end.exception

    @property
    def refused_as_closed(self) -> bool:
        return self.refused and self.end is not None and "DispatcherClosedError" in self.end.exception

    @property
    def outcome(self) -> str:
        """Return how it ended, in words."""
        if self.end is None:
            return "dispatch never returned"
        if self.accepted:
            return "dispatch accepted it"
        return f"dispatch raised {self.end.exception[0]}: {self.end.note}"
