"""Dispatcher over one thread and a queue: deliveries run one after the other, in the order of dispatching."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from kit.good.base import Base, Job

from eventpact.domain.dispatcher import Delivery, FailureSink, Guarantees, Handlers, Ordering

__all__ = ["SingleThreadDispatcher"]


class SingleThreadDispatcher(Base):
    """Puts each delivery into a queue that one thread serves; the thread starts with the first event."""

    guarantees = Guarantees(blocks_caller=False, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def _accept(self, jobs: list[Job]) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="single-thread", daemon=True)
            thread.start()  # raises where there are too many threads; the next event tries again
            self._thread = thread
        for job in jobs:
            self._queue.put(job)

    def _serve(self) -> None:
        while (job := self._queue.get()) is not None:
            self._attempt(job)

    async def _release(self, *, busy: bool) -> None:
        self._queue.put(None)
        if self._thread is not None and not busy:
            self._thread.join()
