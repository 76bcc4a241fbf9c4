"""A dispatcher that is watched: tells an observer what another dispatcher accepted, refused and settled."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from eventpact.domain.dispatcher import (
    DispatchError,
    EventDispatcher,
    FailedDelivery,
    FailureSink,
    Guarantees,
    Handlers,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Subscription, SubscriptionTable, log_failure

__all__ = ["ObservedEventDispatcher", "Observer"]


class Observer(Protocol):
    """Is told what happens, on any thread. It must not raise, nor block."""

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

    Whoever does not want to observe leaves it out: nothing else knows of observers. What other processes settle
    (workers, relays) is not seen here.

    Args:
        handlers: event types, each with a handler or a sequence of handlers.
        inner: builds the dispatcher that delivers, from handlers and a failure sink.
        observer: is told.
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
        self._on_failure = on_failure or log_failure
        self._after_commit = after_commit or _at_once
        self._inner = inner(
            {
                event_type: [_observed(subscription, observer) for subscription in route]
                for event_type, route in SubscriptionTable(handlers).items()
            },
            self._failed,
        )

    @property
    def guarantees(self) -> Guarantees:
        """Those of the inner dispatcher."""
        return self._inner.guarantees

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

    def _failed(self, failed: FailedDelivery) -> None:
        handler: Any = failed.handler
        self._on_failure(FailedDelivery(failed.event, handler.__wrapped__, failed.exception, failed.attempts))
        self._observer.failed(failed.event)


def _at_once(callback: Callable[[], object]) -> None:
    callback()


class _Observed:
    """A plain handler whose successes are told."""

    def __init__(self, subscription: Subscription, observer: Observer) -> None:
        self.__wrapped__ = subscription.handler
        self._handle = subscription.handle
        self._observer = observer

    def handle(self, event: DomainEvent) -> Awaitable[None] | None:
        result = self._handle(event)
        if inspect.isawaitable(result):
            return self._finish(event, result)
        self._observer.succeeded(event)
        return None

    async def _finish(self, event: DomainEvent, result: Awaitable[None]) -> None:
        await result
        self._observer.succeeded(event)


class _ObservedAsync(_Observed):
    """The same for an ``async def``."""

    async def handle(self, event: DomainEvent) -> None:
        awaitable: Any = self._handle(event)
        await self._finish(event, awaitable)


def _observed(subscription: Subscription, observer: Observer) -> _Observed:
    return (_ObservedAsync if subscription.is_async else _Observed)(subscription, observer)
