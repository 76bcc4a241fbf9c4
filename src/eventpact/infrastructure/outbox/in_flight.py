"""The deliveries that this process is making."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from uuid import UUID

from eventpact.infrastructure.outbox.entries import Entry

__all__ = ["InFlight"]


@dataclass(slots=True)
class _Event:
    """The keys of an event's handlers: those not settled, and those of them not running."""

    unsettled: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)


class InFlight:
    """The deliveries that this process is to make. An event may be dispatched more often than a handler is called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[UUID, _Event] = {}

    def __len__(self) -> int:
        return len(self._events)

    def hold(self, entry: Entry) -> set[str]:
        """Add the deliveries of an entry, and return those that are new."""
        with self._lock:
            held = self._events.setdefault(entry.event_id, _Event())
            fresh = set(entry.pending) - held.unsettled
            held.unsettled |= fresh
            held.waiting |= fresh
            return fresh

    def begin(self, event_id: UUID, key: str) -> bool:
        """Tell whether a handler is to be called: its delivery is neither settled nor running. It is running then."""
        with self._lock:
            held = self._events.get(event_id)
            if held is None or key not in held.waiting:
                return False
            held.waiting.remove(key)
            return True

    def put_back(self, event_id: UUID, key: str) -> None:
        """Let a handler that failed be called again, by an inner dispatcher that retries."""
        with self._lock:
            held = self._events.get(event_id)
            if held is not None and key in held.unsettled:
                held.waiting.add(key)

    def release(self, event_id: UUID, keys: Collection[str]) -> bool:
        """Remove deliveries. Returns whether none of the event is left."""
        with self._lock:
            held = self._events.get(event_id)
            if held is None:
                return False
            held.unsettled.difference_update(keys)
            held.waiting.difference_update(keys)
            if held.unsettled:
                return False
            del self._events[event_id]
            return True

    def waiting(self) -> dict[UUID, set[str]]:
        """Return the deliveries that are not running."""
        with self._lock:
            return {event_id: set(held.waiting) for event_id, held in self._events.items()}
