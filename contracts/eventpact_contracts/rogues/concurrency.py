"""Rogues that are right as long as one thing happens after the other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from eventpact.domain.dispatcher import DispatchError, FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.dispatching.failures import FailureReporter
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact_contracts.rogues.handlers import NEVER_HANDLED
from eventpact_contracts.rogues.rogue import rogue
from eventpact_contracts.rogues.sound.pass_through import AsyncPassedHandler, LoopPassThrough, PassThrough, Route

__all__: list[str] = []

_C1 = {
    "C3": "it says of every order what C1 says of threads",
    "L1": "threads dispatch in its scripts too",
    "L3": "threads dispatch in its scripts too",
    "G1": "threads dispatch in its scripts too",
    "G4": "threads dispatch in its scripts too",
    "R5": "an event that a thread lost had handlers of some kind",
    **dict.fromkeys(("R1", "R3", "I2", "I3", "G2"), "threads dispatch in its scripts too"),
}


@rogue("C1", "was", also=_C1, settle_timeout=0.3)
class Racy(PassThrough):
    """One field for all threads holds the event that is being dispatched."""

    current: DomainEvent

    def dispatch(self, event: DomainEvent) -> None:
        self.current = event
        time.sleep(0)  # lets another thread in
        super().dispatch(self.current)


@rogue(
    "C1",
    "dispatch raised RuntimeError",
    also={
        **_C1,
        "A5": "where no loop runs, a DispatchError is owed",
        "C2": "a plain handler that dispatches does so on a thread",
        "A3": "closed, it raises that as well",
        "R4": "an event without a handler is refused like the others",
    },
    defect="dispatch from a worker thread raises for want of a loop",
)
class Homesick(LoopPassThrough):
    """It asks for the running loop, which another thread does not have."""

    def accept(self, event: DomainEvent, route: Route) -> None:
        asyncio.get_running_loop()
        super().accept(event, route)


@rogue(
    "C1",
    "Non-thread-safe operation",
    also={"A5": "where it cannot accept, a DispatchError is owed", "L1": "what it has taken half-way is returned"},
)
class CountingOnAnyLoop(LoopPassThrough):
    """A loop that runs is its own, it thinks: a thread is one without a loop."""

    def prepare(self) -> None:
        self.loop = asyncio.get_running_loop()

    def accept(self, event: DomainEvent, route: Route) -> None:
        if asyncio._get_running_loop() in (None, self.loop):
            super().accept(event, route)
        else:
            self.loop.call_soon(super().accept, event, route)


class _Nesting(PassThrough):
    """Tells whether a plain handler is running on this thread."""

    def prepare(self) -> None:
        self.local = threading.local()

    @property
    def inside(self) -> bool:
        return getattr(self.local, "inside", False)

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        before = self.inside
        self.local.inside = before or not subscription.is_async
        try:
            yield
        finally:
            self.local.inside = before


@rogue(
    "C2",
    "RecursionError",
    also={
        "A5": "deep in a cascade it raises that, where a DispatchError is owed",
        "I5": "an interruption goes through the handler that dispatched",
        "R5": "an interruption breaks off the handler that dispatched",
    },
)
class Recursive(_Nesting):
    """Events that a handler dispatches are handled on the handler's stack."""

    def accept(self, event: DomainEvent, route: Route) -> None:
        if not self.inside or any(each.is_async for each in route):
            super().accept(event, route)
            return
        for each in route:
            try:
                self.deliver(each, event)
            except RecursionError:  # there is no room to report it in
                raise
            except Exception as exception:  # noqa: BLE001 - reported
                self.on_failure(FailedDelivery(event, each.handler, exception, attempts=1))


@rogue("C2", "though little was pending")
class NotReentrant(_Nesting):
    """A handler cannot dispatch, it says, and that would be accepted of a full queue."""

    def accept(self, event: DomainEvent, route: Route) -> None:
        if route and self.inside:
            raise DispatchError("a handler is running")
        super().accept(event, route)


_next: ContextVar[list[DomainEvent] | None] = ContextVar("overwriting_next", default=None)


@rogue(
    "C2",
    "never received",
    also=dict.fromkeys(("A2", "G1", "L1", "L3", "R1", "R5"), "a cascade loses events in its scripts too"),
    defect="a nested dispatch overwrites the queue and loses a pending event",
    settle_timeout=0.3,
)
class Overwriting(PassThrough):
    """A nested dispatch sets the queue instead of adding to it."""

    def accept(self, event: DomainEvent, route: Route) -> None:
        if (queue := _next.get()) is not None:
            queue[:] = [event]
            return
        token = _next.set(queue := [])
        try:
            super().accept(event, route)
            while queue:
                super().accept(queue.pop(), route)
        finally:
            _next.reset(token)


