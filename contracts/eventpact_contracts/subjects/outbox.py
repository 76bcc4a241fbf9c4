"""``eventpact verify outbox``: our outbox, on SQLite, with another relay beside it, and killed in real processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from eventpact.domain.dispatcher import EventDispatcher, FailureSink, Handlers
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.outbox_dispatcher import OutboxEventDispatcher
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

__all__ = ["outbox", "over_sync", "without_sweeper"]

Engine = Callable[[Handlers, FailureSink], EventDispatcher]

_FILE: Final = "EVENTPACT_VERIFY_OUTBOX"
"""The variable that tells processes which are to be killed where their database is."""

# A killed process leaves its writes to the system, so memory does as well as a disk, and makes no law wait for one.
_FOLDER: Final = next((folder for folder in ("/dev/shm",) if os.access(folder, os.W_OK)), None)  # noqa: S108

_RETRIES: Final = 2
_BACKOFF_SECONDS: Final = 0.4

_LEASE: Final = timedelta(seconds=5)
"""Longer than a busy machine keeps a thread from the database."""


class _Outbox:
    """A target, also for the law that kills processes: see :mod:`eventpact_contracts.crash.crashes`."""

    settle_timeout = 8.0
    engine_outlives_dispatcher = True
    max_open = 6

    def __init__(self, engine: Engine, *, lease: timedelta = timedelta(seconds=0.5)) -> None:
        self._engine = engine
        self._lease = lease
        self._path = Path()

    @contextmanager
    def __call__(self, handlers: Handlers, on_failure: FailureSink) -> Generator[EventDispatcher]:
        """An outbox on a new database or, in a process that is to be killed, on the one that it is told."""
        if _FILE in os.environ:
            with self._relaying(Path(os.environ[_FILE]), handlers, on_failure, self._lease, relays=1) as dispatcher:
                yield dispatcher
            return
        # The other relay delivers the rest after the dispatcher has closed: the database outlives it.
        with (
            _new_database() as self._path,
            self._relaying(self._path, handlers, on_failure, _LEASE, relays=2) as dispatcher,
        ):
            yield dispatcher

    @contextmanager
    def unavailable(self) -> Generator[None]:
        """Another process holds the database."""
        engine = sa.create_engine(f"sqlite:///{self._path}")
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN EXCLUSIVE")
            yield
            connection.rollback()
        engine.dispose()

    @contextmanager
    def engine(self) -> Generator[None]:
        """A database for processes that are started within."""
        with _new_database() as path:
            os.environ[_FILE] = str(path)
            try:
                yield
            finally:
                del os.environ[_FILE]

    @contextmanager
    def _relaying(
        self, path: Path, handlers: Handlers, on_failure: FailureSink, lease: timedelta, *, relays: int
    ) -> Generator[EventDispatcher]:
        database = Database(f"sqlite:///{path}")

        async def build() -> OutboxEventDispatcher:
            store = OutboxStore(database)
            return OutboxEventDispatcher(
                handlers,
                self._engine,
                store,
                on_failure=on_failure,
                retries=_RETRIES,
                backoff=_BACKOFF_SECONDS,
                lease=lease,
                poll=0.25,
            )

        with _home_loop() as loop:
            opened = [asyncio.run_coroutine_threadsafe(build(), loop).result() for _ in range(relays)]
            try:
                yield opened[0]
            finally:
                for dispatcher in opened:
                    asyncio.run_coroutine_threadsafe(dispatcher.aclose(1.0), loop).result()
        database.close()


def _over(engine: Callable[..., EventDispatcher]) -> Engine:
    return lambda handlers, on_failure: engine(handlers, on_failure=on_failure)


outbox: Final = _Outbox(_over(AsyncioEventDispatcher))
over_sync: Final = _Outbox(_over(SyncEventDispatcher))
without_sweeper: Final = _Outbox(_over(AsyncioEventDispatcher), lease=timedelta(hours=1))
"""Nobody takes over the deliveries of a killed process: the canary, which law G3 must convict."""


@contextmanager
def _new_database() -> Generator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="eventpact-", dir=_FOLDER))
    path = folder / "outbox.db"
    path.write_bytes(_template())
    try:
        yield path
    finally:
        shutil.rmtree(folder)


@cache
def _template() -> bytes:
    """A migrated database that is empty: migrating takes longer than most scripts."""
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
def _home_loop() -> Generator[asyncio.AbstractEventLoop]:
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
