"""The dispatcher that loses nothing: an event is written where the data is, and delivered by another dispatcher."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from eventpact.domain.dispatcher import (
    Delivery,
    DispatcherClosedError,
    DispatchError,
    DispatchUncertainError,
    EventDispatcher,
    FailedDelivery,
    FailureSink,
    Guarantees,
    Handlers,
    Ordering,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import FailureReporter
from eventpact.infrastructure.dispatching.subscriptions import Subscription, SubscriptionTable
from eventpact.infrastructure.dispatching.unreadable import UnreadableSink
from eventpact.infrastructure.monitoring.logs import about
from eventpact.infrastructure.outbox.relay import Relay
from eventpact.infrastructure.outbox.settlements import DEATHS, NeverSettledError
from eventpact.infrastructure.outbox.store import OutboxStore

__all__ = ["OutboxEventDispatcher"]

_log = logging.getLogger("eventpact")

_GRACE: Final = 0.9
"""Seconds past the deadline in which the database may still be told what was settled (law L1 allows 1)."""

_LAST: Final = 0.1


class OutboxEventDispatcher(EventDispatcher):
    """Writes each event to an outbox in the database, from which a relay dispatches it to an inner dispatcher.

    Accepted means written. In a transaction of the store's database (``Database.transaction``) it is written with
    whatever else that does, or not at all; elsewhere in a transaction of its own. What a process leaves unsettled when
    it ends, in whatever way, another relay delivers; only handlers that had not settled the event are called again.

    An event with which processes die again and again is kept as failed.

    Not promised: that a handler is called once when a process dies while it runs, or stands still longer than
    ``lease``. Dispatching an event again while it is in the outbox changes nothing.

    Args:
        handlers: event types, each with a handler or a sequence of handlers.
        inner: builds the dispatcher that delivers, from handlers and a failure sink.
        store: where events are written.
        on_failure: the failure sink; the log where it is not given. Not called on an event loop.
        on_unreadable: called with what is in the outbox and cannot be read; it is logged in any case.
        lease: how long a process may be silent before what it left is taken over: several times what the database may
            take to answer, lest a busy process is taken for dead and its handlers are called twice.
        poll: seconds between two looks for what other processes left.
        resend: for an inner dispatcher that handles events in other processes, which then need an
            ``OutboxEventDispatcher`` on the same database, too: after how long what is not settled is dispatched again.
        relay: whether to relay at all; a process that does not leaves it to those that do.

    Raises:
        RegistrationError: ``handlers`` is impossible (law A4).
    """

    def __init__(
        self,
        handlers: Handlers,
        inner: Callable[[Handlers, FailureSink], EventDispatcher],
        store: OutboxStore,
        *,
        on_failure: FailureSink | None = None,
        on_unreadable: UnreadableSink | None = None,
        lease: timedelta = timedelta(seconds=10),
        poll: float = 1.0,
        resend: timedelta | None = None,
        relay: bool = True,
    ) -> None:
        self._table = SubscriptionTable(handlers)
        self._keys = {
            event_type: [subscription.key for subscription in route] for event_type, route in self._table.items()
        }
        self._store = store
        self._failures = FailureReporter(on_failure)
        self._in_process = resend is None
        self._closing = False
        self._relay: Relay | None = None
        self._inner = inner(
            {event_type: [self._recorded(each) for each in route] for event_type, route in self._table.items()},
            self._failed,
        )
        # The retries are those of the inner dispatcher; the rest does not depend on it.
        self.guarantees = Guarantees(
            blocks_caller=False,
            retries=self._inner.guarantees.retries,
            delivery=Delivery.AT_LEAST_ONCE,
            ordering=Ordering.NONE,
        )
        if relay:
            self._relay = Relay(
                store,
                self._inner.dispatch,
                self._table,
                on_failure=self._failures,
                on_unreadable=on_unreadable,
                lease=lease,
                poll=poll,
                resend=resend,
            )

    def dispatch(self, event: DomainEvent) -> None:
        """Write ``event`` to the outbox, within 2 seconds.

        A PostgreSQL server that falls silent in the middle of it is found out after 8 (law A5): a statement that
        waits for others may take 5, and it takes 2 to see that a new connection is not answered either.

        Raises:
            TypeError: ``event`` is not a :class:`DomainEvent` (law A1).
            DispatcherClosedError: closing has begun (law A3).
            DispatchUncertainError: the database did not say whether it is written. Dispatching it again does no harm.
            DispatchError: the database cannot be reached, or refused (law A5). A transaction that the caller is in is
                spoilt. Or an event of another type is in the outbox under the same ``event_id``.
        """
        route = self._table.route(event)
        if self._closing:
            raise DispatcherClosedError(f"{type(event).__name__} was refused: the dispatcher is closed")
        if not route:
            return
        database, relay = self._store.database, self._relay
        relay_id = relay.room() if relay is not None else None
        written = False
        try:
            with database.transaction():
                entry = self._store.append(event, self._keys[type(event)], relay_id)
                written = True
                if entry is not None and relay is not None:
                    database.after_commit(lambda: relay.offer(entry, event, relay_id))
        except SQLAlchemyError as error:
            kind, refused = (DispatchUncertainError, "perhaps refused") if written else (DispatchError, "refused")
            raise kind(
                f"{type(event).__name__} was {refused}: the database of the outbox answered with"
                f" {type(error).__name__}; is it up, and migrated?"
            ) from error

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        """Refuse new events, close the inner dispatcher, and leave the rest to the next relay.

        Nothing is undelivered: what is not settled is in the database.
        """
        if self._closing:
            return ()
        self._closing = True
        deadline = time.monotonic() + timeout
        if self._relay is not None:
            self._relay.stop()
        try:
            left = await self._inner.aclose(timeout)
            if left:
                _log.info("%d event(s) stay in the outbox, and are delivered by the next relay", len(left))
        finally:
            if self._relay is not None:
                self._relay.finish(0)  # so that it ends even if this is cancelled once more, before a thread is free
                await asyncio.to_thread(self._relay.finish, max(_LAST, deadline + _GRACE - time.monotonic()))
        return ()

    def _recorded(self, subscription: Subscription) -> _Recorded:
        return (_RecordedAsync if subscription.is_async else _Recorded)(subscription, self)

    def _local(self) -> Relay | None:
        return self._relay if self._in_process else None

    def _failed(self, failed: FailedDelivery) -> None:
        """The inner dispatcher's failure sink."""
        recorded: Any = failed.handler
        original = FailedDelivery(failed.event, recorded.__wrapped__, failed.exception, failed.attempts)
        relay = self._local()
        if relay is not None:
            relay.failed(original, recorded.key)
            return
        self._tell(original, recorded.key)

    def _begin(self, event: DomainEvent, key: str) -> bool:
        """Whether to call a handler, in a process that does not know what is settled."""
        tries = self._store.begin(event.event_id, key)
        if tries <= DEATHS + (self._inner.guarantees.retries + 1) * len(self._keys[type(event)]):
            return tries > 0
        for subscription in self._table.route(event):
            if subscription.key == key:
                self._tell(FailedDelivery(event, subscription.handler, NeverSettledError(tries), tries), key)
        return False

    def _tell(self, failed: FailedDelivery, key: str) -> None:
        """Tell the failure sink, in a process that does not know what is settled.

        What the sink did not take is nowhere else: it stays, is delivered again, and is told again if it fails.
        """
        entries: list[UUID] = []

        def sink(failed: FailedDelivery) -> None:
            entries.extend(self._store.pending(failed.event.event_id, key))
            self._failures(failed)

        if self._failures.around(lambda _: sink).report(failed):
            self._settle(failed.event, key, entries)

    def _settle(self, event: DomainEvent, key: str, entries: Sequence[UUID] | None = None) -> None:
        """Settle a delivery: of every entry of the event or, where some are given, of these."""
        try:
            if entries is None:
                self._store.settle([(event.event_id, key)])
            else:
                self._store.settle_entries([(entry_id, key) for entry_id in entries])
        except SQLAlchemyError as error:
            _log.error(
                "%s %s is settled by %s, and the outbox cannot be told (%s): it will be delivered again",
                type(event).__name__,
                event.event_id,
                key,
                type(error).__name__,
                extra=about(type(event).__name__, event.event_id, key),
            )


