"""What dispatching in process costs: ours beside a bare call, a bare task, and well-known event buses."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import abxbus
import blinker
import lato
import pluggy
import pyee
from pyee.asyncio import AsyncIOEventEmitter
from timing import Timer, interleave, timed

from eventpact.domain.events import AccountCreatedEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

EVENT = AccountCreatedEvent(account_id="123", email="test@example.com")
CLOCK = time.process_time
"""Nothing here waits for anything, so what others do on the machine need not count."""


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


def _three_lines(handlers: list[Plain]) -> Callable[[], object]:
    routes = {AccountCreatedEvent: handlers}

    def dispatch(event: AccountCreatedEvent) -> None:
        for handler in routes[type(event)]:
            handler.handle(event)

    return lambda: dispatch(EVENT)


BLOCKING = {
    "dispatcher of three lines": _three_lines,
    "eventpact sync": _sync,
    "blinker": _blinker,
    "pyee": _pyee,
    "pluggy": _pluggy,
    "lato": _lato,
}


def _bare(handlers: list[Plain]) -> Callable[[], object]:
    if len(handlers) == 1:
        handle = handlers[0].handle
        return lambda: handle(EVENT)
    return lambda: [handler.handle(EVENT) for handler in handlers]


def blocking(rounds: int, seconds: float, handlers: int = 1) -> dict[str, Any]:
    """One event to so many plain handlers. Every case goes through one lambda, so that calling it weighs alike."""
    cases: dict[str, Timer] = {"bare method call": timed(_bare([Plain() for _ in range(handlers)]), CLOCK)}
    for name, build in BLOCKING.items():
        cases[name] = timed(build([Plain() for _ in range(handlers)]), CLOCK)
    return interleave(cases, base="bare method call", rounds=rounds, seconds=seconds)


class _Tasks:
    """Bare tasks, each with the strong reference without which it may vanish in a garbage collection."""

    def __init__(self, handler: Async) -> None:
        self._handle = handler.handle
        self._kept: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        task = asyncio.create_task(self._handle(EVENT))
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)


def _until_handled(runner: asyncio.Runner, handler: Async, start: Callable[[], object], batch: int = 500) -> Timer:
    """Batches alike for every case, because what is pending at once decides how well the caches serve."""

    async def perform(times: int) -> float:
        begin = CLOCK()
        for done in range(0, times, batch):
            size = min(batch, times - done)
            goal = handler.handled + size
            for _ in range(size):
                start()
            while handler.handled < goal:
                await asyncio.sleep(0)
        return CLOCK() - begin

    return lambda times: runner.run(perform(times))


def tasks(rounds: int, seconds: float) -> dict[str, Any]:
    """One event accepted and handled on an event loop."""
    bare, ours, emitted, bused = Async(), Async(), Async(), Async()

    class Created(abxbus.BaseEvent[None]):
        account_id: str = "123"

    async def build() -> tuple[AsyncioEventDispatcher, AsyncIOEventEmitter, abxbus.EventBus]:
        bus = abxbus.EventBus(max_history_size=0)
        bus.on(Created, bused.handle)
        emitter = AsyncIOEventEmitter()
        emitter.on("created", emitted.handle)
        return AsyncioEventDispatcher({AccountCreatedEvent: ours}), emitter, bus

    with asyncio.Runner() as runner:
        dispatcher, emitter, bus = runner.run(build())
        cases = {
            "create_task with a reference": _until_handled(runner, bare, _Tasks(bare).start),
            "eventpact asyncio": _until_handled(runner, ours, lambda: dispatcher.dispatch(EVENT)),
            "pyee asyncio": _until_handled(runner, emitted, lambda: emitter.emit("created", EVENT)),
            "abxbus": _until_handled(runner, bused, lambda: bus.emit(Created())),
        }
        result = interleave(cases, base="create_task with a reference", rounds=rounds, seconds=seconds)
        runner.run(dispatcher.aclose())
        runner.run(bus.destroy())
    return result


async def _memory(pending: int) -> dict[str, int]:
    gate = asyncio.Event()

    class Waits(Async):
        async def handle(self, event: object) -> None:
            await gate.wait()

    handler = Waits()
    dispatcher = AsyncioEventDispatcher({AccountCreatedEvent: handler}, max_pending=pending)
    emitter = AsyncIOEventEmitter()
    emitter.on("created", handler.handle)
    bare = _Tasks(handler)
    bytes_each = {}
    for name, start in {
        "create_task with a reference": bare.start,
        "eventpact asyncio": lambda: dispatcher.dispatch(EVENT),
        "pyee asyncio": lambda: emitter.emit("created", EVENT),
    }.items():
        tracemalloc.start()
        for _ in range(pending):
            start()
        await asyncio.sleep(0)
        bytes_each[name] = round(tracemalloc.get_traced_memory()[0] / pending)
        tracemalloc.stop()
    gate.set()
    await dispatcher.aclose()
    await emitter.wait_for_complete()
    return bytes_each


def memory(pending: int = 10_000) -> dict[str, int]:
    """Bytes that one pending event holds, the event itself not counted."""
    return asyncio.run(_memory(pending))


def scale(counts: Sequence[int]) -> dict[str, dict[int, float]]:
    """Nanoseconds an event when so many are accepted in a row before the first is handled, until all are."""
    bare, ours = Async(), Async()
    sync = SyncEventDispatcher({AccountCreatedEvent: Plain()})

    async def build() -> AsyncioEventDispatcher:
        return AsyncioEventDispatcher({AccountCreatedEvent: ours}, max_pending=max(counts))

    with asyncio.Runner() as runner:
        dispatcher = runner.run(build())
        timers = {
            "eventpact sync": timed(lambda: sync.dispatch(EVENT), CLOCK),
            "create_task with a reference": _until_handled(runner, bare, _Tasks(bare).start, max(counts)),
            "eventpact asyncio": _until_handled(runner, ours, lambda: dispatcher.dispatch(EVENT), max(counts)),
        }
        rows: dict[str, dict[int, float]] = {name: {} for name in timers}
        for count in counts:
            repeats = max(1, min(50, 200_000 // count))
            for name, timer in timers.items():
                gc.collect()
                rows[name][count] = round(min(timer(count) for _ in range(repeats)) / count * 1e9, 1)
        runner.run(dispatcher.aclose())
    return rows
