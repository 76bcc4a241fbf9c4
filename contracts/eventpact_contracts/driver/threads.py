"""Threads of the suite, kept from scenario to scenario: one that does not come back is left alone, and replaced."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

__all__ = ["THREAD_PREFIX", "in_thread"]

T = TypeVar("T")

THREAD_PREFIX: Final = "eventpact-suite"

_lock = threading.Lock()
_idle: list[_Worker] = []


class _Worker:
    """A daemon thread that calls one function after the other."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=THREAD_PREFIX, daemon=True).start()

    def _work(self) -> None:
        while True:
            future, function = self.jobs.get()
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                outcome: tuple[Any, BaseException | None] = None, error
            else:
                outcome = result, None
            del function
            # Idle before it is known to be, so that whoever waits for this finds the same thread again.
            with _lock:
                _idle.append(self)
            if outcome[1] is not None:
                future.set_exception(outcome[1])
            else:
                future.set_result(outcome[0])
            del future, outcome


def in_thread(function: Callable[[], T]) -> Future[T]:
    """Call the function in a thread that has nothing else to do."""
    with _lock:
        worker = _idle.pop() if _idle else _Worker()
    future: Future[T] = Future()
    worker.jobs.put((future, function))
    return future
