"""Deliveries between a relay and the inner dispatcher: the protocol, and deliveries by handlers in this process."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from eventpact.domain.dispatcher import EventDispatcher, FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Handle, Subscription, SubscriptionTable, recorded
from eventpact.infrastructure.outbox.entries import Entry, KnownHandlers
from eventpact.infrastructure.outbox.settlements import FailureJudge, NeverSettledError, Settlements
from eventpact.infrastructure.outbox.store import OutboxStore

MAX_CRASHES: Final = 5
"""How many processes may crash with an event before it is reported as failed."""


class Deliveries(ABC):
    """The bookkeeping of deliveries, between a relay and the inner dispatcher's handlers."""

    def __init__(self, store: OutboxStore, table: SubscriptionTable, known: KnownHandlers) -> None:
        self._store = store
        self._table = table
        self._known = known

    @abstractmethod
    def wrap(self, subscription: Subscription) -> Handle:
        """Return a ``handle`` that calls the subscription's if its delivery is to be made, and settles it."""

    @abstractmethod
    def failed(self, failed: FailedDelivery) -> None:
        """Receive failures: the inner dispatcher's failure sink."""

    def bind(self, inner: EventDispatcher, judge: FailureJudge) -> None:
        """Take the inner dispatcher, which was built with the handlers that :meth:`wrap` returned."""
        self._inner = inner
        self._judge = judge

    def start(self, settlements: Settlements) -> None:
        """Begin under a relay with these settlements."""
        self._settlements = settlements

    @abstractmethod
    def in_flight(self) -> int:
        """Count the events that take room in this process."""

    @abstractmethod
    def claim(self, relay_id: str, limit: int) -> list[Entry]:
        """Claim entries to be dispatched now."""

    @abstractmethod
    def deliver(self, entry: Entry, event: DomainEvent) -> None:
        """Dispatch an entry to the inner dispatcher, whose exceptions pass."""

    @abstractmethod
    def skip(self, entry: Entry) -> None:
        """Note that an entry was given back before it was dispatched: it cannot be read, or was refused."""

    @abstractmethod
    def lose(self) -> None:
        """Give up the deliveries that have not begun: other relays may have them."""

    def _key(self, failed: FailedDelivery) -> str:
        return next(each.key for each in self._table.route(failed.event) if each.handler is failed.handler)


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


_AT_ONCE_AFTER_CRASHES: Final = {1: 100, 2: 10}
"""Entries taken at once that crashed relays before; with more crashes one at a time, so that it is known which it is.

Each crash divides the suspects by ten, so that of a thousand events the one that kills its process is alone at its last
attempt, and the others, which were only near it, are delivered at nearly full speed.
"""


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
        """Make room for another suspect: this one has done no harm here."""
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
