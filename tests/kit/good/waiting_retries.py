"""Dispatcher over a heap of due times: a delivery that waits for its next attempt when it closes is undelivered."""

from __future__ import annotations

import heapq
import threading
import time
from itertools import count

from kit.good.base import Base, Job

from eventpact.domain.dispatcher import Delivery, FailureSink, Guarantees, Handlers, Ordering

__all__ = ["DelayedRetryDispatcher"]


class DelayedRetryDispatcher(Base):
    """Serves deliveries in the order in which they are due, in one thread, and waits long before it tries again."""

    guarantees = Guarantees(blocks_caller=False, retries=2, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.NONE)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self._due: list[tuple[float, int, Job]] = []
        self._numbers = count()
        self._earlier = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._stopped = False

    def _accept(self, jobs: list[Job]) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="delayed-retry", daemon=True)
            thread.start()
            self._thread = thread
        for job in jobs:
            self._push(job, 0.0)

    def _again(self, job: Job, seconds: float) -> None:
        self._push(job, 4 * seconds)

    def _push(self, job: Job, seconds: float) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), job))
        self._earlier.notify()

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            self._attempt(job)

    def _next(self) -> Job | None:
        with self._earlier:
            while not self._stopped:
                seconds = self._due[0][0] - time.monotonic() if self._due else None
                if seconds is not None and seconds <= 0:
                    return heapq.heappop(self._due)[2]
                self._earlier.wait(seconds)
            return None

    async def _release(self, *, busy: bool) -> None:
        with self._earlier:
            self._stopped = True
            self._earlier.notify()
        if self._thread is not None and not busy:
            self._thread.join()
