"""What handlers wait at until the script lets them go on."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Final

__all__ = ["Gate", "Pause", "wake"]

_LONGEST_HOLD: Final = 60.0


def wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event | None) -> None:
    if event is not None:
        with suppress(RuntimeError):  # the loop is closed, and with it whoever waited
            loop.call_soon_threadsafe(event.set)


class Gate:
    """What a held handler waits at."""

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
        self._open.wait(_LONGEST_HOLD)

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
    """Gives way once."""

    def block(self) -> None:
        """A plain handler cannot give way."""

    async def wait(self) -> None:
        await asyncio.sleep(0)
