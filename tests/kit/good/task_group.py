"""Dispatcher over a task group: each delivery is a task of one group, which ends when the dispatcher is closed."""

from __future__ import annotations

import asyncio

from kit.good.base import Job, current_job
from kit.good.on_loop import OnLoop

from eventpact.domain.dispatcher import Delivery, FailureSink, Guarantees, Handlers, Ordering

__all__ = ["TaskGroupDispatcher"]


class TaskGroupDispatcher(OnLoop):
    """Starts each delivery in an asyncio.TaskGroup. A delivery never raises, because that would cancel the others."""

    guarantees = Guarantees(blocks_caller=False, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.NONE)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self._inbox: asyncio.Queue[Job | None] = asyncio.Queue()
        self._owner: asyncio.Task[None] | None = None

    def _take(self, jobs: list[Job]) -> None:
        if self._owner is None:
            self._owner = self._spawn(self._own())
        for job in jobs:
            self._inbox.put_nowait(job)

    async def _own(self) -> None:
        async with asyncio.TaskGroup() as group:
            while (job := await self._inbox.get()) is not None:
                group.create_task(self._attempt_here(job), context=job.context)

    async def _end_tasks(self) -> None:
        if current_job.get() is None:
            await super()._end_tasks()  # cancels the owner, and with it the group
        else:
            self._inbox.put_nowait(None)  # the handler that closes is in the group, which ends after it
