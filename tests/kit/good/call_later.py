"""Dispatcher over the timers of an event loop: ``loop.call_later`` starts the next attempt, after growing waits."""

from __future__ import annotations

import asyncio

from kit.good.base import Job
from kit.good.on_loop import OnLoop

from eventpact.domain.dispatcher import Delivery, FailureSink, Guarantees, Handlers, Ordering

__all__ = ["TimerDispatcher"]


class TimerDispatcher(OnLoop):
    """Starts each delivery in a task, and up to three times again by a timer."""

    guarantees = Guarantees(blocks_caller=False, retries=3, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.NONE)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self._timers: dict[Job, asyncio.TimerHandle] = {}

    def _take(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._start(job)

    def _again(self, job: Job, seconds: float) -> None:
        self._timers[job] = asyncio.get_running_loop().call_later(seconds, self._ring, job)

    def _ring(self, job: Job) -> None:
        del self._timers[job]
        self._start(job)

    async def _release(self, *, busy: bool) -> None:
        for timer in self._timers.values():
            timer.cancel()
        await super()._release(busy=busy)
