"""Waiting for a condition that another thread, task or process brings about."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until the condition holds, and return its value."""
    deadline, tick = time.monotonic() + seconds, threading.Event()
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come about in time"
        tick.wait(0.005)
    return value


async def until_in_loop(condition: Callable[[], object]) -> None:
    """Wait in a task, which gives way to the others between two looks."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)
