"""Deliveries between a relay and the inner dispatcher: by handlers in this process, or in others."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Final, Protocol, runtime_checkable
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from eventpact.domain.dispatcher import DispatchError, EventDispatcher, FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import FailureReporter
from eventpact.infrastructure.dispatching.subscriptions import Handle, Subscription, SubscriptionTable, recorded
from eventpact.infrastructure.monitoring.logs import log_about
from eventpact.infrastructure.outbox.entries import Entry
from eventpact.infrastructure.outbox.settlements import FailureJudge, NeverSettledError, Settlements
from eventpact.infrastructure.outbox.store import OutboxStore, for_handlers
from eventpact.infrastructure.persistence.database import kind_of

MAX_CRASHES: Final = 5
"""So many processes may crash with an event before it is reported as failed."""


class Deliveries(ABC):
    """The bookkeeping of deliveries, between a relay and the inner dispatcher's handlers."""

    def __init__(self, store: OutboxStore, table: SubscriptionTable) -> None:
        self._store = store
        self._table = table
        routes = {name: table[event_type] for name, event_type in table.wire_names.items()}
        self.known = for_handlers(
            {name: [key for each in route for key in (each.key, *each.former_keys)] for name, route in routes.items()}
        )

    @abstractmethod
    def wrap(self, subscription: Subscription) -> Handle:
        """Return a ``handle`` that calls the subscription's if its delivery is to be made, and settles it."""

    @abstractmethod
    def failed(self, failed: FailedDelivery) -> None:
        """Receive failures: the inner dispatcher's failure sink."""

    def bind(self, inner: EventDispatcher, judge: FailureJudge) -> None:
        """Take the inner dispatcher, which was built with the handlers that :meth:`wrap` returned."""
        self._inner = inner
        self.judge = judge

    def start(self, settlements: Settlements, on_room: Callable[..., None]) -> None:
        """Begin under a relay with these settlements; ``on_room(of_suspect=)`` tells it that there is more room."""
        self._settlements = settlements
        self._on_room = on_room

    def in_flight(self) -> int:
        """Count the events that take room in this process; none where they wait in an engine."""
        return 0

    @abstractmethod
    def claim(self, relay_id: str, limit: int, *, suspects: bool) -> list[Entry]:
        """Claim entries to be dispatched now; ``suspects`` tells whether there are some with which relays crashed."""

    @abstractmethod
    def deliver(self, entry: Entry, event: DomainEvent) -> None:
        """Dispatch an entry to the inner dispatcher, whose exceptions pass."""

    def skip(self, entry: Entry) -> None:  # noqa: B027 - not every kind of delivery counts them
        """Note that an entry was given back before it was dispatched: it cannot be read, or was refused."""

    def lose(self) -> None:  # noqa: B027 - messages that were sent stay in their engine
        """Give up the deliveries that have not begun: other relays may have them."""


class InFlight:
    """The deliveries that this process is to make. An event may be dispatched more often than a handler is called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The keys of an event's handlers that have not settled it, each with whether it is running.
        self._events: dict[UUID, dict[str, bool]] = {}

    def __len__(self) -> int:
        return len(self._events)

    def hold(self, entry: Entry) -> set[str]:
        """Add the deliveries of an entry, and return those that are new."""
        with self._lock:
            held = self._events.setdefault(entry.event_id, {})
            fresh = set(entry.pending) - held.keys()
            held |= dict.fromkeys(fresh, False)
            return fresh

    def begin(self, event_id: UUID, key: str) -> bool:
        """Tell whether a handler is to be called: its delivery is neither settled nor running. It is running then."""
        with self._lock:
            held = self._events.get(event_id, {})
            if held.get(key, True):
                return False
            held[key] = True
            return True

    def put_back(self, event_id: UUID, key: str) -> None:
        """Let a handler that failed be called again."""
        with self._lock:
            held = self._events.get(event_id, {})
            if key in held:
                held[key] = False

    def release(self, event_id: UUID, keys: Collection[str]) -> bool:
        """Remove deliveries. Returns whether none of the event is left."""
        with self._lock:
            held = self._events.get(event_id)
            if held is None:
                return False
            for key in keys:
                held.pop(key, None)
            if held:
                return False
            del self._events[event_id]
            return True

    def waiting(self) -> dict[UUID, set[str]]:
        """Return the deliveries that are not running."""
        with self._lock:
            return {
                event_id: {key for key, runs in held.items() if not runs} for event_id, held in self._events.items()
            }


_AT_ONCE_AFTER_CRASHES: Final = {1: 100, 2: 10}
"""Entries taken at once that crashed relays before; with more crashes one at a time, so that it is known which it is.