class _Recorded:
    """A plain handler whose deliveries are made once, and settled in the outbox when they succeed."""

    def __init__(self, subscription: Subscription, outbox: OutboxEventDispatcher) -> None:
        self.__wrapped__ = subscription.handler
        self.key = subscription.key
        self._handle = subscription.handle
        self._outbox = outbox

    def handle(self, event: DomainEvent) -> Awaitable[None] | None:
        relay = self._outbox._local()
        if not (relay.begin(event.event_id, self.key) if relay else self._outbox._begin(event, self.key)):
            return None
        try:
            result = self._handle(event)
        except BaseException:
            self._not_now(event)
            raise
        if inspect.isawaitable(result):
            return self._finish(event, result)
        self._done(event)
        return None

    async def _finish(self, event: DomainEvent, result: Awaitable[None]) -> None:
        try:
            await result
        except BaseException:
            self._not_now(event)
            raise
        if self._outbox._local():
            self._done(event)
        else:
            await asyncio.to_thread(self._done, event)

    def _not_now(self, event: DomainEvent) -> None:
        if relay := self._outbox._local():
            relay.put_back(event.event_id, self.key)

    def _done(self, event: DomainEvent) -> None:
        if relay := self._outbox._local():
            relay.succeeded(event.event_id, self.key)
        else:
            self._outbox._settle(event, self.key)


class _RecordedAsync(_Recorded):
    """The same for an ``async def``: the database, which blocks, is asked in a thread."""

    async def handle(self, event: DomainEvent) -> None:
        relay = self._outbox._local()
        if relay:
            begun = relay.begin(event.event_id, self.key)
        else:
            begun = await asyncio.to_thread(self._outbox._begin, event, self.key)
        if begun:
            awaitable: Any = self._handle(event)
            await self._finish(event, awaitable)
