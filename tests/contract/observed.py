"""A dispatcher with an observer around it, which must not change what it promises."""

from __future__ import annotations

from eventpact.domain.dispatcher import DispatchError, FailureSink, Handlers
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.monitoring.metrics import ObservedEventDispatcher


class IndifferentObserver:
    def accepted(self, event: DomainEvent) -> None: ...
    def refused(self, event: DomainEvent, error: DispatchError) -> None: ...
    def succeeded(self, event: DomainEvent) -> None: ...
    def failed(self, event: DomainEvent) -> None: ...


def observed_asyncio(handlers: Handlers, on_failure: FailureSink | None = None) -> ObservedEventDispatcher:
    return ObservedEventDispatcher(
        handlers,
        lambda handlers, on_failure: AsyncioEventDispatcher(handlers, on_failure=on_failure),
        IndifferentObserver(),
        on_failure=on_failure,
    )
