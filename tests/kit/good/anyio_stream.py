"""Dispatcher over an anyio memory stream: a task group receives deliveries from it, and sends back what failed."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Final

import anyio
from anyio.abc import TaskGroup
from kit.good.base import Job
from kit.good.on_loop import OnLoop

from eventpact.domain.dispatcher import Delivery, FailureSink, Guarantees, Handlers, Ordering

__all__ = ["AnyioStreamDispatcher"]

_WORKERS: Final = 4


class AnyioStreamDispatcher(OnLoop):
    """Serves a stream by several receivers; a delivery that failed sleeps in the task group before it is sent again."""

    guarantees = Guarantees(blocks_caller=False, retries=2, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.NONE)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self._send, self._receive = anyio.create_memory_object_stream[Job](math.inf)
        self._group: TaskGroup | None = None
        self._serving = False

    def _take(self, jobs: list[Job]) -> None:
        if not self._serving:
            self._serving = True
            self._spawn(self._serve())
        for job in jobs:
            self._send.send_nowait(job)

    def _again(self, job: Job, seconds: float) -> None:
        if self._group is not None:
            with suppress(RuntimeError):  # the loop is ending, so that the delivery waits until it is undelivered
                self._group.start_soon(self._send_later, job, seconds)

    async def _serve(self) -> None:
        async with anyio.create_task_group() as self._group:
            for _ in range(_WORKERS):
                self._group.start_soon(self._work)

    async def _work(self) -> None:
        async for job in self._receive:
            await asyncio.wait([self._start(job)])

    async def _send_later(self, job: Job, seconds: float) -> None:
        await anyio.sleep(seconds)
        await self._send.send(job)

    async def _release(self, *, busy: bool) -> None:
        await super()._release(busy=busy)
        self._send.close()
        self._receive.close()
