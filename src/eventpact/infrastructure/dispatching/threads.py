"""Threads: a loop for ``async def`` handlers, calls with a deadline, shared answers; and forks, which lose threads."""

import asyncio
import concurrent.futures
import os
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Final, Generic, Protocol, TypeVar
from weakref import WeakSet

from eventpact.infrastructure.dispatching.subscriptions import close_unawaited


class _Forkable(Protocol):
    def reset_after_fork(self) -> None:
        """Replace locks, which a missing thread may hold, and forget threads, connections and their work."""


_forkable: WeakSet[_Forkable] = WeakSet()


def reset_in_children(thing: _Forkable) -> None:
    """Have ``thing.reset_after_fork()`` called in each process that is forked from this one while ``thing`` lives."""
    _forkable.add(thing)


def _reset_all() -> None:
    for thing in list(_forkable):
        thing.reset_after_fork()


FORK_WAIT_SECONDS: Final = 1.5
"""A fork waits so long for what other threads must not be in the middle of."""

_held_in_forks: "WeakSet[threading.RLock]" = WeakSet()
_held_here = threading.local()


def hold_in_forks(lock: "threading.RLock") -> None:
    """Hold ``lock`` while this process is forked, so that no other thread is in the middle of what it guards.

    The child must not use the lock: its copy is held, and is nobody's.
    """
    _held_in_forks.add(lock)


def _hold_all() -> None:
    deadline = time.monotonic() + FORK_WAIT_SECONDS
    _held_here.locks = [
        lock for lock in list(_held_in_forks) if lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
    ]


def _release_all() -> None:
    for lock in _held_here.locks:
        lock.release()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(before=_hold_all, after_in_parent=_release_all, after_in_child=_reset_all)


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


T = TypeVar("T")


def in_thread(function: Callable[[], T], *, name: str) -> Future[T]:
    """Call ``function`` in a thread of its own, which does not keep the process alive as an executor's would.

    ``in_thread(function, name=...).result(seconds)`` is a call with a deadline.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - raised again where the future is waited for
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


class SharedAnswer(Generic[T]):
    """Asks in a thread of its own, so that a frozen database holds one thread, however many wait for the answer.

    The question may take any time, and may raise. An answer is given again for ``fresh_seconds``.
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


class LoopThread:
    """An event loop in a thread of its own, started on first use, that lives until :meth:`close`.

    One loop for all calls, so that the engines and pools that a handler opens live as long as it. A forked child starts
    a loop of its own, because the parent's thread does not exist there. ``on_start`` is called on each new thread.
    """

    def __init__(self, on_start: Callable[[], object] = lambda: None) -> None:
        self._on_start = on_start
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        reset_in_children(self)

    def run(self, awaitable: Awaitable[T]) -> T:
        """Await ``awaitable`` on the loop, in a copy of the caller's context, and return its result.

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
            close_unawaited(awaitable)
            raise
        try:
            value, exception = outcome.result()
        except concurrent.futures.CancelledError:  # before it began
            close_unawaited(awaitable)
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
        """Cancel running tasks, stop the loop and join its thread for at most ``timeout`` seconds."""
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
