"""Plays one script over one dispatcher: callers take their steps, as threads or as tasks, and all is waited for."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import types
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self, TypeVar

from eventpact.domain.dispatcher import EventDispatcher
from eventpact_contracts.driver.fingerprints import kin
from eventpact_contracts.driver.recorder import Run
from eventpact_contracts.driver.scheduled_loop import StuckError
from eventpact_contracts.driver.trace import Kind
from eventpact_contracts.scenarios.invalid import JUNK
from eventpact_contracts.scenarios.scenario import (
    AwaitBegun,
    AwaitClosed,
    AwaitReturned,
    AwaitStarted,
    Caller,
    Close,
    CollectGarbage,
    Dispatch,
    DispatchJunk,
    Flood,
    Release,
    Script,
)

__all__ = ["PlayError", "in_loop", "in_threads", "watched"]

T = TypeVar("T")

_OVERTIME: Final = 3.0
"""Seconds past the second of grace after which ``aclose`` is given up."""

_CLOCK: Final = 0.01
"""Seconds between two looks at how late this machine is."""

_ROUNDS: Final = 10
"""How often the suite goes on waiting because something still happens."""

_BLOCKED: Final = 0.5
"""Seconds that one dispatch of a flood takes only where the caller waits for handlers, so that there is no flood."""

_GATHERING: Final = 0.02
"""Seconds in which other handlers may come to be held too, before the first is let go on. Nothing is judged by it."""


class PlayError(Exception):
    """A script did not come to its end; the text says why."""


@dataclass
class _Until:
    """Wait for a condition."""

    condition: Callable[[], bool]
    timeout: float

    def block(self, run: Run) -> bool:
        return run.wait(self.condition, self.timeout)

    async def wait(self, run: Run) -> bool:
        return await run.until(self.condition, self.timeout)


@dataclass
class _Closing:
    """Close the dispatcher."""

    dispatcher: EventDispatcher
    caller: str
    timeout: float

    def block(self, run: Run) -> bool:
        return asyncio.run(self.wait(run))

    async def wait(self, run: Run) -> bool:
        run.closing(self.caller, self.timeout)
        closing = asyncio.ensure_future(
            _announced(self.dispatcher.aclose(self.timeout), lambda: run.begun(self.caller))
        )
        with _Lateness() as lateness:
            done, _ = await asyncio.wait({closing}, timeout=self.timeout + 1.0 + _OVERTIME)
        if not done:
            run.write(Kind.OVERDUE, caller=self.caller, timeout=self.timeout + 1.0 + _OVERTIME)
            closing.cancel()
            await asyncio.wait({closing}, timeout=_OVERTIME)
            return False
        try:
            run.closed(self.caller, closing.result(), lateness.seconds)
        except BaseException as error:  # noqa: BLE001 - written down, for the laws to judge
            run.write(Kind.RAISED, caller=self.caller, exception=kin(error), note=str(error))
            return False
        return True


class _Lateness:
    """How late a thread of this machine wakes up meanwhile, which no dispatcher can help."""

    seconds = 0.0

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="eventpact-play-clock", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._over.wait(_CLOCK):
            now = time.monotonic()
            self.seconds = max(self.seconds, now - before - _CLOCK)
            before = now


@types.coroutine
def _stepwise(awaitable: Awaitable[T], announce: Callable[[], object]) -> Generator[Any, Any, T]:
    """Await it, and say when it has run its first step."""
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


async def _announced(awaitable: Awaitable[T], announce: Callable[[], object]) -> T:
    return await _stepwise(awaitable, announce)


_Acting = Generator[_Until | _Closing, bool]


class _Scene:
    """What the callers of one script share."""

    def __init__(self, run: Run, dispatcher: EventDispatcher, script: Script) -> None:
        self.run, self.dispatcher, self.script = run, dispatcher, script
        self.ids: dict[int, str] = {}
        several = len(script.callers) > 1
        self.names = [f"caller {number}" if several else "caller" for number in range(1, len(script.callers) + 1)]

    def act(self, caller: Caller, name: str) -> _Acting:
        """One caller's steps."""
        run = self.run
        for step in caller.steps:
            match step:
                case Dispatch(event):
                    self._dispatch(event, name)
                case DispatchJunk(junk):
                    run.dispatch_junk(self.dispatcher, *JUNK[junk], name)
                case Flood(event, limit):
                    for _ in range(limit):
                        started = run.clock()
                        self._dispatch(event, name)
                        if run.entries[-1].kind is Kind.REFUSED or run.clock() - started > _BLOCKED:
                            break
                case AwaitStarted(event):
                    yield _Until(partial(self._reached, event), run.patience)
                case AwaitReturned(event, seconds):
                    patience = run.patience if seconds is None else seconds
                    yield _Until(partial(self._came_back, event), patience)
                case AwaitBegun():
                    yield _Until(run.has_begun, run.patience)
                case AwaitClosed():
                    yield _Until(run.has_closed, 2 * run.patience)
                case CollectGarbage():
                    gc.collect(1)  # the younger generations, where everything of this script is
                case Release(event):
                    if event in self.ids:
                        run.release(self.ids[event])
                case Close(timeout):
                    yield _Closing(self.dispatcher, name, timeout)

    def _dispatch(self, event: int, name: str) -> None:
        run = self.run
        # Known before dispatch returns, which it need not do before the event is released.
        run.dispatch(
            self.dispatcher,
            self.script.events[event],
            name,
            announce=lambda known: self.ids.setdefault(event, known),
        )

    def _reached(self, event: int) -> bool:
        return event in self.ids and (self.run.started(self.ids[event]) or self.run.failed_to_start(self.ids[event]))

    def _came_back(self, event: int) -> bool:
        return self.run.came_back(self.ids.get(event, ""))

    def releases(self) -> _Acting:
        """Let held handlers go on in the script's order: of those that are held at a time, the first in that order."""
        left = list(self.script.releases)
        gone = []
        while left:
            yield _Until(lambda: any(map(self._reached, left)), self.run.patience)
            yield _Until(lambda: all(map(self._reached, left)), _GATHERING)
            event = next((each for each in left if self._reached(each)), left[0])
            left.remove(event)
            gone.append(event)
            if event in self.ids:
                self.run.release(self.ids[event])
        if gone:
            order = ", ".join(f"event {event + 1}" for event in gone)
            self.run.schedule = f"held handlers went on in this order: {order}"

    def settle(self) -> _Acting:
        """Wait until nothing more is to happen, and make sure of it."""
        run = self.run
        run.release_all()
        started = run.clock()
        seen = len(run.entries)
        while not (yield _Until(run.settled, run.patience)):
            if len(run.entries) == seen or run.clock() - started > _ROUNDS * run.patience:
                run.write(Kind.OVERDUE, timeout=run.patience)
                return
            seen = len(run.entries)  # something still happens, so it is only slow
        if not run.has_closed():
            marker = run.mark(self.dispatcher)
            if marker is not None and not (yield _Until(lambda: run.passed(marker), run.patience)):
                return
        run.took = run.clock() - started
        run.write(Kind.IDLE)


