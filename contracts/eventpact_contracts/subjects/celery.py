"""``eventpact verify celery``: our Celery dispatcher, with a worker in this process, on a real broker.

The broker is that of ``EVENTPACT_BROKER``, or else an embedded Valkey server. Law G3 starts, and kills, real worker
processes; the embedded server is killed too, and one that others may use is not.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging
from celery.worker import state

from eventpact.domain.dispatcher import EventDispatcher, FailureSink, Handlers
from eventpact.infrastructure.celery.app import make_celery
from eventpact.infrastructure.celery.embedded_broker import EmbeddedBroker
from eventpact.infrastructure.celery.messages import dead_queue_name, retry_queue
from eventpact.infrastructure.celery.publisher import BrokerConnection
from eventpact.infrastructure.celery.task import EventTasks
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher

__all__ = ["celery", "recover_worker", "stop_worker"]

_THREADS: Final = 8
"""The number of handlers that run at once: more than a script ever holds."""

_RETRIES: Final = 2
_BACKOFF: Final = 0.1
_TICK: Final = 0.01
_STOPS_WITHIN: Final = 20.0
"""Seconds; an idle worker on RabbitMQ looks only every 10 s whether it is to stop."""

_TOLD: Final = "EVENTPACT_VERIFY_CELERY"
"""The variable that tells processes which are to be killed where their broker is, and which queue is theirs."""


@dataclass(frozen=True)
class _Settings:
    broker: str
    celery_queue: str
    celery_acks_late: bool | None = None
    celery_visibility_timeout: timedelta = timedelta(minutes=5)

    def written(self) -> str:
        return f"{self.celery_queue} {self.broker}"

    @classmethod
    def read(cls, text: str) -> _Settings:
        queue, _, broker = text.partition(" ")
        return cls(broker, queue)


class _Celery:
    """A target, also for the law that kills processes: see :mod:`eventpact_contracts.crash.crashes`."""

    engine_outlives_dispatcher = True
    max_open = 4  # which share the worker

    @contextmanager
    def __call__(self, handlers: Handlers, on_failure: FailureSink) -> Generator[EventDispatcher]:
        """A dispatcher; its worker, in this process, stays for the next with these handlers."""
        told = os.environ.get(_TOLD)
        if told is not None:
            settings = _Settings.read(told)
        else:
            broker = os.environ.get("EVENTPACT_BROKER") or _embedded().url
            settings = _WORKER.settings_for(broker, handlers, on_failure)
        app = make_celery(settings, "web")
        dispatcher = CeleryEventDispatcher(
            app, handlers, on_failure=on_failure, retries=_RETRIES, backoff=_BACKOFF, consume=False
        )
        try:
            yield dispatcher
        finally:
            asyncio.run(dispatcher.aclose(5.0))

    @property
    def unavailable(self) -> Callable[[], AbstractContextManager[None]]:
        """The broker is frozen for the while: of all faults, the one that takes the longest to notice."""
        if "EVENTPACT_BROKER" in os.environ:
            raise AttributeError("a broker that others may use is not frozen")
        return _frozen

    def worker(self, handlers: Handlers, on_failure: FailureSink) -> None:
        """Work, in this process, until it is told to end."""
        app = make_celery(_Settings.read(os.environ[_TOLD]), "worker")
        _tasks(app, handlers, on_failure)
        app.Worker(pool="threads", concurrency=_THREADS, loglevel="ERROR").start()

    @contextmanager
    def engine(self) -> Generator[Callable[[], None] | None]:
        """A broker for processes that are started within; if it is ours, it yields a function that restarts it."""
        with ExitStack() as stack:
            given = os.environ.get("EVENTPACT_BROKER")
            restart = None
            if given is None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="eventpact-"))
                broker = stack.enter_context(EmbeddedBroker(Path(folder)))
                given, restart = broker.url, lambda: _restart(broker)
            settings = _Settings(given, _new_queue())
            os.environ[_TOLD] = settings.written()
            stack.callback(_delete_queues, settings)
            stack.callback(os.environ.pop, _TOLD)
            yield restart


celery: Final = _Celery()


def _restart(broker: EmbeddedBroker) -> None:
    broker.kill()
    broker.start()


@contextmanager
def _frozen() -> Generator[None]:
    pid = _embedded().pid  # which the server itself tells, so long as it answers
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
    # Events that were refused in doubt may have been sent, and are handled now.
    deadline = time.monotonic() + _STOPS_WITHIN
    while _WORKER.is_busy() and time.monotonic() < deadline:
        threading.Event().wait(_TICK)
    _WORKER.recover()


def _new_queue() -> str:
    return f"eventpact-verify-{uuid4().hex}"


def _delete_queues(settings: _Settings) -> None:
    app, name = make_celery(settings, "web"), settings.celery_queue
    waiting = (retry_queue(name, attempt).name for attempt in range(2, _RETRIES + 2))
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        for queue in (name, f"{name}-warm-up.nowhere", dead_queue_name(name), *waiting):
            channel.queue_delete(queue)


class _Worker:
    """The worker of this process: one at a time, as two share Celery's event loop, and read each other's messages."""

    def __init__(self) -> None:
        self._serving: tuple[str, Handlers, FailureSink] | None = None
        self._settings = _Settings("", "")
        self._listening: EventTasks | None = None
        self.recover: Callable[[], None] = lambda: None
        """Returns once the worker, whose connections broke, works again and has opened all that it ever will."""
        self._running = ExitStack()

    def settings_for(self, url: str, handlers: Handlers, on_failure: FailureSink) -> _Settings:
        """Return where a worker with these handlers listens."""
        if self._serves(url, handlers, on_failure):
            return self._settings
        settings = _Settings(url, _new_queue())
        app = make_celery(settings, "worker")
        listening = _tasks(app, handlers, on_failure)  # refuses impossible handlers, before all else
        self.stop()
        self.recover = _warm_up(app, listening)
        self._running.enter_context(_worker(app))
        self.recover()
        atexit.unregister(self._end)
        atexit.register(self._end)  # last, so that it is called before the broker is stopped
        self._listening = listening
        self._serving, self._settings = (url, handlers, on_failure), settings
        return settings

    def stop(self) -> None:
        """End the worker, if there is one. Whoever wants to run another in this process does this first."""
        self._serving = None
        self._running.close()
        if self._listening is not None:
            listening, self._listening = self._listening, None
            listening.close(5.0)
            _delete_queues(self._settings)

    def is_busy(self) -> bool:
        """Return whether there is anything in the queue, or in the hands of the worker."""
        url = self._settings.broker.replace("redis+socket:", "unix:")  # as redis-py spells it
        with redis.Redis.from_url(url) as client:
            return bool(client.exists(self._settings.celery_queue) or state.reserved_requests or state.active_requests)

    def _end(self) -> None:
        """Python ends: there are no more threads to close a dispatcher with, and nothing to save."""
        self._running.close()
        if self._listening is not None:
            _delete_queues(self._settings)

    def _serves(self, url: str, handlers: Handlers, on_failure: FailureSink) -> bool:
        if self._serving is None:
            return False
        known_url, known_handlers, known_sink = self._serving
        return known_url == url and known_handlers is handlers and known_sink == on_failure


_WORKER: Final = _Worker()
stop_worker: Final = _WORKER.stop


def recover_worker() -> None:
    """Wait until the worker of this process works again."""
    _WORKER.recover()


def _tasks(app: Celery, handlers: Handlers, on_failure: FailureSink) -> EventTasks:
    return EventTasks(app, handlers, on_failure=on_failure, retries=_RETRIES, backoff=_BACKOFF)


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


def _warm_up(app: Celery, listening: EventTasks) -> Callable[[], None]:
    """Let a worker that runs open its threads now, and a connection for retries for each.

    Opened later, they would be taken for a dispatcher's leaks (law L4).
    """
    name = f"{app.conf.task_default_queue}-warm-up"
    nowhere = f"{name}.nowhere"
    together = threading.Barrier(_THREADS + 1, timeout=_STOPS_WITHIN)

    def put(connection: BrokerConnection) -> None:
        together.wait()
        connection.producer.publish({}, routing_key=nowhere)

    @app.task(name=name, shared=False)
    def work() -> None:
        listening.publisher.use(put, name)

    def warm_up() -> None:
        for number in range(_THREADS):
            app.send_task(name, countdown=None if number else 0.01)  # one as a retry comes, which has a way of its own
        together.wait()
        app.close()  # the connection that these were sent over

    return warm_up


def _leave_logging_alone(**_: object) -> None:
    """Nothing: it is set up already."""


@cache
def _embedded() -> EmbeddedBroker:
    folder = Path(tempfile.mkdtemp(prefix="eventpact-"))
    broker = EmbeddedBroker(folder)
    broker.start()
    atexit.register(shutil.rmtree, folder)
    atexit.register(broker.stop)
    return broker
