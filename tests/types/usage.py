"""Typed uses of the public surface, which mypy and pyright accept in strict mode; ``tox -e types`` runs both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import assert_type

from celery import Celery

from eventpact.domain.dispatcher import (
    Delivery,
    DispatcherClosedError,
    EventDispatcher,
    FailedDelivery,
    FailureSink,
    Guarantees,
    Handler,
    Handlers,
    Ordering,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
from eventpact.testing import RecordingEventDispatcher
from eventpact_contracts import EventDispatcherContract


@dataclass(frozen=True, kw_only=True)
class OrderPlaced(DomainEvent):
    order_id: str


class PlainHandler:
    def handle(self, event: OrderPlaced) -> None:
        print(event.order_id)


class AsyncHandler:
    async def handle(self, event: OrderPlaced) -> None:
        print(event.order_id)


class AwaitableHandler:
    def __init__(self, send: Callable[[str], Awaitable[None]]) -> None:
        self._send = send

    def handle(self, event: OrderPlaced) -> Awaitable[None]:
        return self._send(event.order_id)


class AnyEventHandler:
    def handle(self, event: DomainEvent) -> None:
        print(event.event_id)


async def _send(text: str) -> None:
    print(text)


def log_failure(failed: FailedDelivery) -> None:
    assert_type(failed.event, DomainEvent)
    assert_type(failed.exception, BaseException)
    assert_type(failed.attempts, int)


plain: Handler[OrderPlaced] = PlainHandler()
HANDLERS: Handlers = {
    OrderPlaced: [plain, AsyncHandler(), AwaitableHandler(_send), AnyEventHandler()],
    DomainEvent: AnyEventHandler(),
}


class OwnEventDispatcher(EventDispatcher):
    """A dispatcher of one's own."""

    guarantees = Guarantees(blocks_caller=True, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.NONE)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        self._table = SubscriptionTable(handlers)
        self._on_failure = on_failure
        self._closed = False

    def dispatch(self, event: DomainEvent) -> None:
        if self._closed:
            raise DispatcherClosedError("closed")
        for subscription in self._table.route(event):
            subscription.handle(event)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        self._closed = True
        return ()


class TestOwnEventDispatcher(EventDispatcherContract):
    guarantees = OwnEventDispatcher.guarantees
    target = "usage:OwnEventDispatcher"

    @contextmanager
    def subject(self, handlers: Handlers, on_failure: FailureSink) -> Generator[EventDispatcher]:
        yield OwnEventDispatcher(handlers, on_failure=on_failure)


async def use(celery: Celery) -> None:
    dispatchers: list[EventDispatcher] = [
        SyncEventDispatcher(HANDLERS),
        AsyncioEventDispatcher(HANDLERS, on_failure=log_failure),
        CeleryEventDispatcher(celery, {OrderPlaced: PlainHandler()}),
        OwnEventDispatcher({OrderPlaced: (plain, AsyncHandler())}),
    ]
    for dispatcher in dispatchers:
        dispatcher.dispatch(OrderPlaced(order_id="1"))
        assert_type(await dispatcher.aclose(timeout=1.0), tuple[DomainEvent, ...])
        assert_type(dispatcher.guarantees, Guarantees)
    recorder = RecordingEventDispatcher()
    assert_type(recorder.of(OrderPlaced), list[OrderPlaced])