def _block(acting: _Acting, run: Run) -> None:
    try:
        request = next(acting)
        while True:
            request = acting.send(request.block(run))
    except StopIteration:
        return


async def _await(acting: _Acting, run: Run) -> None:
    try:
        request = next(acting)
        while True:
            request = acting.send(await request.wait(run))
    except StopIteration:
        return


def in_threads(run: Run, dispatcher: EventDispatcher, script: Script) -> None:
    """Play the script where no event loop runs: each caller in a thread of its own, if there are several."""
    run.dispatcher = dispatcher
    scene = _Scene(run, dispatcher, script)
    if len(script.callers) == 1 and not script.callers[0].thread:
        _block(scene.act(script.callers[0], scene.names[0]), run)
    else:
        start = threading.Barrier(len(script.callers) + 1)

        def act(caller: Caller, name: str) -> None:
            start.wait(run.patience)
            _block(scene.act(caller, name), run)

        with ThreadPoolExecutor(len(script.callers), thread_name_prefix="eventpact-caller") as pool, _restless():
            acting = [pool.submit(act, caller, name) for caller, name in zip(script.callers, scene.names, strict=True)]
            start.wait(run.patience)
            _block(scene.releases(), run)
            for each in acting:
                each.result()
    _block(scene.settle(), run)


async def in_loop(run: Run, dispatcher: EventDispatcher, script: Script) -> None:
    """Play the script on the running event loop: each caller is a task, or a thread where the script says so."""
    run.dispatcher = dispatcher
    scene = _Scene(run, dispatcher, script)
    loop = asyncio.get_running_loop()
    threads = [caller.thread for caller in script.callers].count(True)
    start = None if script.schedule is not None or threads < 2 else threading.Barrier(threads)

    def act(caller: Caller, name: str) -> None:
        if start is not None:
            start.wait(run.patience)
        _block(scene.act(caller, name), run)

    def place(caller: Caller, name: str) -> Awaitable[None]:
        if caller.thread:
            return loop.run_in_executor(pool, act, caller, name)
        return loop.create_task(_await(scene.act(caller, name), run), name=name)

    pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix="eventpact-caller")
    with pool, _restless():
        placed = [place(caller, name) for caller, name in zip(script.callers, scene.names, strict=True)]
        await _await(scene.releases(), run)
        await asyncio.gather(*placed)
    await _await(scene.settle(), run)


@contextmanager
def _restless() -> Generator[None]:
    """Threads take turns as often as the interpreter lets them."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def watched(play: Callable[[], None], timeout: float) -> None:
    """Call ``play`` in a thread of its own, and leave it alone if it does not come back.

    Raises:
        PlayError: it did not come back within ``timeout`` seconds, or it was interrupted.
        Exception: what it raised.
    """
    outcome: list[BaseException | None] = []

    def guarded() -> None:
        try:
            play()
        except BaseException as error:  # noqa: BLE001 - told where it is waited for
            outcome.append(error)
        else:
            outcome.append(None)

    thread = threading.Thread(target=guarded, name="eventpact-play", daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome:
        raise PlayError(f"nothing came back within {timeout:g} s")
    error = outcome[0]
    if isinstance(error, StuckError) or (error is not None and not isinstance(error, Exception)):
        # What a handler raised went through the dispatcher and its loop, and ended the script.
        raise PlayError(f"{type(error).__name__} ended the script: {error}") from error
    if error is not None:
        raise error
