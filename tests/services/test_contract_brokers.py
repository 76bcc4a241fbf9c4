"""The Celery dispatcher keeps the contract on the brokers that it is meant for, and promises what they give."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from support.services_kit import Proxy

from eventpact.domain.dispatcher import Delivery, EventDispatcher, FailureSink, Guarantees, Handlers, Ordering
from eventpact_contracts import EventDispatcherContract
from eventpact_contracts.subjects.celery import celery, recover_worker, stop_worker

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]


def guarantees(delivery: Delivery) -> Guarantees:
    return Guarantees(blocks_caller=False, retries=2, delivery=delivery, ordering=Ordering.NONE)


@contextmanager
def behind_a_proxy(url: str) -> Iterator[Proxy]:
    """The broker, which others use too, can be cut off from the dispatcher; the suite finds it in the environment."""
    with Proxy(url) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVENTPACT_BROKER", proxy.url)
        try:
            yield proxy
        finally:
            stop_worker()


class _OnBroker:
    settle_timeout = 10.0
    engine_outlives_dispatcher = True
    target = "eventpact_contracts.subjects.celery:celery"
    proxy: Proxy

    def subject(self, handlers: Handlers, on_failure: FailureSink) -> AbstractContextManager[EventDispatcher]:
        return celery(handlers, on_failure)

    @contextmanager
    def unavailable(self) -> Iterator[None]:
        self.proxy.cut()
        try:
            yield
        finally:
            self.proxy.open()
        recover_worker()


class TestCeleryOnRabbitMQ(_OnBroker, EventDispatcherContract):
    guarantees = guarantees(Delivery.AT_LEAST_ONCE)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _broker(cls, rabbitmq_service: str) -> Iterator[None]:
        with behind_a_proxy(rabbitmq_service) as cls.proxy:
            yield


class TestCeleryOnRedis(_OnBroker, EventDispatcherContract):
    guarantees = guarantees(Delivery.AT_MOST_ONCE)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _broker(cls, redis_service: str) -> Iterator[None]:
        with behind_a_proxy(redis_service) as cls.proxy:
            yield
