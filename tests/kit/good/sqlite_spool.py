"""Dispatcher over a SQLite table in memory: one thread takes the oldest row, delivers it and deletes it."""

from __future__ import annotations

import json
import sqlite3
import threading

from kit.good.base import Base, Job

from eventpact.domain.dispatcher import Delivery, FailureSink, Guarantees, Handlers, Ordering

__all__ = ["SqliteSpoolDispatcher"]


class SqliteSpoolDispatcher(Base):
    """Stores each event as JSON, so that handlers receive an equal event and not the same object."""

    guarantees = Guarantees(blocks_caller=False, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self._spooled: dict[int, Job] = {}
        self._more = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._spool: sqlite3.Connection | None = None

    def _accept(self, jobs: list[Job]) -> None:
        if self._spool is None:
            self._spool = sqlite3.connect(":memory:", check_same_thread=False)
            self._spool.execute("CREATE TABLE spool (id INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL)")
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="spool", daemon=True)
            thread.start()
            self._thread = thread
        body = json.dumps(jobs[0].event.to_dict())
        with self._spool:
            rows = [self._spool.execute("INSERT INTO spool (event) VALUES (?)", (body,)).lastrowid or 0 for _ in jobs]
        self._spooled.update(zip(rows, jobs, strict=True))
        self._more.notify()

    def _serve(self) -> None:
        while (row := self._oldest()) is not None:
            number, body = row
            job = self._spooled.pop(number)
            job.received = type(job.event).from_dict(json.loads(body))
            self._attempt(job)

    def _oldest(self) -> tuple[int, str] | None:
        """Take the oldest row, once there is one; None when the dispatcher is closed."""
        with self._more:
            while True:
                if self._spool is None:
                    return None
                row: tuple[int, str] | None = self._spool.execute("SELECT * FROM spool ORDER BY id LIMIT 1").fetchone()
                if row is not None:
                    with self._spool:
                        self._spool.execute("DELETE FROM spool WHERE id = ?", row[:1])
                    return row
                self._more.wait()

    async def _release(self, *, busy: bool) -> None:
        with self._more:
            if self._spool is not None:
                self._spool.close()
                self._spool = None
            self._more.notify()
        if self._thread is not None and not busy:
            self._thread.join()
