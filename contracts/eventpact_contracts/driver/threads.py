"""Threads of the suite, kept from scenario to scenario: one that does not come back is left alone, and replaced.

Threads change places rarely, and nearly never between two given lines. So where a scenario asks for it, its threads
give way at the lines of the code under test, as if they were interrupted there.
"""

from __future__ import annotations

import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn, Self, TypeVar

from eventpact.domain import dispatcher

__all__ = ["THREAD_PREFIX", "Lateness", "Pausing", "end_in_time", "forbid_exit", "giving_way", "in_thread", "restless"]

T = TypeVar("T")

THREAD_PREFIX: Final = "eventpact-suite"

_EXIT_SECONDS: Final = 3.0

_TICK_SECONDS: Final = 0.01
"""Seconds between two looks at how late this machine is."""

_exit: Final = os._exit

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
                finish = partial(future.set_result, function())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                finish = partial(future.set_exception, error)
            del function
            # Idle before it is known to be, so that whoever waits for this finds the same thread again.
            with _lock:
                _idle.append(self)
            finish()
            del future, finish


def in_thread(function: Callable[[], T]) -> Future[T]:
    """Call the function in a thread that has nothing else to do."""
    with _lock:
        worker = _idle.pop() if _idle else _Worker()
    future: Future[T] = Future()
    worker.jobs.put((future, function))
    return future


def end_in_time(code: int) -> None:
    """End this process some seconds from now with this exit code, if it has not ended by itself.

    At its exit Python waits for all threads, and those of a dispatcher that is stuck never end.
    """

    def end() -> None:
        time.sleep(_EXIT_SECONDS)  # nothing tells when the interpreter would have ended
        names = {thread.name for thread in threading.enumerate() if thread is not threading.main_thread()}
        stuck = sorted(name for name in names if not name.startswith(THREAD_PREFIX))
        print(f"eventpact verify: threads that never ended were left: {', '.join(stuck)}", file=sys.stderr)
        sys.stderr.flush()
        _exit(code)

    threading.Thread(target=end, name=THREAD_PREFIX, daemon=True).start()


def forbid_exit(code: int) -> None:
    """Have ``os._exit`` end this process with this code and a word of why: a verdict that never came is no pass."""
    process = os.getpid()

    def exit_at_once(status: int) -> NoReturn:
        if os.getpid() == process:  # and not a child that was forked
            print("eventpact verify: the dispatcher ended this process by os._exit", file=sys.stderr, flush=True)
            status = code
        _exit(status)

    os._exit = exit_at_once


class Lateness:
    """Clock of how late a thread of this machine wakes up meanwhile, which no dispatcher can help."""

    seconds = 0.0

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._watching = in_thread(self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watching.result()

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._over.wait(_TICK_SECONDS):
            now = time.monotonic()
            self.seconds = max(self.seconds, now - before - _TICK_SECONDS)
            before = now


class _Restless:
    """The interval in which threads take turns, which belongs to all of them: the last one that leaves restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._usual = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(1e-5)
            self._within += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                sys.setswitchinterval(self._usual)


_restless: Final = _Restless()


def restless() -> AbstractContextManager[None]:
    """Let threads take turns as often as the interpreter can."""
    return _restless


_OWN: Final = str(Path(__file__).parents[1]) + os.sep
_ROGUES: Final = _OWN + "rogues" + os.sep
_PORT: Final = str(Path(dispatcher.__file__).parent) + os.sep
"""The modules of events and errors, whose lines are the same for every dispatcher."""

_LIBRARY: Final = str(Path(threading.__file__).parent) + os.sep
_INSTALLED: Final = _LIBRARY + "site-packages" + os.sep
_PAUSE_SECONDS: Final = 0.0002


@contextmanager
def giving_way() -> Generator[None]:
    """Have this thread give way at lines of code that is neither the suite's nor Python's own."""
    before = sys.gettrace()
    sys.settrace(_look_at_call)
    try:
        yield
    finally:
        sys.settrace(before)


def _look_at_call(frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG001 - Python calls it
    return _give_way if _is_under_test(frame) else None


def _is_under_test(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if file.startswith(_PORT):
        return False
    if file.startswith((_ROGUES, _INSTALLED)):
        return True
    return not file.startswith((_OWN, _LIBRARY, "<"))


def _give_way(frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG001 - Python calls it
    if event == "line" and random.random() < 0.3:  # noqa: S311 - no secret
        time.sleep(_PAUSE_SECONDS if random.random() < 0.2 else 0)  # noqa: S311 - gives way, and waits for nothing
    return _give_way


_MAX_PAUSE_SECONDS: Final = 0.05
_MAX_FAILED_PAUSE_SECONDS: Final = 0.15
"""For a failure that is still to be reported: longer than closing usually waits for a thread to end."""


class Pausing:
    """Pauses one thread at one line of the code under test: what it does in two steps, another caller comes between.

    It is a caller's thread, in a call, or one of the dispatcher's own, after a handler: what a worker thread does
    between two deliveries is met by chance in one run of many.

    Args:
        tell: called when it pauses, or has ended without.
    """

    def __init__(self, tell: Callable[[], object]) -> None:
        self.is_reached = False
        self._tell = tell
        self._resumed = threading.Event()
        self._usual = 0
        self._seen = 0
        self._line = 0
        self._most = _MAX_PAUSE_SECONDS
        self._spared: set[int] = set()

    def spare_this_thread(self) -> None:
        """Never pause the thread that calls this, for which the callers may wait."""
        self._spared.add(threading.get_ident())

    def resume(self) -> None:
        self._resumed.set()

    def call(self, function: Callable[[], object], place: int) -> None:
        """Call the function; pause after so many lines, modulo those of the call before it, if there was one."""
        self._seen, self._line = 0, 1 + place % self._usual if self._usual else 0
        before = sys.gettrace()
        sys.settrace(self._look_at_call)
        try:
            function()
        finally:
            sys.settrace(before)
            if self._usual:
                self._reach()
            self._usual = self._seen

    def after(self, place: int | None, *, has_failed: bool = False) -> None:
        """Pause the calling thread after so many lines from now on, if any, and if it is the dispatcher's."""
        if place is None:
            return
        if threading.get_ident() in self._spared or threading.current_thread().name.startswith(THREAD_PREFIX):
            self._reach()
            return
        self._seen, self._line = 0, 1 + place
        self._most = _MAX_FAILED_PAUSE_SECONDS if has_failed else _MAX_PAUSE_SECONDS
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:  # those that have begun are not looked at by the thread's own function
            if _is_under_test(frame):
                frame.f_trace = self._look_at_line_after
            frame = frame.f_back
        sys.settrace(self._look_at_call_after)

    def _look_at_call_after(self, frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG002 - likewise
        return self._look_at_line_after if _is_under_test(frame) else None

    def _look_at_line_after(self, frame: FrameType, event: str, argument: object) -> Any:
        if self.is_reached or self._resumed.is_set():
            sys.settrace(None)
            return None
        self._look_at_line(frame, event, argument)
        return self._look_at_line_after

    def _look_at_call(self, frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG002 - Python calls it
        return self._look_at_line if _is_under_test(frame) else None

    def _look_at_line(self, frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG002 - Python calls it
        if event == "line":
            self._seen += 1
            if self._seen == self._line:
                self._reach()
                self._resumed.wait(self._most)
        return self._look_at_line

    def _reach(self) -> None:
        self.is_reached = True
        self._tell()