Each crash divides the suspects by ten, so that of a thousand events the one that kills its process is alone at its last
attempt, and the others, which were only near it, are delivered at nearly full speed.
"""


class DeliveriesHere(Deliveries):
    """Deliveries by handlers in this process, which knows which are in flight, and settles in batches."""

    def __init__(self, store: OutboxStore, table: SubscriptionTable) -> None:
        super().__init__(store, table)
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
            failed=lambda event: self._let_retry(event, key),
        )

    def failed(self, failed: FailedDelivery) -> None:
        """Leave the failure to the settlements, which try again or report it."""
        key = self._table.key_of(failed.event, failed.handler)
        assert key is not None
        self._release(failed.event.event_id, {key})  # first, lest its retry finds it in flight still
        self._settlements.failed(failed, key)

    def in_flight(self) -> int:
        """Count the events of which a delivery is not settled."""
        return len(self._in_flight)

    def claim(self, relay_id: str, limit: int, *, suspects: bool) -> list[Entry]:
        """Claim entries with which no relay has crashed and, a batch at a time, those with which one has."""
        entries = self._store.claim(relay_id, limit, self.known, crashes=0)
        if not (suspects or self._suspects):
            return entries
        crashes = self._suspects_crashes if self._suspects else self._store.fewest_crashes(self.known)
        if crashes is None:
            return entries
        room = _AT_ONCE_AFTER_CRASHES.get(crashes, 1) - len(self._suspects)
        if room > 0:
            more = self._store.claim(relay_id, room, self.known, crashes=crashes)
            self._suspects_crashes = crashes
            self._suspects |= {entry.event_id for entry in more}
            entries += more
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
            self._on_room(of_suspect=True)

    def lose(self) -> None:
        """Give up the deliveries that wait. Those that are running go on, and are settled as before."""
        for event_id, keys in self._in_flight.waiting().items():
            self._release(event_id, keys)
        self._suspects.clear()

    def _let_retry(self, event: DomainEvent, key: str) -> None:
        """Let an inner dispatcher that retries call a handler again. With any other, that call is a neighbour's."""
        if self._inner.guarantees.retries:
            self._in_flight.put_back(event.event_id, key)

    def _succeeded(self, event: DomainEvent, key: str) -> None:
        self._release(event.event_id, {key})
        self._settlements.succeeded(event.event_id, key)

    def _release(self, event_id: UUID, keys: Collection[str]) -> None:
        if self._in_flight.release(event_id, keys):
            was_suspect = event_id in self._suspects
            self._suspects.discard(event_id)
            self._on_room(of_suspect=was_suspect)


_MAX_RESEND_FACTOR: Final = 64
"""The longest wait for a resend is this many times the first. At a minute, that is an hour."""

_UNBOUNDED: Final = 2**31


@runtime_checkable
class CountsWaiting(Protocol):
    """An engine that says how many messages it has that no process has taken yet."""

    def waiting(self) -> int:
        """Count them; raise :class:`DispatchError` where the engine does not answer."""


