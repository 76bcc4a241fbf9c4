"""What the tests of the outbox share: databases of their own, handlers, dispatchers on a loop in another thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from eventpact.domain.dispatcher import EventDispatcher, FailureSink, Handlers
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.outbox_dispatcher import OutboxEventDispatcher
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

LEASE = timedelta(seconds=5)  # longer than a busy machine keeps a thread from the database
ADDRESS = "ada@example.com"  # in exceptions, and never in a log


@dataclass(frozen=True, kw_only=True)
class Counted(DomainEvent):
    number: int = 0


def url_of(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


class Recorder:
    """A plain handler that keeps what it received, waits at its gate, and fails the first ``failures`` times."""

    def __init__(self, failures: int = 0) -> None:
        self.numbers: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self._failures = failures

    def handle(self, event: Counted) -> None:
        self.numbers.append(event.number)
        assert self.gate.wait(20)
        if len(self.numbers) <= self._failures:
            raise ValueError(ADDRESS)


class AsyncRecorder(Recorder):
    """The same, as an ``async def``."""

    async def handle(self, event: Counted) -> None:  # type: ignore[override]
        self.numbers.append(event.number)
        assert await asyncio.to_thread(self.gate.wait, 20)
        if len(self.numbers) <= self._failures:
            raise ValueError(ADDRESS)


class Background:
    """An event loop in a thread, and the dispatchers that were built on it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="home-loop")
        self._thread.start()
        self._opened: list[EventDispatcher] = []

    def call(self, work: Callable[[], Any]) -> Any:
        async def on_loop() -> Any:
            result = work()
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(30)

    def outbox(
        self,
        handlers: Mapping[type, Any],
        database: Database,
        inner: str = "asyncio",
        store: OutboxStore | None = None,
        **options: Any,
    ) -> OutboxEventDispatcher:
        options = {"lease": LEASE, "poll": 0.05, "retries": 0} | options
        dispatcher: OutboxEventDispatcher = self.call(
            lambda: OutboxEventDispatcher(handlers, INNER[inner], store or OutboxStore(database), **options)
        )
        self._opened.append(dispatcher)
        return dispatcher

    def close(self, dispatcher: EventDispatcher, timeout: float = 5.0) -> tuple[DomainEvent, ...]:
        left: tuple[DomainEvent, ...] = self.call(lambda: dispatcher.aclose(timeout))
        return left

    def end(self) -> None:
        for dispatcher in self._opened:
            self.close(dispatcher)
        self.call(self._loop.shutdown_default_executor)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _asyncio(handlers: Handlers, on_failure: FailureSink) -> EventDispatcher:
    return AsyncioEventDispatcher(handlers, on_failure=on_failure)


def _sync(handlers: Handlers, on_failure: FailureSink) -> EventDispatcher:
    return SyncEventDispatcher(handlers, on_failure=on_failure)


INNER = {"asyncio": _asyncio, "sync": _sync}
