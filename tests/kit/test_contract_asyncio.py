"""The fire-and-forget dispatcher keeps the contract."""

from collections.abc import Iterator
from contextlib import contextmanager

from eventpact.domain.dispatcher import FailureSink, Handlers
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact_contracts import EventDispatcherContract


class TestAsyncioEventDispatcher(EventDispatcherContract):
    guarantees = AsyncioEventDispatcher.guarantees
    needs_loop = True
    target = "eventpact.infrastructure.asyncio_dispatcher:AsyncioEventDispatcher"

    @contextmanager
    def subject(self, handlers: Handlers, on_failure: FailureSink) -> Iterator[AsyncioEventDispatcher]:
        yield AsyncioEventDispatcher(handlers, on_failure=on_failure)
