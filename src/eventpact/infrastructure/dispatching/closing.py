"""The wait of a closing dispatcher for deliveries that end on other threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

__all__ = ["GRACE_SECONDS", "Settling"]

GRACE_SECONDS: Final = 0.5
"""Past the deadline, a handler that is running may still end (law L1 allows 1 s)."""


class Settling:
    """A condition that a coroutine waits for, and that any thread may have changed. Built on the waiting loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Have the condition looked at again."""
        with suppress(RuntimeError):  # the loop is closed, so nobody waits any more
            self._loop.call_soon_threadsafe(self._changed.set)

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until the condition holds. Returns False if it did not in time."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await self._changed.wait()
                    self._changed.clear()
        except TimeoutError:
            return False
        return True
