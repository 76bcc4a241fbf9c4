"""Dispatcher over a thread pool: each delivery is a call in one of its threads, and nobody waits for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from kit.good.base import Base, Job

from eventpact.domain.dispatcher import Delivery, FailureSink, Guarantees, Handlers, Ordering

__all__ = ["ThreadPoolDispatcher"]


class ThreadPoolDispatcher(Base):
    """Submits each delivery to a pool; the order in which they run is not promised."""

    guarantees = Guarantees(blocks_caller=False, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.NONE)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self._pool = ThreadPoolExecutor(32)

    def _accept(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._pool.submit(self._attempt, job)

    async def _release(self, *, busy: bool) -> None:
        self._pool.shutdown(wait=not busy, cancel_futures=True)
