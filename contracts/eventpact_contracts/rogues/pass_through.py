"""What the rogues are made of: a good dispatcher, around which one thing is broken.

A disguise passes everything on as it is, so it is as good as the dispatcher that it hides; each rogue overrides what it
breaks, and nothing else.
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

__all__ = ["AsyncMask", "Disguise", "LoopDisguise", "Mask"]


class Mask:
    """A plain handler, delivered to by the disguise."""

    def __init__(self, disguise: Disguise, subscription: Subscription) -> None:
        self.disguise, self.subscription = disguise, subscription

    def handle(self, event: DomainEvent) -> Awaitable[None] | None:
        return self.disguise.deliver(self.subscription, event)


class AsyncMask(Mask):
    """An ``async def`` handler, delivered to by the disguise."""

    async def handle(self, event: DomainEvent) -> None:
        await self.disguise.deliver_async(self.subscription, event)


class Disguise(EventDispatcher):
    """A good blocking dispatcher."""

    guarantees = SyncEventDispatcher.guarantees

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        self.table = SubscriptionTable(handlers)
        self.on_failure = on_failure
        self.inner = self.build(
            {
                event_type: [(AsyncMask if each.is_async else Mask)(self, each) for each in self.route_of(event_type)]
                for event_type in self.table
            }
        )

    def build(self, handlers: Handlers) -> EventDispatcher:
        """The dispatcher behind the disguise."""
        return SyncEventDispatcher(handlers, on_failure=self.report)

    def route_of(self, event_type: type[DomainEvent]) -> tuple[Subscription, ...]:
        """Who receives events of this type."""
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
        assert isinstance(failed.handler, Mask)
        self.on_failure(dataclasses.replace(failed, handler=failed.handler.subscription.handler))

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        return await self.inner.aclose(timeout)


class LoopDisguise(Disguise):
    """A good dispatcher on an event loop."""

    guarantees = AsyncioEventDispatcher.guarantees

    def build(self, handlers: Handlers) -> EventDispatcher:
        return AsyncioEventDispatcher(handlers, on_failure=self.report)
