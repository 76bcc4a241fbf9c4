"""Pass-through dispatchers, which the rogues are made of.

A pass-through hands everything on as it is, so it is as good as the dispatcher within. Each rogue overrides the one
thing that it breaks.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Awaitable

from eventpact.domain.dispatcher import (
    EventDispatcher,
    FailedDelivery,
    FailureSink,
    Handlers,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.dispatching.subscriptions import Subscription, SubscriptionTable
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

__all__ = ["AsyncPassedHandler", "LoopPassThrough", "PassThrough", "PassedHandler"]


class PassedHandler:
    """A plain handler, delivered to by the pass-through."""

    def __init__(self, outer: PassThrough, subscription: Subscription) -> None:
        self.outer, self.subscription = outer, subscription

    def handle(self, event: DomainEvent) -> Awaitable[None] | None:
        return self.outer.deliver(self.subscription, event)


class AsyncPassedHandler(PassedHandler):
    """An ``async def`` handler, delivered to by the pass-through."""

    async def handle(self, event: DomainEvent) -> None:
        await self.outer.deliver_async(self.subscription, event)


class PassThrough(EventDispatcher):
    """A good dispatcher that blocks its caller."""

    guarantees = SyncEventDispatcher.guarantees

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        self.table = SubscriptionTable(handlers)
        self.on_failure = on_failure
        self.inner = self.build(
            {event_type: [*map(self.passed_handler, self.route_of(event_type))] for event_type in self.table}
        )

    def passed_handler(self, subscription: Subscription) -> PassedHandler:
        """The handler that the dispatcher within has in the place of a subscription's own."""
        return (AsyncPassedHandler if subscription.is_async else PassedHandler)(self, subscription)

    def build(self, handlers: Handlers) -> EventDispatcher:
        """The dispatcher within."""
        return SyncEventDispatcher(handlers, on_failure=self.report)

    def route_of(self, event_type: type[DomainEvent]) -> tuple[Subscription, ...]:
        """The subscriptions that receive events of this type."""
        return self.table[event_type]

    def dispatch(self, event: DomainEvent) -> None:
        self.inner.dispatch(event)

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        """Deliver to a plain handler."""
        return subscription.handle(event)

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        """Deliver to an ``async def`` handler."""
        result = subscription.handle(event)
        assert inspect.isawaitable(result)
        await result

    def report(self, failed: FailedDelivery) -> None:
        """Report a failed delivery."""
        assert isinstance(failed.handler, PassedHandler)
        self.on_failure(dataclasses.replace(failed, handler=failed.handler.subscription.handler))

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        return await self.inner.aclose(timeout)


class LoopPassThrough(PassThrough):
    """A good dispatcher on an event loop."""

    guarantees = AsyncioEventDispatcher.guarantees
    needs_loop = True

    def build(self, handlers: Handlers) -> EventDispatcher:
        return AsyncioEventDispatcher(handlers, on_failure=self.report)
