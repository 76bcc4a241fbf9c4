"""Rogues that close, and lose something or leave something."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import threading
import weakref
from collections.abc import Awaitable
from contextlib import suppress

from eventpact.domain.dispatcher import DispatcherClosedError, DispatchError, FailedDelivery, Ordering
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import FailureReporter, undelivered
from eventpact.infrastructure.dispatching.subscriptions import Subscription, must_await
from eventpact_contracts.rogues.rogue import rogue
from eventpact_contracts.rogues.sound.pass_through import LoopPassThrough, PassThrough, Route

__all__: list[str] = []


_LOST_IN_A_RACE = {"L1": "what is accepted is conserved, raced or not", "G1": "nobody waits for what is lost"}
_L1 = {"L3": "what is accepted is conserved also in a race", "C3": "it says L1 of every schedule"}


@rogue("L1", "aclose did not return it", also=_L1, defect="shutdown drops what was accepted, silently")
class Lossy(PassThrough):
    """Unsettled deliveries are cancelled, and forgotten."""

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        await super().aclose(timeout)
        return ()


@rogue(
    "L3",
    "was dispatched while the dispatcher closed|never received it",
    also={"L1": "what is accepted is conserved, raced or not"},
)
class Posting(LoopPassThrough):
    """It leaves what a thread dispatches to its loop, which may come to it after closing has begun."""

    def prepare(self) -> None:
        self.loop, self.closing = asyncio.get_running_loop(), False

    def dispatch(self, event: DomainEvent) -> None:
        if asyncio._get_running_loop() is self.loop:
            super().dispatch(event)
            return
        self.table.route(event)
        if self.closing:
            raise DispatcherClosedError("the dispatcher is closed")
        try:
            self.loop.call_soon_threadsafe(self.enter, event)
        except RuntimeError as error:
            raise DispatchError("the event loop is closed") from error

    def enter(self, event: DomainEvent) -> None:
        """Hand on an event that a thread has left here."""
        with suppress(DispatcherClosedError):
            super().dispatch(event)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        self.closing = True
        return await super().aclose(timeout)


@rogue("L1", "as undelivered, though|before its deadline", also={"C3": "it says L1 of every schedule"})
class Overcautious(PassThrough):
    """It returns the events that were under way when closing began, settled or not."""

    def prepare(self) -> None:
        self.under_way: list[DomainEvent] = []

    def accept(self, event: DomainEvent, route: Route) -> None:
        under_way = self.under_way
        under_way.append(event)
        try:
            super().accept(event, route)
        finally:
            under_way.remove(event)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        under_way, self.under_way = self.under_way, []
        return undelivered((*filter(self.table.route, under_way), *await super().aclose(timeout)))


@rogue(
    "L1",
    "GeneratorExit",
    also={
        "L2": "closing again finds nothing of what vanished",
        "L3": "what vanishes is not conserved, raced or not",
        "C3": "it says L1 of every schedule",
    },
    defect="tasks are not referenced and vanish in a garbage collection",
    settle_timeout=0.5,
)
class Unreferenced(LoopPassThrough):
    """Only weak references lead to its tasks, so one that nothing else refers to vanishes."""

    closing = False

    def prepare(self) -> None:
        self.tasks: weakref.WeakKeyDictionary[asyncio.Task[None], DomainEvent] = weakref.WeakKeyDictionary()

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
        """Tasks that are not done, without the one that closes."""
        own = asyncio.current_task()
        return {task: event for task, event in self.tasks.items() if task is not own and not task.done()}


@rogue("L2", "closing again returned")
class Repetitive(PassThrough):
    """It keeps the undelivered events, and returns them to everybody who closes it."""

    left: tuple[DomainEvent, ...] = ()

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        left = await super().aclose(timeout)
        self.left = self.left or left
        return self.left


@rogue("L2", "aclose raised RuntimeError")
class Touchy(PassThrough):
    """Closing a second time raises."""

    closed = False

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        if self.closed:
            raise RuntimeError("it is closed already")
        self.closed = True
        return await super().aclose(timeout)


@rogue("L3", "aclose did not return it", also=_LOST_IN_A_RACE)
class LeakingClose(PassThrough):
    """The closed flag is read first, and the event handed over afterwards."""

    closing = False

    def accept(self, event: DomainEvent, route: Route) -> None:
        if self.closing:
            raise DispatcherClosedError("it is closed")
        super().accept(event, route)

    def refuse_closed(self, event: DomainEvent, error: DispatcherClosedError) -> None:
        """Lose the event."""

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        self.closing = True
        return await super().aclose(timeout)


@rogue("L4", "the thread rogue-leftover")
class Littering(PassThrough):
    """It leaves a thread behind, which in time goes by itself."""

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        threading.Thread(target=threading.Event().wait, args=(2.5,), name="rogue-leftover", daemon=True).start()
        return await super().aclose(timeout)


@rogue("L4", "the task Ticking.tick")
class Ticking(LoopPassThrough):
    """A task of its own looks after things in the background, and goes on when there is nothing to look after."""

    def prepare(self) -> None:
        self.ticking = asyncio.get_running_loop().create_task(self.tick())

    async def tick(self) -> None:
        while True:  # noqa: ASYNC110 - it waits for nothing
            await asyncio.sleep(0.01)  # a tick


@rogue("L4", "open socket")
class Unclosed(PassThrough):
    """It leaves a connection to the garbage collector."""

    def prepare(self) -> None:
        self.connections: list[socket.socket] = []

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        self.connections.append(socket.socket())
        return await super().aclose(timeout)


@rogue("L4", "a timer")
class ForgettingItsTimers(PassThrough):
    """It looks at something in a while, also when it is closed."""

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        threading.Timer(0.2, self.prepare).start()
        return await super().aclose(timeout)


@rogue("L4", "1 open file")
class KeepingAFile(PassThrough):
    """Its journal stays open."""

    journals: tuple[int, ...] = ()

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        self.journals += (os.open(__file__, os.O_RDONLY),)
        return await super().aclose(timeout)

    def __del__(self) -> None:
        for journal in self.journals:
            os.close(journal)


@rogue("L4", "the thread")
class BuildingTwice(PassThrough):
    """A thread is begun with the first event, and each of two first callers begins one."""

    thread: threading.Thread | None = None

    def prepare(self) -> None:
        self.over = threading.Event()

    def accept(self, event: DomainEvent, route: Route) -> None:
        if self.thread is None:
            over = threading.Event()
            thread = threading.Thread(target=over.wait, args=(2.5,), daemon=True)
            thread.start()
            self.over, self.thread = over, thread
        super().accept(event, route)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        self.over.set()
        return await super().aclose(timeout)


@rogue(
    "L1",
    "aclose",
    also=dict.fromkeys(("L2", "L3", "C3"), "closing has to end also where it is raced, or closed again"),
)
class WaitingForTheStubborn(LoopPassThrough):
    """It waits for what it has cancelled, however long that goes on."""

    def prepare(self) -> None:
        self.tasks: set[asyncio.Task[object]] = set()

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await super().deliver_async(subscription, event)
        finally:
            self.tasks.discard(task)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        left = await super().aclose(timeout)
        await asyncio.gather(*self.tasks - {asyncio.current_task()}, return_exceptions=True)
        return left


@rogue(
    "L1",
    "neither among the undelivered nor settled",
    also={
        "L3": "what it takes while it closes goes on afterwards",
        "L4": "its threads go on, too",
        "C3": "it says L1 of every schedule",
        "C1": "threads of its own end when they like",
    },
)
class WaitingForNothing(PassThrough):
    """Each event has a daemon thread, and closing sets a flag."""

    guarantees = dataclasses.replace(PassThrough.guarantees, blocks_caller=False, ordering=Ordering.NONE)
    closed = False

    def accept(self, event: DomainEvent, route: Route) -> None:
        if self.closed:
            raise DispatcherClosedError("it is closed")
        if route:
            threading.Thread(target=self._run, args=(event,), daemon=True).start()

    def _run(self, event: DomainEvent) -> None:
        with suppress(KeyboardInterrupt, SystemExit):
            self.inner.dispatch(event)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        self.closed = True
        return ()


@rogue("L4", "left behind", also={"I3": "a future that is awaited from outside raises a CancelledError of its own"})
class Shielding(LoopPassThrough):
    """It shields the awaitable of a plain handler, which nobody cancels when it closes."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        result = super().deliver(subscription, event)
        return None if result is None or not must_await(result) else _shielded(result)


async def _shielded(result: Awaitable[None]) -> None:
    await asyncio.shield(result)
