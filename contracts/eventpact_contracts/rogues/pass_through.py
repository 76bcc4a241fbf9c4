"""Pass-through dispatchers, which the rogues are made of.

A pass-through hands everything on as it is, so it is as good as the dispatcher within. It works in small steps, and
each rogue overrides the one that it breaks.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Awaitable, Sequence
from contextlib import AbstractContextManager, nullcontext

from eventpact.domain.dispatcher import (
    DispatcherClosedError,
    DispatchError,
    EventDispatcher,
    FailedDelivery,
    FailureSink,
    Handlers,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.dispatching.subscriptions import Subscription, SubscriptionTable
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

__all__ = ["AsyncPassedHandler", "LoopPassThrough", "PassThrough", "PassedHandler", "Route"]

Route = tuple[Subscription, ...]


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
        self.prepare()
        self.inner = self.build(
            {event_type: [*map(self.passed_handler, self.route_of(event_type))] for event_type in self.table}
        )

    def prepare(self) -> None:
        """Set up the attributes of a rogue, before there is a dispatcher within."""

    def passed_handler(self, subscription: Subscription) -> PassedHandler:
        """The handler that the dispatcher within has in the place of a subscription's own."""
        return (AsyncPassedHandler if subscription.is_async else PassedHandler)(self, subscription)

    def build(self, handlers: Handlers) -> EventDispatcher:
        """The dispatcher within."""
        return SyncEventDispatcher(handlers, on_failure=self.reported)

    def route_of(self, event_type: type[DomainEvent]) -> Route:
        """The subscriptions that receive events of this type."""
        return self.table[event_type]

    def dispatch(self, event: DomainEvent) -> None:
        self.accept(event, self.table.route(event))

    def accept(self, event: DomainEvent, route: Route) -> None:
        """Hand on an event, whose subscriptions have been looked up."""
        try:
            self.inner.dispatch(event)
        except DispatcherClosedError as error:
            self.refuse_closed(event, error)
        except DispatchError as error:
            self.refuse(event, error)

    def refuse_closed(self, event: DomainEvent, error: DispatcherClosedError) -> None:
        """Refuse an event because closing has begun."""
        raise error

    def refuse(self, event: DomainEvent, error: DispatchError) -> None:
        """Refuse an event for another reason."""
        raise error

    def received(self, subscription: Subscription, event: DomainEvent) -> Sequence[DomainEvent]:
        """The events that a handler receives for one: each is an attempt."""
        return (event,)

    def around(self, subscription: Subscription, event: DomainEvent) -> AbstractContextManager[object]:
        """The block in which an attempt is made."""
        return nullcontext()

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        """Deliver to a plain handler."""
        result = None
        for each in self.received(subscription, event):
            result = self.attempt(subscription, each)
        return result

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        """Deliver to an ``async def`` handler."""
        for each in self.received(subscription, event):
            await self.attempt_async(subscription, each)

    def attempt(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        with self.around(subscription, event):
            return subscription.handle(event)
        return None

    async def attempt_async(self, subscription: Subscription, event: DomainEvent) -> None:
        with self.around(subscription, event):
            result = subscription.handle(event)
            if inspect.isawaitable(result):
                await result

    def reported(self, failed: FailedDelivery) -> None:
        """Take a report of the dispatcher within."""
        assert isinstance(failed.handler, PassedHandler)
        subscription = failed.handler.subscription
        self.report(subscription, dataclasses.replace(failed, handler=subscription.handler))

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        """Report a failed delivery."""
        self.on_failure(failed)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        return await self.inner.aclose(timeout)


class LoopPassThrough(PassThrough):
    """A good dispatcher on an event loop."""

    guarantees = AsyncioEventDispatcher.guarantees
    needs_loop = True

    def build(self, handlers: Handlers) -> EventDispatcher:
        return AsyncioEventDispatcher(handlers, on_failure=self.reported)
