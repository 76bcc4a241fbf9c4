"""Deliveries by an engine that runs handlers in other processes."""

import logging
import time
from collections.abc import Collection
from datetime import timedelta
from typing import Final, Protocol, runtime_checkable
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from eventpact.domain.dispatcher import DispatchError, FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import FailureReporter
from eventpact.infrastructure.dispatching.subscriptions import Handle, Subscription, SubscriptionTable, recorded
from eventpact.infrastructure.monitoring.logs import log_about
from eventpact.infrastructure.outbox.deliveries import MAX_CRASHES, Deliveries
from eventpact.infrastructure.outbox.entries import Entry, KnownHandlers
from eventpact.infrastructure.outbox.settlements import NeverSettledError
from eventpact.infrastructure.outbox.store import OutboxStore

_MAX_RESEND_FACTOR: Final = 64
"""The longest wait for a resend is this many times the first. At a minute, that is an hour."""

_UNBOUNDED: Final = 2**31


@runtime_checkable
class CountsWaiting(Protocol):
    """An engine that says how many messages it has that no process has taken yet."""

    def waiting(self) -> int:
        """Count them.

        Raises:
            DispatchError: the engine did not answer.
        """


class DeliveriesElsewhere(Deliveries):
    """Deliveries by handlers in other processes, which have an outbox dispatcher on the same database, too.

    Only the database knows which deliveries are settled. An entry that was sent and is not settled is sent again, after
    waits that double. Where the engine says how many messages it has waiting, no more are sent again than may be lost.

    Args:
        resend: after how long an entry is sent again for the first time.
    """

    def __init__(
        self,
        store: OutboxStore,
        table: SubscriptionTable,
        known: KnownHandlers,
        *,
        reporter: FailureReporter,
        resend: timedelta,
    ) -> None:
        super().__init__(store, table, known)
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
        key = self._key(failed)
        try:
            final, entries, _ = self._judge.judge(failed, key)
        except SQLAlchemyError as error:
            self._say_unwritten(failed.event, key, error)
            return
        if final is not None and self._reporter.report(final):
            self._settle(failed.event, key, entries)

    def in_flight(self) -> int:
        """Count nothing: events wait in the engine."""
        return 0

    def claim(self, relay_id: str, limit: int) -> list[Entry]:
        """Claim new entries, retries that are due and, of the entries that were sent before, as many as may be lost."""
        entries = self._store.claim(relay_id, limit, self._known)
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

    def skip(self, entry: Entry) -> None:
        """Do nothing."""

    def lose(self) -> None:
        """Do nothing: messages that were sent are in the engine."""

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
        log_about(event, logging.ERROR, text, key, type(error).__name__, handler=key)
