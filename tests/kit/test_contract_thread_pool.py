"""A dispatcher as a stranger would add it keeps the contract."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest
from examples.thread_pool_dispatcher import ThreadPoolDispatcher

from eventpact.domain.dispatcher import FailureSink, Handlers
from eventpact_contracts.contract import EventDispatcherContract

pytestmark = pytest.mark.slow


class TestThreadPoolDispatcher(EventDispatcherContract):
    guarantees = ThreadPoolDispatcher.guarantees
    target = "examples.thread_pool_dispatcher:ThreadPoolDispatcher"

    @contextmanager
    def subject(self, handlers: Handlers, on_failure: FailureSink) -> Generator[ThreadPoolDispatcher]:
        yield ThreadPoolDispatcher(handlers, on_failure=on_failure)
