"""A dispatcher of one's own, as an example: handlers run in a pool of threads, and nobody waits for them."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from eventpact.domain import dispatcher as domain
from eventpact.domain.dispatcher import Delivery, FailedDelivery, Guarantees, Handlers, Ordering
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import FailureReporter, undelivered
from eventpact.infrastructure.dispatching.subscriptions import Subscription, SubscriptionTable, must_await


class ThreadPoolDispatcher(domain.EventDispatcher):
    guarantees = Guarantees(blocks_caller=False, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.NONE)

    def __init__(self, handlers: Handlers, *, on_failure: domain.FailureSink | None = None) -> None:
        self._table = SubscriptionTable(handlers)
        self._failures = FailureReporter(on_failure)
        self._pool = ThreadPoolExecutor(16)
        self._pending: dict[object, DomainEvent] = {}
        self._lock = threading.Lock()
        self._closing = False

    def dispatch(self, event: DomainEvent) -> None:
        route = self._table.route(event)
        with self._lock:
            if self._closing:
                raise domain.DispatcherClosedError(f"{type(event).__name__} was refused: the dispatcher is closed")
            for subscription in route:
                self._pending[delivery := object()] = event
                self._pool.submit(self._deliver, delivery, subscription, event)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        with self._lock:
            if self._closing:
                return ()
            self._closing = True
        await self._idle(timeout)
        self._pool.shutdown(wait=False, cancel_futures=True)
        await self._idle(0.5)  # a handler that is running may still end, and one just taken may begin
        left = [event for delivery in list(self._pending) if (event := self._pending.pop(delivery, None)) is not None]
        self._pool.shutdown(wait=not left)
        return undelivered(left)

    async def _idle(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self._pending and time.monotonic() < deadline:
            await asyncio.sleep(0.005)  # between two looks; the pool tells no event loop that it is idle

    def _deliver(self, delivery: object, subscription: Subscription, event: DomainEvent) -> None:
        try:
            if must_await(result := subscription.handle(event)):
                asyncio.run(asyncio.wait_for(result, None))
        except BaseException as exception:  # noqa: BLE001 - an interruption is no success either
            if self._pending.pop(delivery, None) is not None:  # or else it was returned as undelivered
                self._failures.report(FailedDelivery(event, subscription.handler, exception, attempts=1))
        else:
            self._pending.pop(delivery, None)
