"""``eventpact verify celery``: our Celery dispatcher, with a worker in this process, on an embedded Valkey server.

The fast tier: a real broker, real messages and the real consumer, without the second process. What is killed, and what
RabbitMQ does, is checked by the contract classes in ``tests/``.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final

from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging

from eventpact.domain.dispatcher import EventDispatcher, FailureSink, Handlers
from eventpact.infrastructure.celery_app import make_celery
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher
from eventpact.infrastructure.embedded_broker import EmbeddedBroker

__all__ = ["celery", "on_broker", "stop_worker"]

_THREADS: Final = 8
"""How many handlers run at once: more than a script ever holds."""

_RETRIES: Final = 2
_BACKOFF: Final = 0.1
_STOPS_WITHIN: Final = 20.0
"""Seconds; an idle worker on RabbitMQ looks only every 10 s whether it is to stop."""

_BROKER: Final = "EVENTPACT_VERIFY_BROKER"
"""The variable that tells processes which are to be killed where their broker is."""

_numbers = count()


@dataclass(frozen=True)
class _Settings:
    broker: str | None
    celery_queue: str
    celery_acks_late: bool | None = None
    celery_visibility_timeout: timedelta = timedelta(minutes=5)


class _Celery:
    """A target, also for the law that kills processes: see :mod:`eventpact_contracts.crash`."""

    @contextmanager
    def __call__(self, handlers: Handlers, on_failure: FailureSink) -> Generator[EventDispatcher]:
        """A dispatcher on the embedded broker, which is started once and ends with this process."""
        if _BROKER not in os.environ:
            with on_broker(_embedded(), handlers, on_failure) as dispatcher:
                yield dispatcher
        else:
            alone = _dispatcher(make_celery(_given(), "web"), handlers, on_failure)
            try:
                yield alone
            finally:
                _close(alone)

    def worker(self, handlers: Handlers, on_failure: FailureSink) -> None:
        """Work, in this process, until it is told to end."""
        app = make_celery(_given(), "worker")
        _dispatcher(app, handlers, on_failure)
        app.Worker(pool="threads", concurrency=_THREADS, loglevel="ERROR").start()

    @contextmanager
    def engine(self) -> Generator[Callable[[], None]]:
        """A broker for processes that are started within; what it yields kills it and starts it again."""
        with tempfile.TemporaryDirectory(prefix="eventpact-") as folder, EmbeddedBroker(Path(folder)) as broker:

            def restart() -> None:
                broker.kill()
                broker.start()

            os.environ[_BROKER] = broker.url
            try:
                yield restart
            finally:
                del os.environ[_BROKER]


celery = _Celery()


def _given() -> _Settings:
    return _Settings(os.environ[_BROKER], "eventpact-verify")


@contextmanager
def on_broker(url: str, handlers: Handlers, on_failure: FailureSink) -> Generator[EventDispatcher]:
    """A dispatcher on the broker at ``url``; its worker, in this process, stays for the next with these handlers."""
    settings = _WORKER.settings_for(url, handlers, on_failure)
    dispatcher = _dispatcher(make_celery(settings, "web"), handlers, on_failure)
    try:
        yield dispatcher
    finally:
        _close(dispatcher)


class _Worker:
    """The worker of this process: one at a time, as two share Celery's event loop, and read each other's messages."""

    def __init__(self) -> None:
        self._serving: tuple[str, Handlers, FailureSink] | None = None
        self._settings = _Settings(None, "")
        self._listening: CeleryEventDispatcher | None = None
        self._running = ExitStack()
        # Only the worker: when Python ends, there are no more threads to close a dispatcher with, and nothing to save.
        atexit.register(self._running.close)

    def settings_for(self, url: str, handlers: Handlers, on_failure: FailureSink) -> _Settings:
        """Where a worker with these handlers listens."""
        if self._serves(url, handlers, on_failure):
            return self._settings
        settings = _Settings(url, f"eventpact-verify-{next(_numbers)}")
        app = make_celery(settings, "worker")
        listening = _dispatcher(app, handlers, on_failure)  # refuses what cannot be, before all else
        self.stop()
        self._running.enter_context(_worker(app))
        self._listening = listening
        self._serving, self._settings = (url, handlers, on_failure), settings
        return settings

    def stop(self) -> None:
        """End the worker, if there is one. Whoever wants to run another in this process does this first."""
        self._serving = None
        self._running.close()
        if self._listening is not None:
            listening, self._listening = self._listening, None
            _close(listening)

    def _serves(self, url: str, handlers: Handlers, on_failure: FailureSink) -> bool:
        if self._serving is None:
            return False
        known_url, known_handlers, known_sink = self._serving
        return known_url == url and known_handlers is handlers and known_sink == on_failure


_WORKER: Final = _Worker()
stop_worker: Final = _WORKER.stop


def _dispatcher(app: Celery, handlers: Handlers, on_failure: FailureSink) -> CeleryEventDispatcher:
    return CeleryEventDispatcher(app, handlers, on_failure=on_failure, retries=_RETRIES, backoff=_BACKOFF)


def _close(dispatcher: EventDispatcher) -> None:
    asyncio.run(dispatcher.aclose(5.0))


@contextmanager
def _worker(app: Celery) -> Generator[None]:
    # A worker sets up the logging of the whole process, unless somebody else says that he does.
    setup_logging.connect(_leave_logging_alone)
    try:
        with start_worker(
            app, pool="threads", concurrency=_THREADS, perform_ping_check=False, shutdown_timeout=_STOPS_WITHIN
        ) as worker:
            yield
    finally:
        setup_logging.disconnect(_leave_logging_alone)
    # A worker that is told to terminate leaves the threads of its pool to themselves.
    pool: Any = worker.pool
    pool.executor.shutdown()


def _leave_logging_alone(**_: object) -> None:
    """Nothing: it is set up already."""


@cache
def _embedded() -> str:
    folder = Path(tempfile.mkdtemp(prefix="eventpact-"))
    broker = EmbeddedBroker(folder)
    broker.start()
    atexit.register(shutil.rmtree, folder)
    atexit.register(broker.stop)
    return broker.url
