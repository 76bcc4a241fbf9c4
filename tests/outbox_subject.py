"""An outbox, as the contract suite opens it: with another process's relay beside it, and killed in real processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from pathlib import Path

import sqlalchemy as sa

from eventpact.domain.dispatcher import EventDispatcher, FailureSink, Handlers
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.database import Database
from eventpact.infrastructure.outbox_dispatcher import OutboxEventDispatcher
from eventpact.infrastructure.outbox_store import OutboxStore
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

Engine = Callable[[Handlers, FailureSink], EventDispatcher]


def over_asyncio(handlers: Handlers, on_failure: FailureSink) -> EventDispatcher:
    return AsyncioEventDispatcher(handlers, on_failure=on_failure)


def over_sync(handlers: Handlers, on_failure: FailureSink) -> EventDispatcher:
    return SyncEventDispatcher(handlers, on_failure=on_failure)


@cache
def _template() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/template.db")
        database.migrate()
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.exec_driver_sql("BEGIN")
        database.close()
        return Path(folder, "template.db").read_bytes()


@contextmanager
def home_loop() -> Generator[asyncio.AbstractEventLoop]:
    """A loop in a thread of its own, as that of a server is to the threads of its requests."""
    loop = asyncio.new_event_loop()
    stopping = threading.Event()

    def run() -> None:
        while not stopping.is_set():
            with suppress(KeyboardInterrupt, SystemExit):  # a handler's, which its dispatcher has reported
                loop.run_forever()

    thread = threading.Thread(target=run, name="home-loop")
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result()
        stopping.set()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Outbox:
    """Opens outboxes on new databases."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._path = Path()

    @contextmanager
    def open(self, handlers: Handlers, on_failure: FailureSink) -> Iterator[EventDispatcher]:
        folder = Path(tempfile.mkdtemp(prefix="eventpact-"))
        self._path = folder / "outbox.db"
        self._path.write_bytes(_template())
        database = Database(f"sqlite:///{self._path}")

        async def build() -> OutboxEventDispatcher:
            return OutboxEventDispatcher(
                handlers,
                self._engine,
                OutboxStore(database),
                on_failure=on_failure,
                lease=timedelta(seconds=5),
                poll=0.05,
            )

        with home_loop() as loop:
            # What the dispatcher leaves when it closes, this one delivers: the database is an engine that outlives it.
            opened = [asyncio.run_coroutine_threadsafe(build(), loop).result() for _ in range(2)]
            try:
                yield opened[0]
            finally:
                for dispatcher in opened:
                    asyncio.run_coroutine_threadsafe(dispatcher.aclose(1.0), loop).result()
        database.close()
        shutil.rmtree(folder)

    @contextmanager
    def unavailable(self) -> Iterator[None]:
        """Another process holds the database."""
        engine = sa.create_engine(f"sqlite:///{self._path}")
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN EXCLUSIVE")
            yield
            connection.rollback()
        engine.dispose()


_FILE = "EVENTPACT_TEST_OUTBOX"


class _Crashing:
    """What the suite starts in fresh processes and kills."""

    def __init__(self, engine: Engine, *, sweeps: bool = True) -> None:
        self._engine = engine
        self._sweeps = sweeps

    @contextmanager
    def __call__(self, handlers: Handlers, on_failure: FailureSink) -> Iterator[EventDispatcher]:
        database = Database(f"sqlite:///{os.environ[_FILE]}")
        with home_loop() as loop:

            async def build() -> OutboxEventDispatcher:
                return OutboxEventDispatcher(
                    handlers,
                    self._engine,
                    OutboxStore(database),
                    on_failure=on_failure,
                    lease=timedelta(seconds=0.5 if self._sweeps else 3600),
                    poll=0.05,
                )

            dispatcher = asyncio.run_coroutine_threadsafe(build(), loop).result()
            yield dispatcher
            asyncio.run_coroutine_threadsafe(dispatcher.aclose(1.0), loop).result()
        database.close()

    @contextmanager
    def engine(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "outbox.db")
            path.write_bytes(_template())
            os.environ[_FILE] = str(path)
            try:
                yield
            finally:
                del os.environ[_FILE]


crashing_over_asyncio = _Crashing(over_asyncio)
crashing_over_sync = _Crashing(over_sync)
crashing_without_sweeper = _Crashing(over_asyncio, sweeps=False)
