"""Obstacles that a handler or a caller meets: a gate that the scenario opens, a pause, a while.

A thread blocks at an obstacle, and a task awaits it. Handlers and callers are generators of obstacles, and
:func:`run_blocking` and :func:`run_awaiting` take them through.
"""

from __future__ import annotations

import asyncio
import threading
import time
import types
import weakref
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from eventpact.domain.dispatcher import EventDispatcher
from eventpact_contracts.scenarios.failures import text_of

__all__ = ["HANGS", "Delay", "Gate", "Obstacle", "Pause", "announced", "closed", "run_awaiting", "run_blocking", "wake"]

T = TypeVar("T")

HANGS: Final = "aclose did not return"
_MAX_HOLD_SECONDS: Final = 60.0
_MAX_LOOP_HOLD_SECONDS: Final = 0.25
_held_up: Final[weakref.WeakSet[asyncio.AbstractEventLoop]] = weakref.WeakSet()
"""The loops on which a handler has been held in vain, as nobody released it from elsewhere."""


class Obstacle(Protocol):
    """Something to get past, on a thread or in a task."""

    def block(self) -> Any: ...

    async def wait(self) -> Any: ...


def run_blocking(steps: Generator[Obstacle, Any, T]) -> T:
    """Run the generator to its end on this thread."""
    try:
        obstacle = next(steps)
        while True:
            try:
                answer = obstacle.block()
            except BaseException as interruption:  # noqa: BLE001 - goes on inside
                obstacle = steps.throw(interruption)
            else:
                obstacle = steps.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value


async def run_awaiting(steps: Generator[Obstacle, Any, T]) -> T:
    """Run the generator to its end in this task."""
    try:
        obstacle = next(steps)
        while True:
            try:
                answer = await obstacle.wait()
            except BaseException as interruption:  # noqa: BLE001 - goes on inside
                obstacle = steps.throw(interruption)
            else:
                obstacle = steps.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value


@types.coroutine
def _stepwise(awaitable: Awaitable[T], announce: Callable[[], object]) -> Generator[Any, Any, T]:
    """Await it, and announce when it has run its first step."""
    stepping = awaitable.__await__()
    announced = False
    resume: Callable[[], Any] = partial(next, stepping)
    while True:
        try:
            wanted = resume()
        except StopIteration as finished:
            if not announced:
                announce()
            value: T = finished.value
            return value
        if not announced:
            announced = True
            announce()
        try:
            sent = yield wanted
        except BaseException as interruption:  # noqa: BLE001 - goes on inside
            resume = partial(stepping.throw, interruption)
        else:
            resume = partial(stepping.send, sent)


async def announced(awaitable: Awaitable[T], announce: Callable[[], object]) -> T:
    return await _stepwise(awaitable, announce)


def wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event | None) -> None:
    """Set an event of another thread's loop."""
    if event is not None:
        with suppress(RuntimeError):  # the loop is closed, and with it whoever waited
            loop.call_soon_threadsafe(event.set)


async def closed(dispatcher: EventDispatcher | None, timeout: float, more: float) -> tuple[Sequence[object], str]:
    """Close it, and wait ``more`` seconds past its deadline; return the undelivered, and how closing failed, if so."""
    if dispatcher is None:
        return (), ""
    try:
        undelivered = await asyncio.wait_for(dispatcher.aclose(timeout), timeout + more)
    except TimeoutError:
        return (), f"{HANGS} in {timeout + more:g} s"
    except Exception as error:  # noqa: BLE001 - recorded, for law L1 to judge
        return (), f"aclose raised {type(error).__name__}: {text_of(error)}"
    return undelivered if isinstance(undelivered, tuple | list) else (), ""


class Gate:
    """The obstacle of a held handler."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._waiters: list[Callable[[], object]] = []

    def release(self) -> None:
        with self._lock:
            self._open.set()
            waiters, self._waiters = self._waiters, []
        for wake in waiters:
            wake()

    def block(self) -> None:
        loop = asyncio._get_running_loop()
        if loop is None:
            self._open.wait(_MAX_HOLD_SECONDS)
        # A handler that is called on an event loop keeps it from running, and with it whoever would release it there.
        elif not self._open.wait(0.0 if loop in _held_up else _MAX_LOOP_HOLD_SECONDS):
            _held_up.add(loop)

    async def wait(self) -> None:
        loop, passed = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            if self._open.is_set():
                return
            # Weakly, lest the suite keep a task alive that the dispatcher has forgotten.
            waiting = weakref.ref(passed)
            self._waiters.append(lambda: wake(loop, waiting()))
        await passed.wait()


class Pause:
    """The obstacle of a handler that gives way once. A plain handler cannot."""

    def block(self) -> None:
        """Go on."""

    async def wait(self) -> None:
        await asyncio.sleep(0)


class Delay:
    """The obstacle of a handler that takes its time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def block(self) -> None:
        time.sleep(self._seconds)  # a handler's own work, which takes as long as it takes

    async def wait(self) -> None:
        await asyncio.sleep(self._seconds)
