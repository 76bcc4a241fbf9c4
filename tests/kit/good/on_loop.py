"""Base of dispatchers whose deliveries are tasks of one event loop, on which they are built."""

from __future__ import annotations

import asyncio
import inspect
from abc import abstractmethod
from asyncio import _get_running_loop as running_loop  # None where no loop runs, without an exception
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, ClassVar

from kit.good.base import Base, Job, current_job

from eventpact.domain.dispatcher import DispatchError, FailureSink, Handlers

__all__ = ["OnLoop"]


class OnLoop(Base):
    """Hands each job to its home, the loop that it is built on; a plain handler runs in a thread."""

    needs_loop: ClassVar[bool] = True

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self._home = running_loop()
        self._threads = ThreadPoolExecutor(32)
        self._tasks: dict[asyncio.Task[Any], Job | None] = {}

    def _accept(self, jobs: list[Job]) -> None:
        self._home = self._home or running_loop()
        if self._home is None:
            raise DispatchError("no event loop is running; build the dispatcher on the loop that is to run handlers")
        self._home.call_soon_threadsafe(self._take, jobs)

    @abstractmethod
    def _take(self, jobs: list[Job]) -> None:
        """Hand the jobs of one event to the mechanism. Called on the loop."""

    def _spawn(
        self, coroutine: Coroutine[Any, Any, None], job: Job | None = None, context: Context | None = None
    ) -> asyncio.Task[None]:
        """Start a task that ends when the dispatcher is closed."""
        task = asyncio.get_running_loop().create_task(coroutine, context=context)
        self._tasks[task] = job
        task.add_done_callback(self._tasks.pop)
        return task

    def _start(self, job: Job) -> asyncio.Task[None]:
        """Make one attempt in a task of its own, which runs in the context of the caller."""
        return self._spawn(self._attempt_here(job), job, job.context)

    async def _attempt_here(self, job: Job) -> None:
        if not self._begin(job):
            return
        current_job.set(job)
        try:
            if job.subscription.is_async:
                result: Any = job.handle()
            else:
                loop = asyncio.get_running_loop()
                result = await loop.run_in_executor(self._threads, copy_context().run, _called, job)
            if isinstance(result, _Raised):
                raise result.exception
            if inspect.isawaitable(result):
                await self._finish(job, result)
        except BaseException as exception:  # noqa: BLE001 - becomes the failure of the delivery
            self._end(job, exception)
        else:
            self._end(job)

    async def _release(self, *, busy: bool) -> None:
        home, current = self._home, running_loop()
        if home is current:
            await self._end_tasks()
        elif home is not None and home.is_running():
            ending = self._end_tasks()
            try:
                ended = asyncio.run_coroutine_threadsafe(ending, home)
            except RuntimeError:  # it was closed at this moment
                ending.close()
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.wrap_future(ended), 0.3)
        self._threads.shutdown(wait=not busy, cancel_futures=True)

    async def _end_tasks(self) -> None:
        own, own_job = asyncio.current_task(), current_job.get()
        tasks = [task for task, job in self._tasks.items() if task is not own and (job is None or job is not own_job)]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=0.2)

    def _can_settle(self) -> bool:
        return self._home is None or self._home.is_running()


class _Raised:
    """An exception that a plain handler raised: returned, because a future cannot carry every exception."""

    def __init__(self, exception: BaseException) -> None:
        self.exception = exception


def _called(job: Job) -> object:
    try:
        return job.handle()
    except BaseException as exception:  # noqa: BLE001 - raised again on the loop
        return _Raised(exception)
