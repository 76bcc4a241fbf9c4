"""A dispatcher around another one, which calls an observer with accepted, refused and settled events."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from eventpact.domain.dispatcher import (
    DispatchError,
    EventDispatcher,
    FailedDelivery,
    FailureSink,
    Handlers,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import FailureReporter
from eventpact.infrastructure.dispatching.subscriptions import Handle, Subscription, SubscriptionTable

__all__ = ["ObservedEventDispatcher", "Observer"]


class Observer(Protocol):
    """Called on any thread. It must not raise, nor block."""

    def accepted(self, event: DomainEvent) -> None:
        """An event was accepted, and what accepted it is committed."""

    def refused(self, event: DomainEvent, error: DispatchError) -> None:
        """``dispatch`` raised."""

    def succeeded(self, event: DomainEvent) -> None:
        """A handler returned, in this process."""

    def failed(self, event: DomainEvent) -> None:
        """A delivery has failed for good in this process, and the failure sink has taken it."""


class ObservedEventDispatcher(EventDispatcher):
    """Dispatches to an inner dispatcher, whose guarantees it has.

    Nothing else knows of observers. Deliveries that other processes settle (workers, relays) are not seen here.

    Args:
        handlers: event types, each with a handler or a sequence of handlers.
        inner: builds the dispatcher that delivers, from handlers and a failure sink.
        observer: is called.
        on_failure: the failure sink; the log where it is not given.
        after_commit: calls what it is given once the caller's transaction is committed, at once outside of one.

    Raises:
        RegistrationError: ``handlers`` is impossible (law A4).
    """

    def __init__(
        self,
        handlers: Handlers,
        inner: Callable[[Handlers, FailureSink], EventDispatcher],
        observer: Observer,
        *,
        on_failure: FailureSink | None = None,
        after_commit: Callable[[Callable[[], object]], None] | None = None,
    ) -> None:
        self._observer = observer
        self._after_commit = after_commit or _at_once
        self._inner = inner(
            SubscriptionTable(handlers).around(self._observed), FailureReporter(on_failure).around(self._failing)
        )
        self.guarantees = self._inner.guarantees

    def dispatch(self, event: DomainEvent) -> None:
        """Dispatch to the inner dispatcher, which raises what it raises."""
        try:
            self._inner.dispatch(event)
        except DispatchError as error:
            self._observer.refused(event, error)
            raise
        self._after_commit(lambda: self._observer.accepted(event))

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        """Close the inner dispatcher."""
        return await self._inner.aclose(timeout)

    def _observed(self, subscription: Subscription) -> Handle:
        def handle(event: DomainEvent) -> Awaitable[None] | None:
            result = subscription.handle(event)
            if inspect.isawaitable(result):
                return finish(event, result)
            self._observer.succeeded(event)
            return None

        async def handle_async(event: DomainEvent) -> None:
            await finish(event, subscription.handle(event))

        async def finish(event: DomainEvent, result: Any) -> None:
            await result
            self._observer.succeeded(event)

        return handle_async if subscription.is_async else handle

    def _failing(self, sink: FailureSink) -> FailureSink:
        def report(failed: FailedDelivery) -> None:
            sink(failed)
            self._observer.failed(failed.event)

        return report


def _at_once(callback: Callable[[], object]) -> None:
    callback()
