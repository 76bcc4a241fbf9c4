"""Rogues that close, and lose something or leave something."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import weakref
from typing import Any

from eventpact.domain.dispatcher import DispatcherClosedError, FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import FailureReporter, undelivered
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact_contracts.rogues.pass_through import Disguise, LoopDisguise
from eventpact_contracts.rogues.rogue import Rogue

__all__ = ["LIFECYCLE"]


class Lossy(Disguise):
    """What could not be settled is cancelled, and forgotten."""

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        await super().aclose(timeout)
        return ()


class Overcautious(Disguise):
    """It returns what was under way when closing began, whatever became of it."""

    def __init__(self, *given: Any) -> None:
        self.under_way: list[DomainEvent] = []
        super().__init__(*given)

    def dispatch(self, event: DomainEvent) -> None:
        self.table.route(event)
        under_way = self.under_way
        under_way.append(event)
        try:
            super().dispatch(event)
        finally:
            under_way.remove(event)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        under_way, self.under_way = self.under_way, []
        return undelivered((*filter(self.table.route, under_way), *await super().aclose(timeout)))


class Unreferenced(LoopDisguise):
    """Only weak references lead to its tasks, so one that nothing else refers to vanishes."""

    def __init__(self, *given: Any) -> None:
        self.tasks: weakref.WeakKeyDictionary[asyncio.Task[None], DomainEvent] = weakref.WeakKeyDictionary()
        self.closing = False
        super().__init__(*given)

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        self.tasks[asyncio.ensure_future(self._handle(subscription, event))] = event

    async def _handle(self, subscription: Subscription, event: DomainEvent) -> None:
        try:
            await super().deliver_async(subscription, event)
        except (Exception, asyncio.CancelledError) as exception:
            if self.closing and isinstance(exception, asyncio.CancelledError):
                raise
            failed = FailedDelivery(event, subscription.handler, exception, attempts=1)
            FailureReporter(self.on_failure).report(failed)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        left = [*await super().aclose(timeout)]
        while self.others() and loop.time() < deadline:  # noqa: ASYNC110 - whoever awaits them refers to them
            await asyncio.sleep(0.001)  # between two looks; the deadline is above
        self.closing = True
        others = self.others()
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        left += [event for task, event in others.items() if task.cancelled()]
        return undelivered(left)

    def others(self) -> dict[asyncio.Task[None], DomainEvent]:
        """What is not done, and not closing itself."""
        own = asyncio.current_task()
        return {task: event for task, event in self.tasks.items() if task is not own and not task.done()}


class Repetitive(Disguise):
    """It keeps what it could not settle, and returns it to everybody who closes it."""

    def __init__(self, *given: Any) -> None:
        self.left: tuple[DomainEvent, ...] = ()
        super().__init__(*given)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        left = await super().aclose(timeout)
        self.left = self.left or left
        return self.left


class Touchy(Disguise):
    """What is closed cannot be closed, it finds."""

    closed = False

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        if self.closed:
            raise RuntimeError("it is closed already")
        self.closed = True
        return await super().aclose(timeout)


class LeakingClose(Disguise):
    """Whether it is closed is asked first, and the event handed over afterwards."""

    closing = False

    def dispatch(self, event: DomainEvent) -> None:
        self.table.route(event)
        if self.closing:
            raise DispatcherClosedError("it is closed")
        time.sleep(0.002)  # something takes its time in between
        try:
            super().dispatch(event)
        except DispatcherClosedError:
            return

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        self.closing = True
        return await super().aclose(timeout)


class Littering(Disguise):
    """It leaves a thread behind, which in time goes by itself."""

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        threading.Thread(target=threading.Event().wait, args=(2.5,), name="rogue-leftover", daemon=True).start()
        return await super().aclose(timeout)


class Ticking(LoopDisguise):
    """A task of its own looks after things in the background, and goes on when there is nothing to look after."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.ticking = asyncio.get_running_loop().create_task(self.tick())

    async def tick(self) -> None:
        while True:  # noqa: ASYNC110 - it waits for nothing
            await asyncio.sleep(0.01)  # a tick


class Unclosed(Disguise):
    """It leaves a connection to the garbage collector."""

    def __init__(self, *given: Any) -> None:
        self.connections: list[socket.socket] = []
        super().__init__(*given)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        self.connections.append(socket.socket())
        return await super().aclose(timeout)


_L1 = {"L3": "what is accepted is conserved also in a race", "C3": "it says L1 of every schedule"}

LIFECYCLE = (
    Rogue(
        "lossy",
        Lossy,
        Lossy.guarantees,
        "L1",
        "aclose did not return it",
        "closing returns nothing, whatever it gave up",
        _L1,
        "shutdown drops what was accepted, silently",
    ),
    Rogue(
        "overcautious",
        Overcautious,
        Overcautious.guarantees,
        "L1",
        "though all its deliveries were settled|before its deadline",
        "closing returns what was pending at its start, also what is settled by its end",
        {"C3": "it says L1 of every schedule"},
    ),
    Rogue(
        "unreferenced",
        Unreferenced,
        Unreferenced.guarantees,
        "L1",
        "GeneratorExit",
        "nobody holds a reference to its tasks",
        {
            "L3": "what vanishes is not conserved, raced or not",
            "C3": "it says L1 of every schedule",
        },
        "tasks are not referenced and vanish in a garbage collection",
        needs_loop=True,
        settle_timeout=0.5,
    ),
    Rogue(
        "repetitive",
        Repetitive,
        Repetitive.guarantees,
        "L2",
        "closing again returned",
        "the undelivered are returned to everybody who closes",
    ),
    Rogue(
        "touchy",
        Touchy,
        Touchy.guarantees,
        "L2",
        "aclose raised RuntimeError",
        "closing twice raises",
    ),
    Rogue(
        "leaking_close",
        LeakingClose,
        LeakingClose.guarantees,
        "L3",
        "aclose did not return it",
        "dispatch asks whether it is closed, and hands over, in two steps",
        {"L1": "what is accepted is conserved, raced or not"},
    ),
    Rogue(
        "littering",
        Littering,
        Littering.guarantees,
        "L4",
        "the thread rogue-leftover",
        "closing leaves a thread",
    ),
    Rogue(
        "ticking",
        Ticking,
        Ticking.guarantees,
        "L4",
        "the task Ticking.tick",
        "closing leaves a task",
        needs_loop=True,
    ),
    Rogue(
        "unclosed",
        Unclosed,
        Unclosed.guarantees,
        "L4",
        "open socket",
        "closing leaves a connection",
    ),
)
