"""Rogues that promise more than they keep, and some that keep more than they promise."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from inspect import isawaitable
from typing import ClassVar, Final
from uuid import UUID

from eventpact.domain.dispatcher import EventDispatcher, FailedDelivery, Handlers, Ordering, PermanentFailureError
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.cascades import Cascade
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
from eventpact_contracts.checking.outcomes import Outcome
from eventpact_contracts.rogues.pass_through import LoopPassThrough, PassThrough, Route
from eventpact_contracts.rogues.rogue import rogue

__all__ = ["Retrying"]

_WAITS: Final = (0.001, 0.004)


class Retrying(PassThrough):
    """A good one that tries twice again, in the process."""

    guarantees = dataclasses.replace(PassThrough.guarantees, retries=len(_WAITS))
    waits: ClassVar[tuple[float, ...]] = _WAITS
    deadline = float("inf")
    """Past it, a plain handler, which nobody can cancel, is not tried again."""

    def prepare(self) -> None:
        self.attempts: dict[tuple[UUID, Subscription], int] = {}

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        waits = self.waits_of(subscription)
        for number, wait in enumerate(waits):
            try:
                result = self.attempt(subscription, event)
            except Exception as error:
                if self.is_final(error):
                    raise
                time.sleep(wait)  # the back-off, in the caller's time
            else:
                attempt = partial(self.attempt, subscription, event)
                return _retried(waits[number:], self.is_final, attempt, result) if isawaitable(result) else None
            if time.monotonic() > self.deadline:
                raise asyncio.CancelledError("closing gives it up")
        return self.attempt(subscription, event)

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        await _retried(self.waits_of(subscription), self.is_final, partial(self.attempt_async, subscription, event))

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        self.deadline = min(self.deadline, time.monotonic() + timeout)
        return await super().aclose(timeout)

    def is_final(self, error: Exception) -> bool:
        """Return whether it does not try again after this."""
        return isinstance(error, PermanentFailureError)

    def waits_of(self, subscription: Subscription) -> tuple[float, ...]:
        """Return how long to wait before each time that it tries again."""
        return self.waits

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        delivery = event.event_id, subscription
        self.attempts[delivery] = self.attempts.get(delivery, 0) + 1
        yield

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        attempts = self.attempts.get((failed.event.event_id, subscription), failed.attempts)
        super().report(subscription, dataclasses.replace(failed, attempts=self.counted(failed, attempts)))

    def counted(self, failed: FailedDelivery, attempts: int) -> int:
        """Return how many attempts it reports."""
        return attempts


async def _retried(
    waits: tuple[float, ...],
    is_final: Callable[[Exception], bool],
    attempt: Callable[[], Awaitable[None] | None],
    begun: Awaitable[None] | None = None,
) -> None:
    """Await the attempt that has begun, or a first one, and after each wait another one, until one succeeds."""
    for wait in waits:
        try:
            await _done(attempt() if begun is None else begun)
        except Exception as error:
            if is_final(error):
                raise
            await asyncio.sleep(wait)
        else:
            return
        begun = None
    await _done(attempt())


async def _done(result: Awaitable[None] | None) -> None:
    if isawaitable(result):
        await result


@rogue("G1", "returned while", also={"I5": "whoever says that the caller waits owes it the interruption"})
class Hasty(LoopPassThrough):
    """It declares that callers wait, and they do not."""

    guarantees = dataclasses.replace(LoopPassThrough.guarantees, blocks_caller=True)


@rogue("G1", "never seen to fail", expected=Outcome.UNCLAIMED, settle_timeout=0.5)
class Unhurried(PassThrough):
    """It declares that callers do not wait, and they do."""

    guarantees = dataclasses.replace(PassThrough.guarantees, blocks_caller=False)


@rogue("G2", "do not grow")
class Impatient(Retrying):
    """It tries again, and at once, each time."""

    waits: ClassVar[tuple[float, ...]] = (0.004, 0.001)


@rogue("G2", "are promised")
class LookingForTheCause(Retrying):
    """It looks for a permanent failure among the causes, too: one that a handler has dealt with ends the retries."""

    def is_final(self, error: Exception) -> bool:
        return super().is_final(error) or isinstance(error.__cause__, PermanentFailureError)


@rogue("G2", "had succeeded", also={"I3": "attempts that were none of the delivery's own are counted"})
class Thorough(Retrying):
    """It tries the whole event again, with the handlers that had succeeded."""

    def prepare(self) -> None:
        super().prepare()
        self.succeeded: dict[UUID, list[Subscription]] = {}

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        had = self.succeeded.setdefault(event.event_id, [])
        for each in had if self.attempts.get((event.event_id, subscription)) else ():
            with super().around(each, event):
                each.handle(event)
        with super().around(subscription, event):
            yield

    def attempt(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        result = super().attempt(subscription, event)
        if result is None:
            self.succeeded[event.event_id].append(subscription)
        return result


@rogue(
    "G2",
    r"attempt\(s\) that failed",
    also={
        "I2": "what failed once, and was not tried again, is missing",
        "L1": "what failed before its last attempt has not settled",
    },
    defect="a failed event is acknowledged in a `finally`",
)
class AcknowledgesAnyway(Retrying):
    """It acknowledges in a finally, so that a failed delivery is not tried again."""

    waits: ClassVar[tuple[float, ...]] = ()


@rogue("G2", r"attempt\(s\) that failed", defect="retry behaves differently in the in-process engine")
class Uneven(Retrying):
    """It tries ``async def`` handlers again, and plain ones not, which no caller can know."""

    def waits_of(self, subscription: Subscription) -> tuple[float, ...]:
        return self.waits if subscription.is_async else ()


@rogue("G2", "and 1 are allowed")
class Secondguessing(Retrying):
    """It tries again, and does not say so."""

    guarantees = PassThrough.guarantees


@rogue("G4", "dispatched first")
class Shuffling(LoopPassThrough):
    """It declares an order, and has threads and tasks that know none."""

    guarantees = dataclasses.replace(LoopPassThrough.guarantees, ordering=Ordering.FIFO)


class _CascadesFirst(SyncEventDispatcher):
    def _enqueue(self, cascade: Cascade | None, event: DomainEvent) -> None:
        super()._enqueue(cascade, event)
        if cascade is not None:
            cascade.queue.rotate(1)


@rogue("G4", "dispatched first")
class JumpingTheQueue(PassThrough):
    """An event of a handler goes to the head of the queue: of two, the second comes first."""

    def build(self, handlers: Handlers) -> EventDispatcher:
        return _CascadesFirst(handlers, on_failure=self.reported)


@rogue("G4", "never seen to fail", expected=Outcome.UNCLAIMED)
class Orderly(PassThrough):
    """It declares no order, and keeps it."""

    guarantees = dataclasses.replace(PassThrough.guarantees, ordering=Ordering.NONE)


@rogue(
    "G1",
    "returned while",
    also={
        "C1": "its queue is one for all",
        "A2": "it refuses to one caller an event of another that it delivered in part",
        "I5": "who leaves an event to others never sees the interruption",
    },
)
class SharingBacklog(PassThrough):
    """One queue for all threads: who finds another at work leaves the event to it, and returns."""

    busy = False

    def prepare(self) -> None:
        self.backlog: deque[DomainEvent] = deque()
        self.lock = threading.Lock()

    def accept(self, event: DomainEvent, route: Route) -> None:
        with self.lock:
            self.backlog.append(event)
            if self.busy:
                return
            self.busy = True
        try:
            while self.backlog:
                super().accept(self.backlog.popleft(), route)
        finally:
            self.busy = False


@rogue("G2", "had failed for good", also={"I3": "it counts attempts that should not have been"})
class OnlyExactlyPermanent(Retrying):
    """Of permanent failures it knows the class, and not its subclasses."""

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        with super().around(subscription, event):
            try:
                yield
            except PermanentFailureError as error:
                if type(error) is not PermanentFailureError:
                    raise _AnotherError(error) from error
                raise

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        exception = failed.exception
        original = exception.args[0] if isinstance(exception, _AnotherError) else exception
        super().report(subscription, dataclasses.replace(failed, exception=original))


class _AnotherError(Exception):
    """A failure that is not known to be permanent."""


@rogue("I3", r"attempt\(s\) instead of", also={"G2": "the number of attempts is its, too"})
class FinalIsFirst(Retrying):
    """A failure for good is not tried again, so there was one attempt."""

    def counted(self, failed: FailedDelivery, attempts: int) -> int:
        return 1 if isinstance(failed.exception, PermanentFailureError) else attempts
