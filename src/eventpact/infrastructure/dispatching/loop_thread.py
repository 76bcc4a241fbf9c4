"""One long-lived event loop for ``async def`` handlers that are called where no loop runs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from eventpact.infrastructure.dispatching.processes import reset_in_children

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, started on first use, that lives until :meth:`close`.

    One loop for all calls, so that the engines and pools that a handler opens live as long as it. A forked child starts
    a loop of its own, because the parent's thread does not exist there.

    Args:
        on_start: called on the new thread before anything runs on it.
    """

    def __init__(self, on_start: Callable[[], object] = lambda: None) -> None:
        self._on_start = on_start
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        reset_in_children(self)

    def run(self, awaitable: Awaitable[T]) -> T:
        """Await ``awaitable`` on the loop, in a copy of the caller's context, and return what it returns.

        Raises:
            RuntimeError: called on the loop's own thread, which would wait for itself, or after :meth:`close`.
            BaseException: whatever the awaitable raised, ``asyncio.CancelledError`` included.
        """
        try:
            if threading.current_thread() is self._thread:
                raise RuntimeError("the loop's own thread cannot wait for what runs on it")
            loop = self._running_loop()  # first: where it raises, there is no coroutine yet to be left unawaited
            outcome = asyncio.run_coroutine_threadsafe(_outcome(awaitable), loop)
        except BaseException:
            _drop(awaitable)
            raise
        try:
            value, exception = outcome.result()
        except concurrent.futures.CancelledError:  # before it began
            _drop(awaitable)
            raise asyncio.CancelledError from None
        except BaseException:  # the waiting thread was interrupted, so nobody is left to receive the outcome
            outcome.cancel()
            raise
        if exception is not None:
            raise exception
        return value  # type: ignore[return-value]  # there is a value where there is no exception

    def cancel_all(self) -> None:
        """Cancel whatever runs on the loop, without waiting for its end."""
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._cancel_tasks)

    def close(self, timeout: float) -> None:
        """Cancel what still runs, stop the loop and join its thread for at most ``timeout`` seconds."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
            self._closed = True
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(timeout)

    def reset_after_fork(self) -> None:
        """Forget the parent's loop, whose thread does not exist here."""
        self._lock, self._loop, self._thread = threading.Lock(), None, None

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise RuntimeError("the loop is closed")
            if self._loop is None:
                started = threading.Event()
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=self._serve, args=(loop, started), name="eventpact-loop", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # there are too many threads; the next call may find that there are not
                    loop.close()
                    raise
                self._loop, self._thread = loop, thread
                started.wait()
            return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop, started: threading.Event) -> None:
        self._on_start()
        started.set()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.get_loop().run_forever()

    def _cancel_tasks(self) -> None:
        for task in asyncio.all_tasks():
            task.cancel()


async def _outcome(awaitable: Awaitable[T]) -> tuple[T | None, BaseException | None]:
    # A KeyboardInterrupt or SystemExit that left a task would end the loop for everyone; the waiting thread gets it.
    try:
        return await awaitable, None
    except BaseException as exception:  # noqa: BLE001 - raised again in the thread that waits
        return None, exception


def _drop(awaitable: Awaitable[object]) -> None:
    if inspect.iscoroutine(awaitable):
        awaitable.close()
