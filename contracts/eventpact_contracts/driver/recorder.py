"""The record of a run: its entries, and the trace that they make."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from eventpact.domain.dispatcher import Guarantees
from eventpact_contracts.driver.conditions import Conditions
from eventpact_contracts.driver.trace import Entry, Kind, Trace

__all__ = ["Recorder", "id_of"]


def id_of(event: object) -> str:
    """The event's ID, or a label of an object that is no event."""
    return str(getattr(event, "event_id", f"not an event: {type(event).__name__}"))


class Recorder:
    """Records entries, on any thread.

    Attributes:
        clock: tells the time.
        entries: everything recorded so far.
        conditions: the state that the entries come to.
        over: whether the run is over, and nothing more is recorded.
    """

    def __init__(
        self,
        subscriptions: tuple[tuple[str, str], ...],
        guarantees: Guarantees,
        *,
        clock: Callable[[], float] = time.monotonic,
        **about: Any,
    ) -> None:
        self.clock = clock
        self.entries: list[Entry] = []
        self.conditions = Conditions(subscriptions)
        self.over = False
        self._about = {"subscriptions": subscriptions, "guarantees": guarantees, **about}

    def write(self, kind: Kind, **fields: Any) -> None:
        """Append an entry."""
        with self.conditions.lock:
            entry = Entry(kind=kind, time=self.clock(), **fields)
            if not self.over:
                self.entries.append(entry)
            self.conditions.observe(entry)

    def describe(self, **about: Any) -> None:
        """Say more about the run than its entries do."""
        self._about.update(about)

    def trace(self) -> Trace:
        """The trace so far."""
        with self.conditions.lock:
            return Trace(tuple(self.entries), **self._about)
