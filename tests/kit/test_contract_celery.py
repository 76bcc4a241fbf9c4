"""The Celery dispatcher keeps the contract: fast tier, a worker in this process on an embedded Valkey server."""

from contextlib import AbstractContextManager

import pytest

from eventpact.domain.dispatcher import Delivery, EventDispatcher, FailureSink, Guarantees, Handlers, Ordering
from eventpact_contracts import EventDispatcherContract

pytestmark = pytest.mark.slow

pytest.importorskip("celery")


class TestCeleryEventDispatcher(EventDispatcherContract):
    guarantees = Guarantees(blocks_caller=False, retries=2, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.NONE)
    target = "eventpact_contracts.subjects.celery:celery"

    def subject(self, handlers: Handlers, on_failure: FailureSink) -> AbstractContextManager[EventDispatcher]:
        from eventpact_contracts.subjects.celery import celery

        return celery(handlers, on_failure)

    def unavailable(self) -> AbstractContextManager[None]:
        from eventpact_contracts.subjects.celery import celery

        return celery.unavailable()
