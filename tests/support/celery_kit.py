"""What the tests of the Celery dispatcher share: events, an app on a queue of its own, a worker in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

from celery import Celery, signals
from celery.contrib.testing.worker import start_worker
from celery.worker import state

from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.celery.app import Role, make_celery
from eventpact_contracts.subjects.celery import stop_worker


@signals.setup_logging.connect(weak=False)
def _leave_logging_to_pytest(**_: object) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Counted(DomainEvent):
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Named(DomainEvent):
    email: str


@dataclass(frozen=True)
class Broker:
    """What :func:`make_celery` reads."""

    broker: str | None
    celery_queue: str = field(default_factory=lambda: f"test-{uuid4().hex}")
    celery_acks_late: bool | None = None
    celery_visibility_timeout: timedelta = timedelta(seconds=300)


def app_on(url: str, role: Role = "worker", **settings: Any) -> Celery:
    """An app on a queue that nobody else uses."""
    return make_celery(Broker(url, **settings), role)


@contextmanager
def worker_of(app: Celery, **options: Any) -> Iterator[None]:
    """A worker in a thread of this process."""
    stop_worker()  # that of the contract suite: two in one process share Celery's event loop
    if app.conf.broker_url.startswith("redis"):  # else it looks only every second whether it is to stop
        app.conf.broker_transport_options = app.conf.broker_transport_options | {"polling_interval": 0.1}
    try:
        # An idle worker on RabbitMQ looks only every 10 s whether it is to stop.
        with start_worker(app, pool="threads", concurrency=4, perform_ping_check=False, shutdown_timeout=20, **options):
            yield
    finally:
        state.should_terminate = None  # else, after one that did not end, the next would never start


class Recorder:
    """A plain handler that keeps what it received, and when, and fails the first ``failures`` times."""

    def __init__(self, failures: int = 0, error: BaseException | None = None) -> None:
        self.events: list[Any] = []
        self.times: list[float] = []
        self._failures = failures
        self._error = error or ValueError("ada@example.com is refused")

    def handle(self, event: DomainEvent) -> None:
        self.events.append(event)
        self.times.append(time.monotonic())
        if len(self.events) <= self._failures:
            raise self._error

    @property
    def waits(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


class AsyncRecorder(Recorder):
    """The same, as an ``async def``."""

    async def handle(self, event: DomainEvent) -> None:  # type: ignore[override]
        super().handle(event)
