"""A dispatcher with metrics around it, which must not change what it promises."""

from __future__ import annotations

from eventpact.domain.dispatcher import FailureSink, Handlers
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.monitoring.metrics import Metrics, ObservedEventDispatcher, Stock


def observed_asyncio(handlers: Handlers, on_failure: FailureSink | None = None) -> ObservedEventDispatcher:
    return ObservedEventDispatcher(
        handlers,
        lambda handlers, on_failure: AsyncioEventDispatcher(handlers, on_failure=on_failure),
        Metrics((), lambda: Stock(failed=0), settles=True),
        on_failure=on_failure,
    )
