"""The dispatcher that loses nothing: an event is written where the data is, and delivered by another dispatcher."""

import asyncio
import logging
import threading
import time
from asyncio import _get_running_loop as _running_loop  # None where no loop runs, without an exception
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from eventpact.domain.dispatcher import (
    Delivery,
    DispatcherClosedError,
    DispatchError,
    DispatchUncertainError,
    EventDispatcher,
    FailureSink,
    Guarantees,
    Handlers,
    Ordering,
    RegistrationError,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.context import ContextCarrier, capture, check_carrier
from eventpact.infrastructure.dispatching.failures import FailureReporter, RetryPolicy, UnreadableSink
from eventpact.infrastructure.dispatching.registration import check_range, check_sink
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.dispatching.threads import reset_in_children
from eventpact.infrastructure.outbox.deliveries import Deliveries, DeliveriesElsewhere, DeliveriesHere
from eventpact.infrastructure.outbox.reader import EntryReader
from eventpact.infrastructure.outbox.relay import Relay
from eventpact.infrastructure.outbox.settlements import FailureJudge
from eventpact.infrastructure.outbox.store import OutboxStore

__all__ = ["OutboxEventDispatcher"]

_log = logging.getLogger("eventpact")

_GRACE_SECONDS: Final = 0.9
"""Time past the deadline in which outcomes may still be written to the database (law L1 allows 1)."""

_MIN_FINISH_SECONDS: Final = 0.1

_SHORTEST: Final = timedelta(milliseconds=1)
_LONGEST: Final = timedelta(days=365)


class OutboxEventDispatcher(EventDispatcher):
    """Writes each event to an outbox in the database, from which a relay dispatches it to an inner dispatcher.

    Accepted means written. In a transaction of the store's database (``Database.transaction``) it is written with
    the other changes there, or not at all; elsewhere in a transaction of its own. If a process ends, however it does,
    another relay makes the deliveries that it left unsettled, and no others.

    A delivery that fails is tried again later, unless it fails for good (``PermanentFailureError``). Attempts and waits
    are in the database, so they outlive a restart. An event with which processes crash again and again is reported as
    failed. An event or handler that this process does not know is left to the processes that do.

    A forked child gets a relay of its own when it first dispatches. So does a dispatcher that is built outside of the
    event loop that its inner dispatcher needs, when it first dispatches inside one; and when it first dispatches inside
    another, because the one before is closed or stands still. Events that were not settled by then are delivered there.

    Not promised: that a handler is called once when a process dies while it runs, or stands still longer than
    ``lease``. Dispatching an event again while it is in the outbox changes nothing.

    Args:
        handlers: event types, each with a handler or a sequence of handlers.
        inner: builds the dispatcher that delivers, from handlers and a failure sink, for each relay anew. If it retries
            by itself, its retries hold, and this dispatcher adds none. If it handles events on the event loop that it
            is built on, it says ``needs_loop = True``, as ``AsyncioEventDispatcher`` does.
        store: where events are written.
        on_failure: the failure sink; the log where it is not given. Not called on an event loop.
        on_unreadable: called with an entry that cannot be read, which then leaves the outbox. Where it is not given, or
            raises, the entry stays, and is read again after waits that grow.
        return_readable: called now and then, to move entries that ``on_unreadable`` stored back to the outbox, if they
            can be read by now (:func:`eventpact.infrastructure.persistence.replay.return_readable`).
        retries: how often a delivery that failed is tried again.
        backoff: seconds before the first retry at most, and three quarters of that at least; doubled for each further
            one.
        max_backoff: the longest wait, in seconds. With the defaults the retries cover more than an hour.
        lease: how long a process may be silent before its entries are taken over: several times as long as the database
            may take to answer, lest a busy process is taken for dead and its handlers are called twice.
        poll: seconds between two looks for entries that other processes left.
        resend: for an inner dispatcher that handles events in other processes, which then need an
            ``OutboxEventDispatcher`` on the same database, too: after how long an event that is not settled is
            dispatched again. The wait doubles. An engine that counts the messages that wait (``waiting()``) is sent no
            more than it may have lost.
        relay: whether to relay at all; a process that does not leaves it to those that do.
        context: carries the caller's context (a trace, a request id) to the handlers.

    Raises:
        RegistrationError: an argument is impossible (law A4).
    """

    def __init__(
        self,
        handlers: Handlers,
        inner: Callable[[Handlers, FailureSink], EventDispatcher],
        store: OutboxStore,
        *,
        on_failure: FailureSink | None = None,
        on_unreadable: UnreadableSink | None = None,
        return_readable: Callable[[], object] | None = None,
        retries: int = 20,
        backoff: float = 2.0,
        max_backoff: float = 600.0,
        lease: timedelta = timedelta(seconds=10),
        poll: float = 1.0,
        resend: timedelta | None = None,
        relay: bool = True,
        context: ContextCarrier | None = None,
    ) -> None:
        check_range("lease", lease, (timedelta,), _SHORTEST, _LONGEST)
        check_range("poll", poll, (int, float), _SHORTEST.total_seconds(), _LONGEST.total_seconds())
        if resend is not None:
            check_range("resend", resend, (timedelta,), _SHORTEST, _LONGEST)
        if not isinstance(store, OutboxStore):
            raise RegistrationError(f"store is a {type(store).__name__}; give an OutboxStore(database)")
        if isinstance(inner, type) or not callable(inner):
            raise RegistrationError(
                f"inner is {inner!r:.100}; give a function of handlers and a failure sink, such as"
                " lambda handlers, failures: SyncEventDispatcher(handlers, on_failure=failures)"
            )
        if on_unreadable is not None:
            check_sink(on_unreadable, "the sink of unreadable entries", "UnreadableMessage")
        self._table = SubscriptionTable(handlers)
        self._build = inner
        self._store = store
        self._reporter = FailureReporter(on_failure)
        self._reader = EntryReader(store, self._table, on_unreadable, lease)
        self._return_readable = return_readable
        self._policy = RetryPolicy(retries=retries, backoff=backoff, max_backoff=max_backoff)
        self._lease = lease
        self._poll = poll
        self._resend = resend
        self._relays = relay
        check_carrier(context)
        self._context = context
        self._closing = False
        self._lock = threading.Lock()
        self._inner, self._deliveries = self._open()
        self.guarantees: Guarantees = Guarantees(
            blocks_caller=False,
            retries=self._inner.guarantees.retries or retries,
            delivery=Delivery.AT_LEAST_ONCE,
            ordering=Ordering.NONE,
        )
        self._relay: Relay | None = None
        if relay and (self._home is not None or not self._needs_loop):
            self._relay = self._start_relay()
        reset_in_children(self)

    def dispatch(self, event: DomainEvent) -> None:
        """Write ``event`` to the outbox, within 2 seconds.

        A PostgreSQL server that falls silent in the middle of it is found out after 8 (law A5): a statement that
        waits for others may take 5, and it takes 2 to see that a new connection is not answered either.

        Raises:
            TypeError, DispatcherClosedError: as every dispatcher (laws A1, A3).
            WireError: the event cannot be made again from its own fields.
            DispatchUncertainError: the database did not say whether it is written. Dispatching it again does no harm.
            DispatchError: the database cannot be reached, or refused (law A5). A transaction that the caller is in is
                spoilt. Or an event of another type is in the outbox under the same ``event_id``. Or the inner
                dispatcher needs an event loop, and there was none yet, or it is closed.
        """
        route = self._table.route(event)
        if self._closing:
            raise DispatcherClosedError(f"{type(event).__name__} was refused: the dispatcher is closed")
        if not route:
            return
        database, relay = self._store.database, self._own_relay(event)
        relay_id = relay.room() if relay is not None else None
        written = False
        try:
            with database.transaction():
                entry = self._store.append(event, [each.key for each in route], relay_id, capture(self._context))
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
        """Refuse new events, deliver its own events until the deadline, and leave the rest to other relays.

        Nothing is undelivered: events that are not settled are in the database.
        """
        with self._lock:
            if self._closing:
                return ()
            self._closing = True
        deadline = time.monotonic() + timeout
        try:
            if self._relay is not None:
                await asyncio.to_thread(self._relay.drain, timeout)
                self._relay.stop()
            left = await self._inner.aclose(max(0.0, deadline - time.monotonic()))
            if left:
                _log.info("%d event(s) stay in the outbox, and are delivered by the next relay", len(left))
        finally:
            if self._relay is not None:
                self._relay.stop()
                self._relay.finish(0)  # so that it ends even if this is cancelled once more, before a thread is free
                finish_by = max(_MIN_FINISH_SECONDS, deadline + _GRACE_SECONDS - time.monotonic())
                await asyncio.to_thread(self._relay.finish, finish_by)
        return ()

    def _open(self) -> tuple[EventDispatcher, Deliveries]:
        deliveries: Deliveries
        if self._resend is None:
            deliveries = DeliveriesHere(self._store, self._table)
        else:
            deliveries = DeliveriesElsewhere(self._store, self._table, reporter=self._reporter, resend=self._resend)
        self._home = _running_loop()
        inner = self._build(self._table.around(deliveries.wrap), self._reporter.around(lambda _: deliveries.failed))
        policy = replace(self._policy, retries=0) if inner.guarantees.retries else self._policy
        deliveries.bind(inner, FailureJudge(self._store, policy))
        return inner, deliveries

    def _start_relay(self) -> Relay:
        return Relay(
            self._store,
            self._deliveries,
            self._reader,
            reporter=self._reporter,
            lease=self._lease,
            poll=self._poll,
            carrier=self._context,
            return_readable=self._return_readable,
        )

    def _own_relay(self, event: DomainEvent) -> Relay | None:
        """Return the relay of this process; start it in a forked child, or inside a loop that follows another."""
        running = _running_loop()
        if self._relays and self._must_start(running):
            with self._lock:
                if self._must_start(running) and not self._closing:
                    if running is None and self._needs_loop:
                        raise DispatchError(
                            f"{type(event).__name__} was refused: its handlers need an event loop, and there was none"
                            " yet, or it is closed; dispatch inside the loop that is to run them, or build the"
                            " dispatcher there"
                        )
                    self._start_anew()
        return self._relay

    @property
    def _needs_loop(self) -> bool:
        return getattr(self._inner, "needs_loop", False)

    def _must_start(self, running: asyncio.AbstractEventLoop | None) -> bool:
        if self._relay is None or not self._needs_loop or running is self._home:
            return self._relay is None
        return self._home is None or self._home.is_closed() or (running is not None and not self._home.is_running())

    def _start_anew(self) -> None:
        if self._relay is not None:  # nothing that it has not begun is to begin, should its loop run again
            self._relay.stop()
            self._deliveries.lose()
            self._relay.finish(0)
        if self._resend is None or self._needs_loop:  # its threads are the parent's, or its loop is not this one
            self._inner, self._deliveries = self._open()
        self._relay = self._start_relay()

    def reset_after_fork(self) -> None:
        """Have no relay, in a forked child, until it dispatches."""
        self._lock = threading.Lock()
        self._relay = None
