"""Dispatcher over a thread whose answers are lost now and then, so that its caller is in doubt."""

from __future__ import annotations

import threading
from itertools import count
from queue import SimpleQueue
from typing import Final

from kit.good.base import Base, Job

from eventpact.domain.dispatcher import Delivery, DispatchUncertainError, FailureSink, Guarantees, Handlers, Ordering

__all__ = ["DoubtfulDispatcher"]

_EVERY: Final = 5


class DoubtfulDispatcher(Base):
    """Raises ``DispatchUncertainError`` for every fifth event, and delivers it nevertheless.

    Dispatching such an event again makes deliveries of their own, no more than two dispatches make. An event in doubt
    was not accepted, so closing does not return it.
    """

    guarantees = Guarantees(blocks_caller=False, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self._queue: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._numbers = count(1)
        self._thread: threading.Thread | None = None

    def _accept(self, jobs: list[Job]) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="doubtful", daemon=True)
            thread.start()
            self._thread = thread
        in_doubt = next(self._numbers) % _EVERY == 0
        for job in jobs:
            job.in_doubt = in_doubt
        self._queue.put(jobs)
        if in_doubt:
            raise DispatchUncertainError(f"there was no answer for {type(jobs[0].event).__name__}; dispatch it again")

    def _serve(self) -> None:
        while (jobs := self._queue.get()) is not None:
            for job in jobs:
                self._attempt(job)

    async def _release(self, *, busy: bool) -> None:
        self._queue.put(None)
        if self._thread is not None and not busy:
            self._thread.join()
