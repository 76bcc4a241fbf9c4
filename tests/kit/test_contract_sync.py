"""The blocking dispatcher keeps the contract."""

from collections.abc import Iterator
from contextlib import contextmanager

from eventpact.domain.dispatcher import FailureSink, Handlers
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
from eventpact_contracts import EventDispatcherContract


class TestSyncEventDispatcher(EventDispatcherContract):
    guarantees = SyncEventDispatcher.guarantees
    target = "eventpact.infrastructure.sync_dispatcher:SyncEventDispatcher"

    @contextmanager
    def subject(self, handlers: Handlers, on_failure: FailureSink) -> Iterator[SyncEventDispatcher]:
        yield SyncEventDispatcher(handlers, on_failure=on_failure)
