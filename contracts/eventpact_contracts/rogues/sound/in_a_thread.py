"""A good dispatcher with a thread of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import queue
import threading
import time
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any

from eventpact.domain.dispatcher import (
    DispatcherClosedError,
    EventDispatcher,
    FailedDelivery,
    FailureSink,
    Handlers,
    Ordering,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import FailureReporter, undelivered
from eventpact.infrastructure.dispatching.subscriptions import Subscription, SubscriptionTable, must_await
from eventpact_contracts.rogues.sound.pass_through import PassThrough, Route

__all__ = ["InAThread", "Job"]

Job = tuple[object, Subscription, DomainEvent]


class InAThread(EventDispatcher):
    """A good one: a thread takes one delivery after the other out of a queue."""

    guarantees = dataclasses.replace(PassThrough.guarantees, blocks_caller=False, ordering=Ordering.FIFO)

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        self._table = SubscriptionTable(handlers)
        self._failures = FailureReporter(on_failure)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._pending: dict[object, DomainEvent] = {}
        self._running: object = None
        self._closed = False
        self._lock = threading.Lock()
        self.start()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self.work, daemon=True).start()

    def dispatch(self, event: DomainEvent) -> None:
        route = self.route(event)
        with self._lock:
            if self._closed:
                raise DispatcherClosedError("it is closed")
            self.put(event, route)

    def put(self, event: DomainEvent, route: Route) -> None:
        """Leave its deliveries to the thread. The lock is held."""
        for subscription in route:
            job = object()
            self._pending[job] = event
            self._jobs.put((job, subscription, event))

    def route(self, event: DomainEvent) -> tuple[Subscription, ...]:
        """The subscriptions that receive an event."""
        return self._table.route(event)

    def work(self) -> None:
        """Handle whatever comes, until there is nothing more to come."""
        while (taken := self._jobs.get()) is not None:
            self.handle(*taken)

    def takes(self, job: object) -> bool:
        """Begin a delivery that has not been given up."""
        with self._lock:
            if job not in self._pending:
                return False
            self._running = job
            return True

    def handle(self, job: object, subscription: Subscription, event: DomainEvent) -> None:
        """Make a delivery."""
        if not self.takes(job):
            return
        error: BaseException | None = None
        try:
            if must_await(result := subscription.handle(event)):
                self.run(_awaited(result))
        except BaseException as raised:  # noqa: BLE001 - reported, if anybody still waits for it
            error = raised
        self.end(job, None if error is None else FailedDelivery(event, subscription.handler, error, attempts=1))

    def end(self, job: object, failed: FailedDelivery | None) -> bool:
        """Settle a delivery, and report it if it failed; return whether it had not been given up."""
        with self._lock:
            is_wanted = self._pending.pop(job, None) is not None
            self._running = None
            if failed is not None and is_wanted:
                self._failures.report(failed)
        return is_wanted

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine that a handler has returned."""
        asyncio.run(coroutine)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        with self._lock:
            if self._closed:
                return ()
            self._closed = True
        deadline = time.monotonic() + timeout
        await self.idle(deadline)
        with self._lock:
            left = [event for job, event in self._pending.items() if job is not self._running]
            self._pending = {job: event for job, event in self._pending.items() if job is self._running}
        await self.idle(deadline + 0.5)
        with self._lock:
            left += self._pending.values()
            self._pending.clear()
        self.stop(left)
        return undelivered(left)

    def stop(self, left: Sequence[DomainEvent]) -> None:
        """Have the thread end after its present delivery; ``left`` are the undelivered."""
        self._jobs.put(None)

    async def idle(self, deadline: float) -> None:
        """Wait until nothing is pending, or the deadline has passed."""
        while self._pending and time.monotonic() < deadline:  # noqa: ASYNC110 - the thread has no loop to tell
            await asyncio.sleep(0.005)  # between two looks; the deadline is above


async def _awaited(result: Awaitable[None]) -> None:
    await result
