"""Uses of the public surface that every type checker accepts: read by them, never run."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

from eventpact.domain.dispatcher import (
    Delivery,
    EventDispatcher,
    FailedDelivery,
    FailureSink,
    Guarantees,
    Handlers,
    Ordering,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import FailureReporter
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

DECLARED = Guarantees(blocks_caller=True, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO)


@dataclass(frozen=True, kw_only=True)
class Shipped(DomainEvent):
    former_names = ("Sent",)
    number: int


class Plain:
    def handle(self, event: Shipped) -> None: ...


class Async:
    async def handle(self, event: Shipped) -> None: ...


class Returning:
    def handle(self, event: Shipped) -> Awaitable[None]:
        return Async().handle(event)


class Anything:
    def handle(self, event: DomainEvent) -> None: ...


class OfTheClass(EventDispatcher):
    guarantees = DECLARED

    def __init__(self, handlers: Handlers, on_failure: FailureSink | None = None) -> None:
        self._table = SubscriptionTable(handlers)
        self._failures = FailureReporter(on_failure)

    def dispatch(self, event: DomainEvent) -> None:
        for subscription in self._table.route(event):
            try:
                subscription.handle(event)
            except Exception as exception:  # noqa: BLE001 - becomes the failure of the delivery
                self._failures.report(FailedDelivery(event, subscription.handler, exception, attempts=1))

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        return ()


class Annotated(OfTheClass):
    guarantees: Guarantees = DECLARED


class OfTheInstance(OfTheClass):
    def __init__(self, inner: EventDispatcher) -> None:
        super().__init__({})
        self.guarantees = inner.guarantees


def declared(dispatcher: EventDispatcher) -> Guarantees:
    return dispatcher.guarantees


several: list[Plain] = [Plain(), Plain()]
for dispatcher in (
    OfTheClass({Shipped: Plain()}),
    Annotated({Shipped: [Plain(), Async(), Returning(), Anything()]}),
    OfTheInstance(SyncEventDispatcher({Shipped: several})),
    SyncEventDispatcher({Shipped: (Plain(), Async())}, on_failure=FailureReporter(masked=True)),
    SyncEventDispatcher(SubscriptionTable({Shipped: Async(), DomainEvent: Anything()})),
):
    promises: Guarantees = declared(dispatcher)
    dispatcher.dispatch(Shipped(number=1))
