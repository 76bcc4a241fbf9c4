"""One question at a time: everyone who asks meanwhile shares its answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from eventpact.infrastructure.dispatching.threads import in_thread

__all__ = ["SharedAnswer"]

T = TypeVar("T")


class SharedAnswer(Generic[T]):
    """Asks in a thread of its own, so that a frozen database holds one thread, however many wait for the answer.

    Args:
        ask: may take any time, and may raise.
        fresh_seconds: seconds for which an answer is given again.
    """

    def __init__(self, ask: Callable[[], T], *, name: str, fresh_seconds: float = 0.0) -> None:
        self._ask = ask
        self._name = name
        self._fresh_seconds = fresh_seconds
        self._lock = threading.Lock()
        self._answer: Future[T] | None = None
        self._fresh_until = 0.0

    def future(self) -> Future[T]:
        """Return the answer to come, or the last one while it is fresh."""
        with self._lock:
            if self._answer is None or (self._answer.done() and time.monotonic() >= self._fresh_until):
                self._answer = in_thread(self._run, name=self._name)
            return self._answer

    def _run(self) -> T:
        answer = self._ask()
        self._fresh_until = time.monotonic() + self._fresh_seconds
        return answer
