"""Dispatcher over an asyncio queue: four workers take deliveries from it, on the loop on which it was built."""

from __future__ import annotations

import asyncio
from typing import Final

from kit.good.base import Job
from kit.good.on_loop import OnLoop

from eventpact.domain.dispatcher import Delivery, FailureSink, Guarantees, Handlers, Ordering

__all__ = ["AsyncioQueueDispatcher"]

_WORKERS: Final = 4


class AsyncioQueueDispatcher(OnLoop):
    """Puts each delivery into a queue of the loop, whose workers start with the first event."""

    guarantees = Guarantees(blocks_caller=False, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.NONE)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self._queue: asyncio.Queue[Job] = asyncio.Queue()
        self._started = False

    def _take(self, jobs: list[Job]) -> None:
        if not self._started:
            self._started = True
            for _ in range(_WORKERS):
                self._spawn(self._work())
        for job in jobs:
            self._queue.put_nowait(job)

    async def _work(self) -> None:
        while True:
            job = await self._queue.get()
            # Not awaited itself, because a handler may raise the cancellation that would end the worker.
            await asyncio.wait([self._start(job)])