@rogue("C3", "does not hold on this schedule", also={"C2": "cascades have schedules, too"}, settle_timeout=0.5)
class Lucky(LoopPassThrough):
    """An event older than the last that a handler has had is taken for a duplicate.

    On the usual event loop tasks start in the order in which they were made, so this never happens.
    """

    def prepare(self) -> None:
        self.home = threading.get_ident()
        self.numbers: dict[UUID, int] = {}
        self.latest: dict[str, int] = {}

    def accept(self, event: DomainEvent, route: Route) -> None:
        if threading.get_ident() == self.home:
            self.numbers[event.event_id] = len(self.numbers)
        super().accept(event, route)

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        handler = f"{subscription.event_type.__name__} {subscription.key}"
        number = self.numbers.get(event.event_id, -1)
        if 0 <= number < self.latest.get(handler, 0):
            return
        self.latest[handler] = max(number, self.latest.get(handler, 0))
        await super().deliver_async(subscription, event)


@rogue(
    "C3",
    "does not hold on this schedule",
    also={"A3": "closing begins a turn later", "I3": "what has not begun is cancelled, and reported"},
    settle_timeout=0.5,
)
class Hurried(LoopPassThrough):
    """Closing gives every task one turn to start, and cancels those that have not.

    On the usual event loop one turn is enough.
    """

    def prepare(self) -> None:
        self.home = threading.get_ident()
        self.here: set[UUID] = set()
        self.started: set[asyncio.Task[Any] | None] = set()

    def dispatch(self, event: DomainEvent) -> None:
        super().dispatch(event)
        if threading.get_ident() == self.home:
            self.here.add(event.event_id)

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        self.started.add(asyncio.current_task())
        await super().deliver_async(subscription, event)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        closing = asyncio.ensure_future(super().aclose(timeout))
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - self.started:
            coroutine: Any = task.get_coro()
            if coroutine.__qualname__ != AsyncPassedHandler.handle.__qualname__:
                continue
            if coroutine.cr_frame.f_locals["event"].event_id in self.here:
                task.cancel()
        return await closing


class _StartingLater(AsyncioEventDispatcher):
    def _start(self, delivery: Any) -> None:
        assert self._home is not None
        self._home.call_soon(super()._start, delivery)

    async def _close(self, timeout: float) -> tuple[DomainEvent, ...]:
        self._start_posted()
        await asyncio.sleep(0)
        return await super()._close(timeout)


@rogue("C3", "aclose", also={"L1": "it says of the usual order what C3 says of every one"})
class TrustingOneTurn(LoopPassThrough):
    """Closing gives the loop one turn, in which whatever was posted before must have begun."""

    within = _StartingLater


@rogue("C3", "does not hold on this schedule", also={"I3": "a thread may end as closing does"})
class ReportingInATask(LoopPassThrough):
    """Failures are reported by tasks, which closing cancels when all deliveries have ended."""

    def prepare(self) -> None:
        self.reports: set[asyncio.Task[None]] = set()

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        async def report() -> None:
            FailureReporter(self.on_failure).report(failed)

        self.reports.add(asyncio.get_running_loop().create_task(report()))

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        undelivered = await super().aclose(timeout)
        for task in self.reports:
            task.cancel()
        return undelivered


@rogue("R1", "never received it", also=NEVER_HANDLED, settle_timeout=0.2)
class ClosingWhenIdle(PassThrough):
    """A connection that nobody has used for a second is closed, and the next event goes into the closed one."""

    def prepare(self) -> None:
        self.used = time.monotonic()

    def accept(self, event: DomainEvent, route: Route) -> None:
        before, self.used = self.used, time.monotonic()
        if self.used - before < 1.0:
            super().accept(event, route)


_LEFT: ContextVar[int] = ContextVar("left", default=1 << 30)
"""The number of events that the handler which runs here may still dispatch."""


@rogue(
    "C2",
    r"received Priced \w+, 1 deep",
    also={"R1": "what is dropped is never received", "G1": "what is dropped has not settled"},
    settle_timeout=0.2,
)
class Rationing(PassThrough):
    """A handler that dispatches more than a hundred events must be one that does not end: the rest is dropped."""

    def accept(self, event: DomainEvent, route: Route) -> None:
        _LEFT.set(_LEFT.get() - 1)
        if _LEFT.get() >= 0:
            super().accept(event, route)

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        token = _LEFT.set(100)
        try:
            yield
        finally:
            _LEFT.reset(token)


_BEHIND: ContextVar[list[DomainEvent] | None] = ContextVar("behind", default=None)
"""The events behind the one that is being delivered."""


@rogue(
    "R1",
    "never received it",
    also={**NEVER_HANDLED, "A2": "what it adds while closing is refused by another's dispatch"},
    settle_timeout=0.2,
)
class Lingering(PassThrough):
    """Whoever has the context of a handler adds to its cascade, also when that has ended."""

    def accept(self, event: DomainEvent, route: Route) -> None:
        if (behind := _BEHIND.get()) is not None:
            behind.append(event)
            return
        behind = [event]
        token = _BEHIND.set(behind)
        try:
            while behind:
                super().accept(behind.pop(0), route)
        finally:
            _BEHIND.reset(token)
