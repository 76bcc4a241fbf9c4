"""Dispatcher over a bounded queue and four threads: it refuses an event for which there is no room."""

from __future__ import annotations

import threading
from queue import Queue
from typing import Final

from kit.good.base import Base, Job

from eventpact.domain.dispatcher import Delivery, DispatchError, FailureSink, Guarantees, Handlers, Ordering

__all__ = ["BoundedDispatcher"]

_MAX_WAITING: Final = 400
_THREADS: Final = 4


class BoundedDispatcher(Base):
    """Takes an event if there is room for all of its deliveries; else it refuses the event, and does not wait."""

    guarantees = Guarantees(blocks_caller=False, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.NONE)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        # A handler of a type with more than 400 handlers could never be served otherwise.
        self._room = max(_MAX_WAITING, *map(len, self._table.values()), 0)
        self._queue: Queue[Job | None] = Queue(self._room + _THREADS)
        self._threads: list[threading.Thread] = []

    def _accept(self, jobs: list[Job]) -> None:
        # Only threads that take something out run beside this, so there can but be more room than it seems.
        if self._queue.qsize() + len(jobs) > self._room:
            raise DispatchError(f"{self._room} deliveries wait already; dispatch the event again later")
        while len(self._threads) < _THREADS:
            thread = threading.Thread(target=self._serve, name="bounded", daemon=True)
            thread.start()
            self._threads.append(thread)
        for job in jobs:
            self._queue.put_nowait(job)

    def _serve(self) -> None:
        while (job := self._queue.get()) is not None:
            self._attempt(job)

    async def _release(self, *, busy: bool) -> None:
        for _ in self._threads:
            self._queue.put_nowait(None)  # there are places for these beyond the room for deliveries
        for thread in self._threads:
            if not busy:
                thread.join()
