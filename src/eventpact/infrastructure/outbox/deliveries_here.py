"""Deliveries by an engine that runs handlers in this process."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final
from uuid import UUID

from eventpact.domain.dispatcher import FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Handle, Subscription, SubscriptionTable
from eventpact.infrastructure.outbox.deliveries import MAX_CRASHES, Deliveries, recorded
from eventpact.infrastructure.outbox.entries import Entry, KnownHandlers
from eventpact.infrastructure.outbox.in_flight import InFlight
from eventpact.infrastructure.outbox.settlements import NeverSettledError
from eventpact.infrastructure.outbox.store import OutboxStore

__all__ = ["DeliveriesHere"]

_AT_ONCE_AFTER_CRASHES: Final = {1: 100, 2: 10}
"""Entries taken at once that crashed relays before; with more crashes one at a time, so that it is known which it is.

Each crash divides the suspects by ten, so that of a thousand events the one that kills its process is alone at its last
attempt, and the others, which were only near it, are delivered at nearly full speed."""


class DeliveriesHere(Deliveries):
    """Deliveries by handlers in this process, which knows which are in flight, and settles in batches.

    Args:
        on_room: called when there is room for further events.
    """

    def __init__(
        self, store: OutboxStore, table: SubscriptionTable, known: KnownHandlers, on_room: Callable[[], None]
    ) -> None:
        super().__init__(store, table, known)
        self._on_room = on_room
        self._in_flight = InFlight()
        # Events with which relays have crashed, and how many relays.
        self._suspects: set[UUID] = set()
        self._suspects_crashes = 0

    def wrap(self, subscription: Subscription) -> Handle:
        """Count a delivery as in flight while its handler runs."""
        key = subscription.key
        return recorded(
            subscription,
            begin=lambda event: self._in_flight.begin(event.event_id, key),
            succeeded=lambda event: self._succeeded(event, key),
            failed=lambda event: self._in_flight.put_back(event.event_id, key),
            blocks=False,
        )

    def failed(self, failed: FailedDelivery) -> None:
        """Leave the failure to the settlements, which try again or report it."""
        key = self._key(failed)
        self._release(failed.event.event_id, {key})  # first, lest its retry finds it in flight still
        self._settlements.failed(failed, key)

    def in_flight(self) -> int:
        """Count the events of which a delivery is not settled."""
        return len(self._in_flight)

    def claim(self, relay_id: str, limit: int) -> list[Entry]:
        """Claim entries with which no relay has crashed and, a batch at a time, those with which one has."""
        entries = self._store.claim(relay_id, limit, self._known, crashes=0)
        crashes = self._suspects_crashes if self._suspects else self._store.fewest_crashes(self._known)
        if crashes is None:
            return entries
        room = _AT_ONCE_AFTER_CRASHES.get(crashes, 1) - len(self._suspects)
        if room > 0:
            suspects = self._store.claim(relay_id, room, self._known, crashes=crashes)
            self._suspects_crashes = crashes
            self._suspects |= {entry.event_id for entry in suspects}
            entries += suspects
        return entries

    def deliver(self, entry: Entry, event: DomainEvent) -> None:
        """Dispatch an event whose deliveries count as in flight from now on."""
        fresh = self._in_flight.hold(entry)
        if not fresh:
            return  # another entry of the event is in flight, for the same handlers
        if entry.crashes >= MAX_CRASHES:
            for subscription in self._table.route(event):
                if subscription.key in fresh:
                    error = NeverSettledError(entry.crashes)
                    self.failed(FailedDelivery(event, subscription.handler, error, entry.crashes))
            return
        try:
            self._inner.dispatch(event)
        except Exception:
            self._in_flight.release(entry.event_id, fresh)
            raise

    def skip(self, entry: Entry) -> None:
        """Make room for another suspect: it was not this one."""
        if entry.event_id in self._suspects:
            self._suspects.discard(entry.event_id)
            self._on_room()

    def lose(self) -> None:
        """Give up the deliveries that wait. Those that are running go on, and are settled as before."""
        for event_id, keys in self._in_flight.waiting().items():
            self._release(event_id, keys)
        self._suspects = set()

    def _succeeded(self, event: DomainEvent, key: str) -> None:
        self._release(event.event_id, {key})
        self._settlements.succeeded(event.event_id, key)

    def _release(self, event_id: UUID, keys: Collection[str]) -> None:
        if self._in_flight.release(event_id, keys):
            self._suspects.discard(event_id)
            self._on_room()
