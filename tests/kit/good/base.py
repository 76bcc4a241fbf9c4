"""Bookkeeping that the dispatchers of this folder share: deliveries, attempts, failures and closing."""

from __future__ import annotations

import asyncio
import inspect
import threading
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

from eventpact.domain import dispatcher as domain
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import FailureReporter, undelivered
from eventpact.infrastructure.dispatching.subscriptions import Subscription, SubscriptionTable, close_unawaited

__all__ = ["Base", "Job", "Subscription", "current_job"]

_GRACE_SECONDS: Final = 0.5
_FIRST_WAIT_SECONDS: Final = 0.03


@dataclass(eq=False, slots=True)
class Job:
    """One delivery: an accepted event for one subscription.

    Attributes:
        event: the event as it was dispatched, which is reported and returned.
        received: an equal event, where the mechanism carries a copy; the handler receives it.
        in_doubt: whether ``dispatch`` raised ``DispatchUncertainError``, so that the event is not accepted.
        cancel: cancels the attempt that is running, where it can be cancelled.
    """

    event: DomainEvent
    subscription: Subscription
    context: Context
    received: DomainEvent | None = None
    attempts: int = 0
    running: bool = False
    in_doubt: bool = False
    cancel: Callable[[], object] | None = None

    def handle(self) -> Awaitable[None] | None:
        return self.subscription.handle(self.event if self.received is None else self.received)


current_job: ContextVar[Job | None] = ContextVar("current_job", default=None)


