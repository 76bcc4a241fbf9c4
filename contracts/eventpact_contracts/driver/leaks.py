"""Leaks: threads, tasks, connections, unawaited coroutines and open resources that a closed dispatcher left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import stat
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from eventpact_contracts.driver.program import Program
from eventpact_contracts.driver.recorder import Recorder
from eventpact_contracts.driver.threads import THREAD_PREFIX
from eventpact_contracts.driver.trace import Kind
from eventpact_contracts.scenarios.scenario import Scenario

__all__ = ["Leaks", "TaskLeaks", "forget"]

_ENDING_SECONDS: Final = 1.0
"""A thread that is still ending gets so long."""

_TASK_ENDING_SECONDS: Final = 0.2
_ENDING_STEPS: Final = 20
"""A task that was cancelled ends in its next steps, for which no other has to wait."""

_FIRING_SECONDS: Final = 0.03
"""A timer that fires needs no longer to see that there is nothing to do any more."""

_DESCRIPTORS: Final = Path("/proc/self/fd")


class Leaks:
    """Compares before and after, where a scenario asks for it."""

    def __init__(self, scenario: Scenario) -> None:
        self._wanted = scenario.leaks or scenario.loop_gone
        self._deep = scenario.leaks
        self._said: list[str] = []

    def __enter__(self) -> Self:
        if self._wanted:
            gc.freeze()
            self._threads = set(threading.enumerate())
            self._descriptors = _descriptors()
            self._catching: Any = warnings.catch_warnings()
            self._catching.__enter__()
            warnings.simplefilter("always")
            self._shown, warnings.showwarning = warnings.showwarning, self._show
            self._unraisable, sys.unraisablehook = sys.unraisablehook, self._raise_nowhere
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._wanted:
            sys.unraisablehook = self._unraisable
            warnings.showwarning = self._shown
            self._catching.__exit__(kind, error, where)
            gc.unfreeze()

    def look(self, program: Program) -> None:
        """Record what a dispatcher has left. What it holds itself is left behind with it, once nobody knows it."""
        if not self._wanted:
            return
        recorder = program.recorder
        gc.collect()
        if self._deep:
            self._look_for_timers(recorder)
            deadline = time.monotonic() + _ENDING_SECONDS
            while self._remaining() and time.monotonic() < deadline:
                for thread in self._new_threads():
                    thread.join(0.01)
                threading.Event().wait(0.01)
            for what in (*self._remaining(), *_stranded()):
                recorder.write(Kind.LEFT, note=what)
            program.dispatcher = None
            gc.collect()
        for what in self._said:
            recorder.write(Kind.LEFT, note=what)

    def _look_for_timers(self, recorder: Recorder) -> None:
        """Record the timers that nobody has cancelled; those that are ending are no leaks."""
        if waiting := [thread for thread in self._new_threads() if _is_waiting(thread)]:
            threading.Event().wait(_FIRING_SECONDS)
            for timer in filter(_is_waiting, waiting):
                recorder.write(Kind.LEFT, note=f"a timer, in the thread {timer.name}")

    def _new_threads(self) -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t not in self._threads and not t.name.startswith(THREAD_PREFIX)]

    def _remaining(self) -> list[str]:
        left = [f"the thread {thread.name}" for thread in self._new_threads()]
        more = _descriptors() - self._descriptors
        return left + [f"{count} open {kind}" for kind, count in more.items()]

    def _show(self, message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, ResourceWarning) or "never awaited" in str(message):
            self._said.append(f"{category.__name__}: {message}")

    def _raise_nowhere(self, unraisable: Any) -> None:
        self._said.append(f"{type(unraisable.exc_value).__name__} that nobody could catch: {unraisable.exc_value}")


class TaskLeaks:
    """Compares the tasks of the running loop, which had these when this was built, where a scenario asks for it."""

    def __init__(self, scenario: Scenario) -> None:
        self._wanted = scenario.leaks
        self._before = asyncio.all_tasks()

    async def look(self, recorder: Recorder) -> None:
        """Record the tasks that a closed dispatcher has left; those of held handlers it has cancelled."""
        if not self._wanted or not recorder.conditions.has_closed():
            return
        for _ in range(_ENDING_STEPS):  # on a busy machine the time may be over before they have had their turn
            await asyncio.sleep(0)
        if left := asyncio.all_tasks() - self._before:
            await asyncio.wait(left, timeout=_TASK_ENDING_SECONDS)
            left = asyncio.all_tasks() - self._before
        for name in sorted(getattr(task.get_coro(), "__qualname__", task.get_name()) for task in left):
            recorder.write(Kind.LEFT, note=f"the task {name}")


def _stranded() -> list[str]:
    """The tasks that wait for something in a loop that is closed, in which they cannot end: of those made meanwhile."""
    tasks = [each for each in gc.get_objects() if issubclass(type(each), asyncio.Task)]
    left = [each for each in tasks if not each.done() and each.get_loop().is_closed()]
    return sorted(f"the task {getattr(each.get_coro(), '__qualname__', each.get_name())}, unended" for each in left)


def _is_waiting(thread: threading.Thread) -> bool:
    return isinstance(thread, threading.Timer) and thread.is_alive() and not thread.finished.is_set()


def _descriptors() -> Counter[str]:
    """The number of open sockets, pipes, event queues and files, where the system tells."""
    found: Counter[str] = Counter()
    if not _DESCRIPTORS.is_dir():
        return found
    for entry in _DESCRIPTORS.iterdir():
        try:
            kind, mode = os.readlink(entry).partition(":")[0], entry.stat().st_mode
        except OSError:
            continue
        if kind in ("socket", "pipe", "anon_inode"):
            found[kind] += 1
        elif stat.S_ISREG(mode):  # a database, say
            found["file"] += 1
    return found


def forget(handlers: Mapping[Any, Any]) -> None:
    """Leave the handlers to the dispatcher.

    The frame of ``subject()`` still refers to the mapping that it was given, and so keeps all handlers alive. Where
    nothing but frames does, nobody reads it any more, and it is emptied. Where something else does, the dispatcher has
    kept it, and the handlers with it.
    """
    assert isinstance(handlers, dict)
    lists = [several for several in handlers.values() if type(several) is list]
    # Each call looks at every object of the process, so that one has to do for all of them.
    own = {id(handlers), id(lists)}  # named in a comprehension, they would be kept by a cell
    holders = [each for each in gc.get_referrers(handlers, *lists) if id(each) not in own and not _is_frame(each)]
    kept = set(map(id, gc.get_referents(*holders)))
    if id(handlers) not in kept:
        handlers.clear()
        for several in lists:
            if id(several) not in kept:
                several.clear()
    gc.collect(1)


def _is_frame(thing: object) -> bool:
    """Return whether it is a frame, or the generator or coroutine that a frame is part of."""
    return type(thing).__name__ in ("frame", "generator", "coroutine")
