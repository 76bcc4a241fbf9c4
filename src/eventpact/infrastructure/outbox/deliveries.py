"""The protocol of the two ways to deliver: by handlers in this process, or in others."""

from __future__ import annotations

import asyncio
import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from eventpact.domain.dispatcher import EventDispatcher, FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Handle, Subscription, SubscriptionTable
from eventpact.infrastructure.outbox.entries import Entry, KnownHandlers
from eventpact.infrastructure.outbox.settlements import FailureJudge, Settlements
from eventpact.infrastructure.outbox.store import OutboxStore

__all__ = ["MAX_CRASHES", "Deliveries", "recorded"]

_log = logging.getLogger("eventpact")

_T = TypeVar("_T")

MAX_CRASHES: Final = 5
"""How many processes may crash with an event before it is reported as failed."""


class Deliveries(ABC):
    """The bookkeeping of deliveries, between a relay and the inner dispatcher's handlers."""

    def __init__(self, store: OutboxStore, table: SubscriptionTable, known: KnownHandlers) -> None:
        self._store = store
        self._table = table
        self._known = known

    @abstractmethod
    def wrap(self, subscription: Subscription) -> Handle:
        """Return a ``handle`` that calls the subscription's if its delivery is to be made, and settles it."""

    @abstractmethod
    def failed(self, failed: FailedDelivery) -> None:
        """Receive failures: the inner dispatcher's failure sink."""

    def bind(self, inner: EventDispatcher, judge: FailureJudge) -> None:
        """Take the inner dispatcher, which was built with the handlers that :meth:`wrap` returned."""
        self._inner = inner
        self._judge = judge

    def start(self, settlements: Settlements) -> None:
        """Begin under a relay with these settlements."""
        self._settlements = settlements

    @abstractmethod
    def in_flight(self) -> int:
        """Count the events that take room in this process."""

    @abstractmethod
    def claim(self, relay_id: str, limit: int) -> list[Entry]:
        """Claim entries to be dispatched now."""

    @abstractmethod
    def deliver(self, entry: Entry, event: DomainEvent) -> None:
        """Dispatch an entry to the inner dispatcher, whose exceptions pass."""

    @abstractmethod
    def skip(self, entry: Entry) -> None:
        """Note that an entry could not be read."""

    @abstractmethod
    def lose(self) -> None:
        """Give up the deliveries that have not begun: other relays may have them."""

    def _key(self, failed: FailedDelivery) -> str:
        return next(each.key for each in self._table.route(failed.event) if each.handler is failed.handler)


def recorded(
    subscription: Subscription,
    *,
    begin: Callable[[DomainEvent], bool],
    succeeded: Callable[[DomainEvent], None],
    failed: Callable[[DomainEvent], None],
    blocks: bool,
) -> Handle:
    """Return a ``handle`` that asks whether to call the subscription's, and tells how that ended.

    Args:
        blocks: the functions ask the database, so an ``async def`` calls them in a thread.
    """

    def handle(event: DomainEvent) -> Awaitable[None] | None:
        if not begin(event):
            return None
        try:
            result = subscription.handle(event)
        except BaseException:
            failed(event)
            raise
        if inspect.isawaitable(result):
            return finish(event, result)
        succeeded(event)
        return None

    async def handle_async(event: DomainEvent) -> None:
        if await call(begin, event):
            await finish(event, subscription.handle(event))

    async def finish(event: DomainEvent, result: Any) -> None:
        try:
            await result
        except BaseException:
            failed(event)
            raise
        await call(succeeded, event)

    async def call(function: Callable[[DomainEvent], _T], event: DomainEvent) -> _T:
        return await asyncio.to_thread(function, event) if blocks else function(event)

    return handle_async if subscription.is_async else handle