class Base(domain.EventDispatcher):
    """A dispatcher without an engine: a subclass hands each job to its mechanism, which calls ``_attempt``."""

    guarantees: domain.Guarantees
    async_handlers: ClassVar[bool] = True
    engine_outlives_dispatcher: ClassVar[bool] = False
    needs_loop: ClassVar[bool] = False

    def __init__(self, handlers: domain.Handlers, *, on_failure: domain.FailureSink | None = None) -> None:
        self._table = SubscriptionTable(handlers)
        for subscription in (each for route in self._table.values() for each in route):
            _check(subscription, async_handlers=self.async_handlers)
        self._failures = FailureReporter(on_failure)
        # Reentrant, because a finalizer or a signal handler may dispatch while this thread holds it.
        self._lock = threading.RLock()
        self._jobs: dict[Job, None] = {}
        self._reporting = 0
        self._closing = self._given_up = False
        self._changed: Callable[[], object] = bool

    def dispatch(self, event: DomainEvent) -> None:
        route = self._table.route(event)
        with self._lock:
            if self._closing:
                raise domain.DispatcherClosedError(f"{type(event).__name__} was refused: the dispatcher is closed")
            jobs = [Job(event, subscription, copy_context()) for subscription in route]
            if jobs:
                self._jobs.update(dict.fromkeys(jobs))
                self._hand_over(event, jobs)

    def _hand_over(self, event: DomainEvent, jobs: list[Job]) -> None:
        try:
            self._accept(jobs)
        except domain.DispatchUncertainError:
            raise
        except Exception as error:
            for job in jobs:  # a worker that has one already waits for the lock, and finds that it is gone
                del self._jobs[job]
            if isinstance(error, domain.DispatchError):
                raise
            raise domain.DispatchError(f"{type(event).__name__} was refused: {error}") from error

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        changed, loop, own = asyncio.Event(), asyncio.get_running_loop(), current_job.get()
        with self._lock:
            if self._closing:
                return ()
            self._closing = True
            self._changed = partial(_threadsafe, loop, changed.set)
        try:
            if not await self._until(lambda job: job is own, changed, timeout if self._can_settle() else 0.0):
                with self._lock:
                    self._given_up = True
                    for job in self._jobs:
                        if job.cancel is not None and job is not own:
                            job.cancel()
                await self._until(lambda job: job is own or not job.running, changed, _GRACE_SECONDS)
        finally:
            with self._lock:
                self._given_up, self._changed = True, bool
                left = [job.event for job in self._jobs if not job.in_doubt]
                busy = bool(self._reporting) or own is not None or any(job.running for job in self._jobs)
                self._jobs.clear()
            await self._release(busy=busy)
        return undelivered(left)

    async def _until(self, ignored: Callable[[Job], bool], changed: asyncio.Event, timeout: float) -> bool:
        """Wait until each job is settled or ignored, and each failure is reported."""

        def settled() -> bool:
            with self._lock:
                return not self._reporting and all(map(ignored, self._jobs))

        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not settled():
                    await changed.wait()
                    changed.clear()
        return settled()

    def _attempt(self, job: Job) -> BaseException | None:
        """Make one attempt in this thread, and return the exception or interruption that it ended with."""
        if not self._begin(job):
            return None
        try:
            job.context.run(self._call, job)
        except BaseException as exception:  # noqa: BLE001 - becomes the failure of the delivery
            return self._end(job, exception) or exception
        self._end(job)
        return None

    def _call(self, job: Job) -> None:
        current_job.set(job)
        if inspect.isawaitable(result := job.handle()):
            _run(self._finish(job, result))

    async def _finish(self, job: Job, result: Awaitable[None]) -> None:
        """Await the result of a handler, so that closing can cancel it."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        with self._lock:
            if self._given_up:  # a task that is cancelled now would be so even if the handler succeeded at once
                close_unawaited(result)
                raise asyncio.CancelledError
            job.cancel = partial(_threadsafe, loop, task.cancel)
        await result

    def _begin(self, job: Job) -> bool:
        with self._lock:
            if job not in self._jobs or self._given_up:
                return False
            job.running = True
            job.attempts += 1
            return True

    def _end(self, job: Job, exception: BaseException | None = None) -> BaseException | None:
        """Settle the job, or hand it over again; return the interruption that the failure sink raised."""
        with self._lock:
            job.running, job.cancel = False, None
            if job not in self._jobs:
                return None  # it was returned as undelivered
            permanent = isinstance(exception, domain.PermanentFailureError)
            again = exception is not None and not permanent and job.attempts <= self.guarantees.retries
            undone = self._given_up and (again or isinstance(exception, asyncio.CancelledError))
            if again and not undone:
                self._again(job, _FIRST_WAIT_SECONDS * 3 ** (job.attempts - 1))
            elif not undone:
                del self._jobs[job]
                self._reporting += exception is not None
            self._changed()
            if exception is None or again or undone:
                return None
        interruption = self._report(domain.FailedDelivery(job.event, job.subscription.handler, exception, job.attempts))
        with self._lock:
            self._reporting -= 1
            self._changed()
        return interruption

    def _report(self, failed: domain.FailedDelivery) -> BaseException | None:
        """Report to the failure sink, and return the interruption that it raised, which is logged."""
        try:
            self._failures.report(failed)
        except BaseException as interruption:  # noqa: BLE001 - it must not end the thread or task of the mechanism
            return interruption
        return None

    @abstractmethod
    def _accept(self, jobs: list[Job]) -> None:
        """Hand the jobs of one event to the mechanism, without blocking. Called under the lock."""

    def _again(self, job: Job, seconds: float) -> None:
        """Hand a job over once more, after a wait. Called under the lock, where ``retries`` is not 0."""
        raise NotImplementedError

    @abstractmethod
    async def _release(self, *, busy: bool) -> None:
        """Stop the mechanism; where it is ``busy``, a handler that cannot be cancelled still runs."""

    def _can_settle(self) -> bool:
        return True


def _check(subscription: Subscription, *, async_handlers: bool) -> None:
    name = f"{type(subscription.handler).__qualname__}, the handler of {subscription.event_type.__name__},"
    if inspect.isgeneratorfunction(subscription.handle) or inspect.isasyncgenfunction(subscription.handle):
        raise domain.RegistrationError(f"{name} has a handle that is a generator; write a function or an async def")
    if subscription.is_async and not async_handlers:
        raise domain.RegistrationError(f"{name} has an async handle, which is not awaited here; write a function")


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end in a fresh event loop; in a fresh thread where a loop runs in this one."""
    if asyncio._get_running_loop() is None:
        asyncio.run(coroutine)
    else:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(copy_context().run, asyncio.run, coroutine).result()


def _threadsafe(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop is closed, so that nobody waits there
        loop.call_soon_threadsafe(callback)
