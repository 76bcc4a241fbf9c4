"""Which deliveries a relay is making: an event may be taken, and dispatched, more often than a handler is called."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from uuid import UUID

from eventpact.infrastructure.outbox.store import Entry

__all__ = ["Held"]


@dataclass(slots=True)
class _Deliveries:
    """Of one event, by the keys of their handlers: those not settled, and those of them not under way."""

    unsettled: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)


class Held:
    """The events of which this process is to make deliveries. Every method is called under the relay's lock."""

    def __init__(self) -> None:
        self._events: dict[UUID, _Deliveries] = {}

    def __len__(self) -> int:
        return len(self._events)

    def hold(self, entry: Entry) -> set[str]:
        """Make these deliveries; those that were not held before are returned."""
        held = self._events.setdefault(entry.event_id, _Deliveries())
        fresh = set(entry.pending) - held.unsettled
        held.unsettled |= fresh
        held.waiting |= fresh
        return fresh

    def begin(self, event_id: UUID, key: str) -> bool:
        """Whether a handler is to be called: its delivery is not settled, and not under way."""
        held = self._events.get(event_id)
        if held is None or key not in held.waiting:
            return False
        held.waiting.remove(key)
        return True

    def put_back(self, event_id: UUID, key: str) -> None:
        """The handler did not succeed; it may be called again."""
        held = self._events.get(event_id)
        if held is not None and key in held.unsettled:
            held.waiting.add(key)

    def release(self, event_id: UUID, keys: Collection[str]) -> bool:
        """Make these deliveries no more. Returns whether the event is held no longer."""
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
        """The deliveries that are not under way."""
        return {event_id: set(held.waiting) for event_id, held in self._events.items()}
