"""Rogues that accept what they cannot, or refuse badly."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import ClassVar

from eventpact.domain.dispatcher import (
    DispatcherClosedError,
    DispatchError,
    DispatchUncertainError,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact_contracts.rogues.rogue import rogue
from eventpact_contracts.rogues.sound.pass_through import LoopPassThrough, PassThrough, Route

__all__: list[str] = []


_LOST = {
    "L1": "what it took after closing had begun is not conserved",
    "L3": "what it took while it closed is lost",
    "C3": "it says L1 and L3 of every schedule",
}


@rogue("A1", "dispatch accepted it")
class Omnivorous(PassThrough):
    """A non-event has no handlers either, so nothing happens."""

    def dispatch(self, event: DomainEvent) -> None:
        if isinstance(event, DomainEvent):
            super().dispatch(event)


@rogue("A1", "instead of TypeError")
class DuckTyping(PassThrough):
    """It relies on the attributes of an event, and fails where one is missing."""

    def dispatch(self, event: DomainEvent) -> None:
        if not isinstance(event, DomainEvent):
            raise AttributeError("it has no event_id")
        super().dispatch(event)


@rogue("A1", "dispatch accepted it")
class TrustingHandlers(PassThrough):
    """A handler is trusted to dispatch events, and anything else from it finds no handlers."""

    def prepare(self) -> None:
        self.running = threading.local()

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        self.running.is_handler = True
        try:
            yield
        finally:
            self.running.is_handler = False

    def dispatch(self, event: DomainEvent) -> None:
        if isinstance(event, DomainEvent) or not getattr(self.running, "is_handler", False):
            super().dispatch(event)


@rogue("A2", "was refused, and delivered to", settle_timeout=0.5)
class Halfhearted(LoopPassThrough):
    """It starts one handler after the other, and notices in the middle that there is no room."""

    within = staticmethod(partial(AsyncioEventDispatcher, max_pending=500))

    def prepare(self) -> None:
        self.started: set[asyncio.Task[None]] = set()

    def refuse(self, event: DomainEvent, error: DispatchError) -> None:
        if "pending" in str(error):
            first = next(each for each in self.table.route(event) if each.is_async)
            self.started.add(asyncio.ensure_future(self.deliver_async(first, event)))
        raise error


_BOUND = 64


@rogue("A2", "was refused, and delivered to", settle_timeout=0.5)
class FullForOne(LoopPassThrough):
    """Each handler has a queue of its own, and the first has the event when that of the second is full."""

    def prepare(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.waiting: Counter[Subscription] = Counter()
        self.started: list[asyncio.Future[None]] = []

    def accept(self, event: DomainEvent, route: Route) -> None:
        is_full = [self.waiting[subscription] >= _BOUND for subscription in route]
        if any(is_full):
            if not is_full[0]:
                self.started.append(asyncio.ensure_future(self.deliver_async(route[0], event), loop=self.loop))
            raise DispatchError("it is full")
        self.waiting.update(route)
        super().accept(event, route)

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        try:
            yield
        finally:
            self.waiting[subscription] -= 1


@rogue("A2", "was refused, and delivered to", settle_timeout=0.5)
class PuttingLater(LoopPassThrough):
    """Another thread waits for room. It stops waiting in time, and its event is put later."""

    within = staticmethod(partial(AsyncioEventDispatcher, max_pending=40))

    def prepare(self) -> None:
        self.loop, self.waiting = asyncio.get_running_loop(), list[DomainEvent]()

    def refuse(self, event: DomainEvent, error: DispatchError) -> None:
        if "pending" in str(error) and asyncio._get_running_loop() is None:
            self.waiting.append(event)
        raise error

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        yield
        if self.waiting:
            self.loop.call_soon_threadsafe(self.inner.dispatch, self.waiting.pop())


@rogue(
    "A2",
    "was refused, and delivered to",
    also={
        "A3": "nothing is delivered, it says of what was refused because of closing",
        "I1": "who calls handlers himself gets their exceptions",
    },
    defect="handlers run although the sender's request failed",
)
class RunsAnyway(PassThrough):
    """Handlers are called first; whether the event may be taken is asked afterwards."""

    def refuse_closed(self, event: DomainEvent, error: DispatcherClosedError) -> None:
        for subscription in self.table.route(event):
            if not subscription.is_async:
                self.deliver(subscription, event)
        raise error


@rogue("A3", "was accepted", also={**_LOST, "G1": "nobody waits for what is not done"})
class Undead(PassThrough):
    """Closed, it takes events, and does nothing with them."""

    def refuse_closed(self, event: DomainEvent, error: DispatcherClosedError) -> None:
        """Say nothing."""


@rogue("A3", "instead of DispatcherClosedError")
class Brusque(PassThrough):
    """Closed, it fails as it happens."""

    def refuse_closed(self, event: DomainEvent, error: DispatcherClosedError) -> None:
        raise DispatchError("something is wrong") from error


@rogue("A3", "was accepted")
class Reopening(PassThrough):
    """Closing that is cancelled has not happened, so it opens again."""

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        try:
            return await super().aclose(timeout)
        except asyncio.CancelledError:
            PassThrough.__init__(self, self.table, self.on_failure)
            raise


@rogue("A5", "and 2 s are allowed")
class Patient(LoopPassThrough):
    """It hopes that there will be a loop. Once; so that checking it takes no longer than it must."""

    hopes = True

    def refuse(self, event: DomainEvent, error: DispatchError) -> None:
        if self.hopes and "loop" in str(error):
            self.hopes = False
            time.sleep(2.2)  # longer than anybody may be kept waiting
        super().refuse(event, error)


@rogue("A5", "never awaited", also={"L4": "an unawaited coroutine is left behind"})
class Wasteful(LoopPassThrough):
    """It makes coroutines for a loop that does not run."""

    def refuse(self, event: DomainEvent, error: DispatchError) -> None:
        for each in self.table.route(event):
            if each.is_async:
                each.handle(event)
        super().refuse(event, error)


@rogue("A5", "instead of a DispatchError")
class Unwrapped(LoopPassThrough):
    """The error of the event loop reaches the caller as it is."""

    def refuse(self, event: DomainEvent, error: DispatchError) -> None:
        raise RuntimeError("no running event loop") from None


@rogue("A1", "dispatch accepted it")
class Nothing(PassThrough):
    """An object that is false is taken for nothing, unless it is an event."""

    def dispatch(self, event: DomainEvent) -> None:
        if event or isinstance(event, DomainEvent):
            super().dispatch(event)


@rogue(
    "A2",
    "as it was in doubt",
    also={
        "R3": "what is dispatched twice is handled four times",
        "C1": "it is handled four times as well where many dispatch",
        "G2": "handling it again is no retry",
        "L1": "what is in doubt was not accepted, and is returned",
    },
)
class Doubting(PassThrough):
    """It is not sure, and sends everything twice; who dispatches it again has it four times."""

    count = 0

    def accept(self, event: DomainEvent, route: Route) -> None:
        super().accept(event, route)
        self.count += 1
        if route and self.count % 3 == 1:
            super().accept(event, route)
            super().accept(event, route)
            raise DispatchUncertainError("no answer")


@rogue("A3", "was accepted", also=_LOST)
class LateForNobody(PassThrough):
    """The handlers are looked up first, and the closed flag is read afterwards."""

    def accept(self, event: DomainEvent, route: Route) -> None:
        if route:
            super().accept(event, route)


@rogue("A3", "was accepted")
class RememberingTheUnheard(PassThrough):
    """A type that was seen to have no handler is done with at once, whatever the time."""

    def prepare(self) -> None:
        self.unheard: set[type[DomainEvent]] = set()

    def dispatch(self, event: DomainEvent) -> None:
        if type(event) not in self.unheard:
            super().dispatch(event)

    def accept(self, event: DomainEvent, route: Route) -> None:
        super().accept(event, route)
        if not route:
            self.unheard.add(type(event))


@rogue("A5", "with a loop that is stopped")
class LeftForLater(LoopPassThrough):
    """A loop that stands still, and is not closed, will run again, it hopes."""

    def prepare(self) -> None:
        self.home = asyncio.get_running_loop()

    def refuse(self, event: DomainEvent, error: DispatchError) -> None:
        if "does not run" not in str(error) or self.home.is_closed():
            raise error


@rogue(
    "A5",
    "instead of a DispatchError",
    also={
        "C1": "where many dispatch, it raises as well",
        "C2": "where a handler dispatches, it raises as well",
        "L3": "while it closes, it raises as well",
        "I2": "which field it cannot write has nothing to do with who failed",
        "I4": "which field it cannot write has nothing to do with a sink",
        "I1": "an error of its own may look like a handler's",
        "R4": "an event that has no handler is written, too",
        "A3": "closed, it writes first",
    },
)
class Packing(PassThrough):
    """Numbers are written in eight bytes, and a larger one raises the writer's own error."""

    def accept(self, event: DomainEvent, route: Route) -> None:
        struct.pack("q", getattr(event, "number", 0))
        super().accept(event, route)


@rogue("A3", "was accepted", also=_LOST)
class LettingCascadesEnd(LoopPassThrough):
    """It takes events on its loop alone; and what a handler dispatches when it is closed, too."""

    is_closed = False
    inside: ClassVar[ContextVar[bool]] = ContextVar("inside", default=False)

    def accept(self, event: DomainEvent, route: Route) -> None:
        if _running() is None and not self.is_closed:
            raise DispatchError("there is no running event loop")
        super().accept(event, route)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        self.is_closed = True
        return await super().aclose(timeout)

    def refuse_closed(self, event: DomainEvent, error: DispatcherClosedError) -> None:
        if not self.inside.get():
            raise error

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        self.inside.set(True)
        await super().deliver_async(subscription, event)


def _running() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread."""
    with suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None
