"""A dispatcher that is observed keeps the contract as before."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from eventpact.domain.dispatcher import DispatchError, FailureSink, Handlers
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.dispatching.observing import ObservedEventDispatcher
from eventpact_contracts import EventDispatcherContract

pytestmark = pytest.mark.slow


class Indifferent:
    def accepted(self, event: DomainEvent) -> None: ...
    def refused(self, event: DomainEvent, error: DispatchError) -> None: ...
    def succeeded(self, event: DomainEvent) -> None: ...
    def failed(self, event: DomainEvent) -> None: ...


def observed_asyncio(handlers: Handlers, on_failure: FailureSink | None = None) -> ObservedEventDispatcher:
    return ObservedEventDispatcher(
        handlers,
        lambda handlers, on_failure: AsyncioEventDispatcher(handlers, on_failure=on_failure),
        Indifferent(),
        on_failure=on_failure,
    )


class TestObservedEventDispatcher(EventDispatcherContract):
    guarantees = AsyncioEventDispatcher.guarantees
    needs_loop = True
    target = "kit.test_contract_observed:observed_asyncio"

    @contextmanager
    def subject(self, handlers: Handlers, on_failure: FailureSink) -> Iterator[ObservedEventDispatcher]:
        yield observed_asyncio(handlers, on_failure)
