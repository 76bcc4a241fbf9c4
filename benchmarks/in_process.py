"""What dispatching in process costs: ours beside a bare call, a bare task, and well-known event buses."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import abxbus
import blinker
import lato
import pluggy
import pyee
from timing import AsyncTimer, Timer, interleave, interleave_async, timed

from eventpact.domain.events import AccountCreatedEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

EVENT = AccountCreatedEvent(account_id="123", email="test@example.com")


class Plain:
    def handle(self, event: object) -> None: ...


class Async:
    def __init__(self) -> None:
        self.handled = 0

    async def handle(self, event: object) -> None:
        self.handled += 1


def _blinker(handlers: list[Plain]) -> Callable[[], object]:
    signal = blinker.Signal()
    for handler in handlers:
        signal.connect(handler.handle, weak=False)
    return lambda: signal.send(EVENT)


def _pyee(handlers: list[Plain]) -> Callable[[], object]:
    emitter = pyee.EventEmitter()
    for handler in handlers:
        emitter.on("created", handler.handle)
    return lambda: emitter.emit("created", EVENT)


def _pluggy(handlers: list[Plain]) -> Callable[[], object]:
    specification, implementation = pluggy.HookspecMarker("bench"), pluggy.HookimplMarker("bench")

    class Specification:
        @specification
        def handle(self, event: object) -> None: ...

    class Plugin:
        @implementation
        def handle(self, event: object) -> None: ...

    manager = pluggy.PluginManager("bench")
    manager.add_hookspecs(Specification)
    for _ in handlers:
        manager.register(Plugin())
    return lambda: manager.hook.handle(event=EVENT)


def _lato(handlers: list[Plain]) -> Callable[[], object]:
    class Created(lato.Event):
        account_id: str

    application = lato.Application("bench")
    for _ in handlers:

        def handle(event: Created) -> None: ...

        application.handler(Created)(handle)
    event = Created(account_id="123")
    return lambda: application.publish(event)


def _sync(handlers: list[Plain]) -> Callable[[], object]:
    dispatcher = SyncEventDispatcher({AccountCreatedEvent: handlers})
    return lambda: dispatcher.dispatch(EVENT)


BLOCKING = {"eventpact sync": _sync, "blinker": _blinker, "pyee": _pyee, "pluggy": _pluggy, "lato": _lato}


def _bare(handlers: list[Plain]) -> Callable[[], object]:
    if len(handlers) == 1:
        handle = handlers[0].handle
        return lambda: handle(EVENT)
    return lambda: [handler.handle(EVENT) for handler in handlers]


def blocking(rounds: int, handlers: int = 1) -> dict[str, Any]:
    """One event to so many plain handlers. Every case goes through one lambda, so that calling it weighs alike."""
    cases: dict[str, Timer] = {"bare method call": timed(_bare([Plain() for _ in range(handlers)]))}
    for name, build in BLOCKING.items():
        cases[name] = timed(build([Plain() for _ in range(handlers)]))
    return interleave(cases, base="bare method call", rounds=rounds)


def _until_handled(handler: Async, start_one: Callable[[], object], batch: int = 500) -> AsyncTimer:
    """Batches alike for every case, because what is pending at once decides how well the caches serve."""

    async def timer(times: int) -> float:
        start = time.perf_counter()
        for done in range(0, times, batch):
            size = min(batch, times - done)
            goal = handler.handled + size
            for _ in range(size):
                start_one()
            while handler.handled < goal:
                await asyncio.sleep(0)
        return time.perf_counter() - start

    return timer


async def _tasks(rounds: int) -> dict[str, Any]:
    kept: set[asyncio.Task[None]] = set()
    bare, ours, emitted, bused = Async(), Async(), Async(), Async()

    def start_bare() -> None:
        task = asyncio.create_task(bare.handle(EVENT))
        kept.add(task)
        task.add_done_callback(kept.discard)

    dispatcher = AsyncioEventDispatcher({AccountCreatedEvent: ours}, max_pending=10_000_000)
    from pyee.asyncio import AsyncIOEventEmitter

    emitter = AsyncIOEventEmitter()
    emitter.on("created", emitted.handle)

    class Created(abxbus.BaseEvent[None]):
        account_id: str = "123"

    bus = abxbus.EventBus(max_history_size=0)
    bus.on(Created, bused.handle)
    cases: dict[str, Callable[[int], Awaitable[float]]] = {
        "create_task with a reference": _until_handled(bare, start_bare),
        "eventpact asyncio": _until_handled(ours, lambda: dispatcher.dispatch(EVENT)),
        "pyee asyncio": _until_handled(emitted, lambda: emitter.emit("created", EVENT)),
        "abxbus": _until_handled(bused, lambda: bus.emit(Created())),
    }
    try:
        return await interleave_async(cases, base="create_task with a reference", rounds=rounds)
    finally:
        await dispatcher.aclose()
        await bus.destroy()


def tasks(rounds: int) -> dict[str, Any]:
    """One event accepted and handled on an event loop."""
    return asyncio.run(_tasks(rounds))


async def _memory(pending: int) -> dict[str, float]:
    gate = asyncio.Event()

    class Waits:
        async def handle(self, event: object) -> None:
            await gate.wait()

    handler = Waits()
    dispatcher = AsyncioEventDispatcher({AccountCreatedEvent: handler}, max_pending=pending)
    kept: set[asyncio.Task[None]] = set()
    bytes_each = {}
    for name, start in {
        "eventpact asyncio": lambda: dispatcher.dispatch(EVENT),
        "create_task with a reference": lambda: kept.add(asyncio.create_task(handler.handle(EVENT))),
    }.items():
        tracemalloc.start()
        for _ in range(pending):
            start()
        await asyncio.sleep(0)
        bytes_each[name] = round(tracemalloc.get_traced_memory()[0] / pending)
        tracemalloc.stop()
    gate.set()
    await dispatcher.aclose()
    await asyncio.gather(*kept)
    return bytes_each


def memory(pending: int = 10_000) -> dict[str, float]:
    """Bytes that one pending event holds, the event itself not counted."""
    return asyncio.run(_memory(pending))


def scale(counts: tuple[int, ...] = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)) -> dict[str, dict[int, float]]:
    """Nanoseconds an event when so many are dispatched in a row, and for asyncio handled."""

    async def run() -> dict[str, dict[int, float]]:
        handler = Async()
        dispatcher = AsyncioEventDispatcher({AccountCreatedEvent: handler}, max_pending=2 * max(counts))
        sync = SyncEventDispatcher({AccountCreatedEvent: Plain()})
        timer = _until_handled(handler, lambda: dispatcher.dispatch(EVENT), batch=max(counts))
        blocking_timer = timed(lambda: sync.dispatch(EVENT))
        rows: dict[str, dict[int, float]] = {"eventpact sync": {}, "eventpact asyncio": {}}
        for count in counts:
            repeats = max(1, min(50, 20_000 // count))
            rows["eventpact sync"][count] = round(min(blocking_timer(count) for _ in range(repeats)) / count * 1e9, 1)
            rows["eventpact asyncio"][count] = round(min([await timer(count) for _ in range(repeats)]) / count * 1e9, 1)
        await dispatcher.aclose()
        return rows

    return asyncio.run(run())
