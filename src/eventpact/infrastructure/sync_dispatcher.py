"""The blocking dispatcher: handlers run in the caller's thread, before ``dispatch`` returns."""

import asyncio
from contextvars import copy_context

from eventpact.domain.dispatcher import (
    Delivery,
    DispatcherClosedError,
    DispatchError,
    EventDispatcher,
    FailedDelivery,
    FailureSink,
    Guarantees,
    Handlers,
    Ordering,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.cascades import SETTLED, Cascade, Cascades, cascade_of_task
from eventpact.infrastructure.dispatching.failures import FailureReporter, is_a, log_given_up, undelivered
from eventpact.infrastructure.dispatching.subscriptions import Subscription, SubscriptionTable, must_await
from eventpact.infrastructure.dispatching.threads import GRACE_SECONDS, LoopThread, Settling

__all__ = ["SyncEventDispatcher"]


class SyncEventDispatcher(EventDispatcher):
    """Calls each handler in turn, in the thread that dispatches; when ``dispatch`` returns, everything is settled.

    An event that a handler dispatches is queued behind the one being handled (breadth first). An ``async def`` handler
    is awaited on one loop in a background thread while the caller waits, so a caller on an event loop blocks that loop.
    ``KeyboardInterrupt`` and ``SystemExit`` of a handler are reported as its failure, and raised again once the other
    handlers have run (law I5). Nothing survives a crash.

    Args:
        handlers: event types, each with a handler, or a list or tuple of handlers.
        on_failure: the failure sink; the log where it is not given. Called in the thread that dispatched.

    Raises:
        RegistrationError: ``handlers`` or ``on_failure`` is impossible (law A4).
    """

    guarantees: Guarantees = Guarantees(
        blocks_caller=True, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO
    )

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        self._table = SubscriptionTable(handlers)
        self._failures = FailureReporter(on_failure)
        self._routes = dict(self._table)  # emptied when closing begins, so that an open dispatcher need not ask
        self._cascades = Cascades()
        self._mine = self._cascades.mine
        self._loop = LoopThread(on_start=self._cascades.exempt_this_thread)
        self._closing: Settling | None = None
        self._given_up = self._abandoned = False
        self._undelivered: list[DomainEvent] = []

    def dispatch(self, event: DomainEvent) -> None:
        """Deliver ``event`` to each of its handlers, and whatever they dispatch to theirs.

        Raises:
            TypeError, DispatcherClosedError: as every dispatcher (laws A1, A3).
            DispatchError: called on the thread of the async handlers, by a task that outlived its handler.
            KeyboardInterrupt, SystemExit: a handler raised it (law I5).
        """
        cascade = self._mine.cascade
        if cascade is None or cascade.event is not None:
            self._enqueue(cascade, event)
            return
        cascade.event = event  # before the route is looked up, so that closing sees it or it sees closing
        try:
            try:
                route = self._routes[type(event)]
            except KeyError:
                self._refuse(event)
                return
            for subscription in route:  # as _deliver does, without the time that a call takes
                try:
                    result = subscription.handle(event)
                    if result is not None:
                        self._await(cascade, result)
                except BaseException as exception:  # noqa: BLE001 - reported, and raised again if it interrupts
                    self._failed(cascade, event, subscription, exception)
                if self._given_up and self._leave_rest(event, subscription):
                    break
            if cascade.more:
                self._drain(cascade)
        finally:
            cascade.event = None
            if self._closing is not None:
                self._closing.notify()

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        """Refuse new events, wait for the threads that are dispatching, and return the events that they gave up."""
        with self._cascades.lock:
            if self._closing is not None:
                return ()
            self._closing = settling = Settling()
            self._routes = {}
        accepted: list[DomainEvent] | None = None  # at the deadline; an event that begins later is refused
        try:
            if await settling.until(self._cascades.are_idle, timeout):
                accepted = []
            else:
                with self._cascades.lock:
                    self._given_up = True  # no further delivery starts
                    self._undelivered += self._cascades.take()
                    accepted = self._cascades.running()
                self._loop.cancel_all()
                await settling.until(self._cascades.are_idle, GRACE_SECONDS)
        finally:
            left = self._abandon(accepted)
            self._loop.close(timeout=0.1)
        return left

    def _refuse(self, event: DomainEvent) -> None:
        """Refuse anything but an event and, once closed, any event."""
        self._table.route(event)
        if self._closing is not None:
            raise DispatcherClosedError(f"{type(event).__name__} was refused: the dispatcher is closed")

    def _enqueue(self, cascade: Cascade | None, event: DomainEvent) -> None:
        """Queue an event of a handler behind the one that its cascade is delivering."""
        route = self._table.route(event)
        with self._cascades.lock:
            if self._closing is not None:
                raise DispatcherClosedError(f"{type(event).__name__} was refused: the dispatcher is closing")
            cascade = cascade or cascade_of_task.get()
            if cascade is None or cascade.event is None:
                raise DispatchError(
                    f"{type(event).__name__} was refused: delivering it would block the loop of the async handlers;"
                    " dispatch before the handler returns, or through asyncio.to_thread"
                )
            if route:
                cascade.queue.append((copy_context(), event))
                cascade.more = True

    def _deliver(self, cascade: Cascade, event: DomainEvent) -> None:
        for subscription in self._table[type(event)]:
            try:
                result = subscription.handle(event)
                if result is not None:
                    self._await(cascade, result)
            except BaseException as exception:  # noqa: BLE001 - reported, and raised again if it interrupts
                self._failed(cascade, event, subscription, exception)
            if self._given_up and self._leave_rest(event, subscription):
                break

    def _await(self, cascade: Cascade, result: object) -> None:
        if must_await(result):
            cascade.more = True  # its tasks may dispatch until the queue is found empty
            token = cascade_of_task.set(cascade)
            try:
                self._loop.run(result)
            finally:
                cascade_of_task.reset(token)

    def _drain(self, cascade: Cascade) -> None:
        while True:
            with self._cascades.lock:
                if not cascade.queue:
                    cascade.event, cascade.more = None, False
                    break
                context, event = cascade.queue.popleft()
                cascade.event = event
            context.run(self._deliver, cascade, event)
        if (interruption := cascade.interruption) is not None:
            cascade.interruption = None
            raise interruption

    def _failed(self, cascade: Cascade, event: DomainEvent, subscription: Subscription, error: BaseException) -> None:
        if is_a(error, KeyboardInterrupt, SystemExit):
            cascade.interrupt(error)
        if self._given_up and is_a(error, asyncio.CancelledError):
            self._undelivered.append(event)
            return
        with self._cascades.lock:
            abandoned = self._abandoned
            if not abandoned and subscription is self._table[type(event)][-1]:
                cascade.event = SETTLED  # a closer that looks now must not count it as undelivered
        if abandoned:
            log_given_up(event, subscription.key)
            return
        try:
            self._failures.report(FailedDelivery(event, subscription.handler, error, attempts=1))
        except BaseException as interruption:  # noqa: BLE001 - raised again once the others have run
            cascade.interrupt(interruption)

    def _leave_rest(self, event: DomainEvent, last: Subscription) -> bool:
        """Give up the handlers behind ``last``, if there are any."""
        if more := last is not self._table[type(event)][-1]:
            self._undelivered.append(event)
        return more

    def _abandon(self, accepted: list[DomainEvent] | None) -> tuple[DomainEvent, ...]:
        """The undelivered, each once. Outcomes of handlers that still run no longer count."""
        with self._cascades.lock:
            self._abandoned = True
            running = self._cascades.running(accepted)  # first: one that ends is among the undelivered by then
            return undelivered((*running, *self._undelivered, *self._cascades.take()))