class DeliveriesElsewhere(Deliveries):
    """Deliveries by handlers in other processes, which have an outbox dispatcher on the same database, too.

    Only the database knows which deliveries are settled. An entry that was sent and is not settled is sent again, after
    waits that double. Where the engine says how many messages it has waiting, no more are sent again than may be lost.

    Args:
        resend: after how long an entry is sent again for the first time.
    """

    def __init__(
        self, store: OutboxStore, table: SubscriptionTable, *, reporter: FailureReporter, resend: timedelta
    ) -> None:
        super().__init__(store, table)
        self._reporter = reporter
        self._resend = resend
        self._probe_seconds = _MAX_RESEND_FACTOR * resend.total_seconds()
        self._probe_at = time.monotonic() + self._probe_seconds

    def wrap(self, subscription: Subscription) -> Handle:
        """Ask the database before each call, and tell it after."""
        return recorded(
            subscription,
            begin=lambda event: self._begin(event, subscription),
            succeeded=lambda event: self._settle(event, subscription.key),
            blocks=True,
        )

    def failed(self, failed: FailedDelivery) -> None:
        """Let the delivery be tried again later, or report it. If the sink raises, it is made and reported again."""
        key = self._table.key_of(failed.event, failed.handler)
        assert key is not None
        try:
            final, entries, _ = self.judge.judge(failed, key)
        except SQLAlchemyError as error:
            self._say_unwritten(failed.event, key, error)
            return
        if final is not None and self._reporter.report(final):
            self._settle(failed.event, key, entries)

    def claim(self, relay_id: str, limit: int, *, suspects: bool) -> list[Entry]:  # noqa: ARG002 - counted elsewhere
        """Claim new entries, retries that are due and, of the entries that were sent before, as many as may be lost."""
        entries = self._store.claim(relay_id, limit, self.known)
        again = [entry for entry in entries if entry.sends and not entry.retry]
        if not again:
            return entries
        kept = {entry.entry_id for entry in again[self._lost() :]}
        if kept:
            self._store.postpone(kept, self._resend)
        return [entry for entry in entries if entry.entry_id not in kept]

    def deliver(self, entry: Entry, event: DomainEvent) -> None:
        """Dispatch an event, and record that it was sent."""
        self._inner.dispatch(event)
        # Without a count of the messages that wait, resending often would fill an engine that nobody consumes.
        growth = 2 if isinstance(self._inner, CountsWaiting) else _MAX_RESEND_FACTOR
        factor = growth ** min(entry.sends, 6)
        self._settlements.sent(entry.entry_id, self._resend * min(factor, _MAX_RESEND_FACTOR))

    def _lost(self) -> int:
        """Count the entries that were sent and are neither settled nor waiting in the engine."""
        if not isinstance(self._inner, CountsWaiting):
            return _UNBOUNDED
        try:
            lost = max(0, self._store.sent() - self._inner.waiting())
        except DispatchError:
            lost = 0  # the engine is unreachable, and takes no messages either
        if not lost and time.monotonic() >= self._probe_at:
            # Other messages may wait in the same queue, and hide that one of ours is lost.
            self._probe_at = time.monotonic() + self._probe_seconds
            return 1
        return lost

    def _begin(self, event: DomainEvent, subscription: Subscription) -> bool:
        tries = self._store.begin(event.event_id, subscription.key)
        if not tries:
            self._say_if_foreign(event, subscription.key)
        if tries <= MAX_CRASHES + (self._inner.guarantees.retries + 1) * len(self._table.route(event)):
            return tries > 0
        self.failed(FailedDelivery(event, subscription.handler, NeverSettledError(tries), tries))
        return False

    def _say_if_foreign(self, event: DomainEvent, key: str) -> None:
        """Report an entry that is for other handlers than ours: it is not settled, and would be sent for ever."""
        wanted = self._store.pending_keys(event.event_id)
        if wanted and not wanted & {subscription.key for subscription in self._table.route(event)}:
            text = (
                "{event} is for the handlers %s in the outbox, and this process has %s; it is not handled. Do both"
                " processes define their handlers in the same module?"
            )
            log_about(event, logging.ERROR, text, ", ".join(sorted(wanted)), key, handler=key)

    def _settle(self, event: DomainEvent, key: str, entries: Collection[UUID] | None = None) -> None:
        """Settle a delivery: of every entry of the event or, where some are given, of these."""
        try:
            if entries is None:
                self._store.settle([(event.event_id, key)])
            else:
                self._store.settle_entries([(entry_id, key) for entry_id in entries])
        except SQLAlchemyError as error:
            self._say_unwritten(event, key, error)

    def _say_unwritten(self, event: DomainEvent, key: str, error: Exception) -> None:
        text = "{event} was handled by %s, and the outbox cannot be written (%s): it will be delivered again"
        log_about(event, logging.ERROR, text, key, kind_of(error), handler=key)
