"""Dispatcher over a priority queue: handlers that were registered first are served first."""

from __future__ import annotations

import math
import threading
from itertools import count
from queue import PriorityQueue

from kit.good.base import Base, Job

from eventpact.domain.dispatcher import Delivery, FailureSink, Guarantees, Handlers, Ordering

__all__ = ["PriorityDispatcher"]


class PriorityDispatcher(Base):
    """Serves a priority queue in one thread.

    The priority belongs to the handler, and a sequence number breaks ties, so that each handler sees its events in
    order although one handler overtakes another.
    """

    guarantees = Guarantees(blocks_caller=False, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self._queue: PriorityQueue[tuple[float, int, Job | None]] = PriorityQueue()
        self._numbers = count()
        self._priorities: dict[int, int] = {}
        for route in self._table.values():
            for subscription in route:
                self._priorities.setdefault(id(subscription.handler), len(self._priorities))
        self._thread: threading.Thread | None = None

    def _accept(self, jobs: list[Job]) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="priorities", daemon=True)
            thread.start()
            self._thread = thread
        for job in jobs:
            self._queue.put((self._priorities[id(job.subscription.handler)], next(self._numbers), job))

    def _serve(self) -> None:
        while (job := self._queue.get()[2]) is not None:
            self._attempt(job)

    async def _release(self, *, busy: bool) -> None:
        self._queue.put((-math.inf, next(self._numbers), None))
        if self._thread is not None and not busy:
            self._thread.join()
