"""Good dispatchers, which the rogues are made of: pass-throughs, of which one retries and one survives crashes.

A pass-through hands everything on as it is, so it is as good as the dispatcher within. It works in small steps, and
each rogue overrides the one that it breaks. The suite convicts none of these.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from inspect import isawaitable
from pathlib import Path
from typing import ClassVar, Final
from uuid import UUID

from eventpact.domain.dispatcher import (
    Delivery,
    DispatcherClosedError,
    DispatchError,
    EventDispatcher,
    FailedDelivery,
    FailureSink,
    Handlers,
    PermanentFailureError,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.dispatching.subscriptions import Subscription, SubscriptionTable
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

__all__ = ["AsyncPassedHandler", "Journaling", "LoopPassThrough", "PassThrough", "PassedHandler", "Retrying", "Route"]

Route = tuple[Subscription, ...]


class PassedHandler:
    """A plain handler, delivered to by the pass-through."""

    def __init__(self, outer: PassThrough, subscription: Subscription) -> None:
        self.outer, self.subscription = outer, subscription

    def handle(self, event: DomainEvent) -> Awaitable[None] | None:
        return self.outer.deliver(self.subscription, event)


class AsyncPassedHandler(PassedHandler):
    """An ``async def`` handler, delivered to by the pass-through."""

    async def handle(self, event: DomainEvent) -> None:
        await self.outer.deliver_async(self.subscription, event)


class PassThrough(EventDispatcher):
    """A good dispatcher that blocks its caller."""

    guarantees = SyncEventDispatcher.guarantees
    within: ClassVar[Callable[..., EventDispatcher]] = SyncEventDispatcher

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        self.table = SubscriptionTable(handlers)
        self.on_failure = on_failure
        self.prepare()
        passed = {event_type: [*map(self.passed_handler, self.route_of(event_type))] for event_type in self.table}
        self.inner = self.within(passed, on_failure=self.reported)

    def prepare(self) -> None:
        """Set up the attributes of a rogue, before there is a dispatcher within."""

    def passed_handler(self, subscription: Subscription) -> PassedHandler:
        """The handler that the dispatcher within has in the place of a subscription's own."""
        return (AsyncPassedHandler if subscription.is_async else PassedHandler)(self, subscription)

    def route_of(self, event_type: type[DomainEvent]) -> Route:
        """The subscriptions that receive events of this type."""
        return self.table[event_type]

    def dispatch(self, event: DomainEvent) -> None:
        self.accept(event, self.table.route(event))

    def accept(self, event: DomainEvent, route: Route) -> None:
        """Hand on an event, whose subscriptions have been looked up."""
        try:
            self.inner.dispatch(event)
        except DispatcherClosedError as error:
            self.refuse_closed(event, error)
        except DispatchError as error:
            self.refuse(event, error)

    def refuse_closed(self, event: DomainEvent, error: DispatcherClosedError) -> None:
        """Refuse an event because closing has begun."""
        raise error

    def refuse(self, event: DomainEvent, error: DispatchError) -> None:
        """Refuse an event for another reason."""
        raise error

    def received(self, subscription: Subscription, event: DomainEvent) -> Sequence[DomainEvent]:
        """The events that a handler receives for one: each is an attempt."""
        return (event,)

    def around(self, subscription: Subscription, event: DomainEvent) -> AbstractContextManager[object]:
        """The block in which an attempt is made."""
        return nullcontext()

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        """Deliver to a plain handler."""
        result = None
        for each in self.received(subscription, event):
            result = self.attempt(subscription, each)
        return result

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        """Deliver to an ``async def`` handler."""
        for each in self.received(subscription, event):
            await self.attempt_async(subscription, each)

    def attempt(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        with self.around(subscription, event):
            return subscription.handle(event)
        return None

    async def attempt_async(self, subscription: Subscription, event: DomainEvent) -> None:
        with self.around(subscription, event):
            result = subscription.handle(event)
            if isawaitable(result):
                await result

    def reported(self, failed: FailedDelivery) -> None:
        """Take a report of the dispatcher within."""
        assert isinstance(failed.handler, PassedHandler)
        subscription = failed.handler.subscription
        self.report(subscription, dataclasses.replace(failed, handler=subscription.handler))

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        """Report a failed delivery."""
        self.on_failure(failed)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        return await self.inner.aclose(timeout)


class LoopPassThrough(PassThrough):
    """A good dispatcher on an event loop."""

    guarantees = AsyncioEventDispatcher.guarantees
    needs_loop = True
    within: ClassVar[Callable[..., EventDispatcher]] = AsyncioEventDispatcher


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
                self.rest(wait)
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

    def rest(self, seconds: float) -> None:
        """Wait before the next attempt."""
        time.sleep(seconds)  # the back-off, in the caller's time

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


_FOLDER: Final = "EVENTPACT_ROGUE_JOURNAL"


class Journaling(LoopPassThrough):
    """A good one that survives crashes: a file for each delivery, written before it is accepted, removed when settled.

    The files are in a folder that the environment names; without one there is nothing to survive, and none is written.
    """

    guarantees = dataclasses.replace(LoopPassThrough.guarantees, delivery=Delivery.AT_LEAST_ONCE)

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        super().__init__(handlers, on_failure)
        self.folder = Path(os.environ[_FOLDER]) if _FOLDER in os.environ else None
        for event in self.left():
            super().dispatch(event)

    @staticmethod
    @contextmanager
    def engine() -> Generator[None]:
        """Give the processes that are started a folder to share."""
        with tempfile.TemporaryDirectory(prefix="eventpact-rogue-") as folder:
            os.environ[_FOLDER] = folder
            try:
                yield
            finally:
                del os.environ[_FOLDER]

    def accept(self, event: DomainEvent, route: Route) -> None:
        for subscription in route:
            if (file := self._file(subscription, event)) is not None:
                half = file.with_suffix(".half")
                half.write_text(json.dumps(event.to_dict()), encoding="utf-8")
                half.rename(file)
        super().accept(event, route)

    def received(self, subscription: Subscription, event: DomainEvent) -> Sequence[DomainEvent]:
        settled = (file := self._file(subscription, event)) is not None and not file.exists()
        return () if settled else (event,)

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        yield
        self.settle(subscription, event)

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        super().report(subscription, failed)
        self.settle(subscription, failed.event)

    def settle(self, subscription: Subscription, event: DomainEvent) -> None:
        """Nothing more is to be done."""
        if (file := self._file(subscription, event)) is not None:
            file.unlink(missing_ok=True)

    def _file(self, subscription: Subscription, event: DomainEvent) -> Path | None:
        if self.folder is None:
            return None
        kind = type(event)
        return self.folder / f"{kind.__name__} {event.event_id} {self.table[kind].index(subscription)}.json"

    def left(self) -> list[DomainEvent]:
        """Events that a process before this one had accepted, and not settled."""
        files = sorted(self.folder.glob("*.json")) if self.folder is not None else []
        found = {
            file.name.split()[1]: self.table.named(file.name.split()[0]).from_dict(json.loads(file.read_text("utf-8")))
            for file in files
        }
        return list(found.values())
