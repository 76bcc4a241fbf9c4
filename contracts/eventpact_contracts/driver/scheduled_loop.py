"""Every schedule: an event loop that runs ready callbacks in an order of one's choosing (law C3).

The usual loop runs callbacks in the order in which they became ready, so most races never happen in a test. Here a
:class:`Schedule` says at which decisions something else goes first, Hypothesis draws it, and the failing one shrinks to
the fewest and earliest exceptions::

    @given(schedules())
    def test_close_race(schedule: Schedule) -> None:
        run(scenario, schedule)

The code under test is the real one: tasks, futures, locks, timers and ``asyncio.to_thread`` all work. Time is virtual
(a timer fires when nothing else is ready, at once), and there are no sockets and no threads: what goes to an executor
is a step like any other, outside the running loop as in a thread, and its result arrives in a later step. A function in
an executor that blocks until another step has run therefore blocks for ever.

Only orders that asyncio leaves open are tried. Callbacks given to ``call_soon`` keep their order among themselves, as
documented; steps of tasks, functions in executors and timers that are due run in any order.
"""

from __future__ import annotations

import asyncio
import asyncio.events
import functools
import inspect
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary

from eventpact_contracts.scenarios.schedule import Schedule, schedules

__all__ = ["Schedule", "ScheduledLoop", "Step", "StuckError", "run", "schedules"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class StuckError(RuntimeError):
    """Nothing can run any more, or it never ends; the message names the tasks that wait, and where."""


@dataclass(frozen=True, slots=True)
class Step:
    """One callback that ran: its name, its virtual time, and the decision that chose it, if there was one to make."""

    what: str
    time: float
    decision: int | None = None
    before: str | None = None
    """The callback that would have gone first in the usual order, where it was held back."""


@dataclass(eq=False)
class _Job:
    """A function given to an executor: one step to run it, and a later one to tell the loop."""

    loop: ScheduledLoop
    function: Callable[[], Any]
    future: asyncio.Future[Any]

    def __call__(self) -> None:
        if self.future.cancelled():
            return
        asyncio.events._set_running_loop(None)
        try:
            value, failure = self.function(), None
        except BaseException as error:  # noqa: BLE001 - an executor hands over whatever was raised
            value, failure = None, error
        finally:
            asyncio.events._set_running_loop(self.loop)
        self.loop.call_soon(self._tell, value, failure)

    def _tell(self, value: Any, failure: BaseException | None) -> None:
        if self.future.cancelled():
            return
        if isinstance(failure, StopIteration):  # which no future can hold
            failure = RuntimeError(f"the function raised {failure!r}")
        if failure is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(failure)


class _Ready(deque[asyncio.Handle]):
    """The loop's queue of ready callbacks, whose head is chosen by the schedule."""

    def __init__(self, loop: ScheduledLoop) -> None:
        super().__init__()
        self._loop = loop
        self._held: dict[asyncio.Handle, int] = {}

    def popleft(self) -> asyncio.Handle:
        loop, live = self._loop, self._live()
        if not live:  # all are cancelled, and the loop skips those
            return super().popleft()
        decision, chosen, overtaken = None, live[0], None
        if len(live) > 1:
            decision = loop.decisions
            loop.decisions += 1
            chosen = self._next(live, decision)
            if hold := loop.schedule.preemptions.get(decision, 0):
                self._held[self[chosen]] = decision + hold
                chosen = self._next(live, decision)
            overtaken = loop.describe(self[live[0]]) if chosen != live[0] else None
        handle = self[chosen]
        del self[chosen]
        self._held.pop(handle, None)
        loop.steps.append(Step(loop.describe(handle), loop.time(), decision, overtaken))
        return handle

    def _next(self, live: list[int], decision: int) -> int:
        """The place of the oldest that is not held back; of the oldest, if all are."""
        return next((index for index in live if self._held.get(self[index], 0) <= decision), live[0])

    def _live(self) -> list[int]:
        """The places of those that may run next: all that are not cancelled, but only the first plain callback."""
        places, plain = [], False
        for index, handle in enumerate(self):
            if handle.cancelled():
                continue
            if not _is_free(handle):
                if plain:
                    continue
                plain = True
            places.append(index)
        return places


def _is_free(handle: asyncio.Handle) -> bool:
    callback = handle._callback  # type: ignore[attr-defined]  # asyncio has no public name for it
    return (
        isinstance(callback, _Job)
        or isinstance(handle, asyncio.TimerHandle)
        or isinstance(getattr(callback, "__self__", None), asyncio.Task)
    )


class _NoIO:
    """A selector with nothing to select from: waiting for a timer takes no time."""

    def __init__(self, loop: ScheduledLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        loop = self._loop
        if timeout is None:
            raise StuckError(f"deadlock: nothing is ready and no timer is set. {loop.waiting()}")
        if len(loop.steps) >= loop.limit:
            loop.limit += 1_000  # closing runs the loop again, and gets its turn
            raise StuckError(f"no end in sight after {len(loop.steps)} steps. {loop.waiting()}")
        if timeout > 0:
            loop.skip_to_next_timer()
        return []


class ScheduledLoop(asyncio.BaseEventLoop):
    """An event loop that follows a :class:`Schedule`; give it to ``asyncio.Runner(loop_factory=...)``.

    Attributes:
        schedule: the schedule that it follows.
        steps: the callbacks that ran, in order.
        decisions: how many decisions there were.
        strangers: the threads that reached for it, which it has no place for.
        limit: how many steps it makes before it gives up.
    """

    _ready: _Ready
    _scheduled: list[asyncio.TimerHandle]
    _thread_id: int | None

    def __init__(self, schedule: Schedule | None = None, *, limit: int = 100_000) -> None:
        super().__init__()
        self.schedule = schedule or Schedule()
        self.steps: list[Step] = []
        self.decisions = 0
        self.limit = limit
        self._now = 0.0
        self._names: WeakKeyDictionary[asyncio.Task[Any], str] = WeakKeyDictionary()
        self.strangers: list[str] = []
        self._ready = _Ready(self)
        self._selector = _NoIO(self)

    def time(self) -> float:
        return self._now

    def skip_to_next_timer(self) -> None:
        self._now = max(self._now, self._scheduled[0].when())

    def waiting(self) -> str:
        """The tasks that are not done, and where each waits."""
        tasks = sorted(self.describe_task(task) for task in asyncio.all_tasks(self))
        parts = [f"{len(tasks)} task(s) wait: {'; '.join(tasks)}." if tasks else "No task waits."]
        if self.strangers:
            names = ", ".join(self.strangers)
            parts.append(f"(Refused here: call_soon_threadsafe from {names}. Use loop.run_in_executor for threads.)")
        return " ".join(parts)

    def explain(self, *, around: int = 8) -> str:
        """The schedule as it went, to be read: which callback each step ran, and before which."""
        chosen = [number for number, step in enumerate(self.steps) if step.before is not None]
        whole = range(4 * around) if len(self.steps) <= 4 * around else range(around)
        shown = {*whole, *(n for c in chosen for n in range(c - around, c + around + 1))}
        lines = [f"{self.schedule!r}: {len(self.steps)} steps, {self.decisions} decisions, {len(chosen)} out of order"]
        gap = False
        for number, step in enumerate(self.steps):
            if number not in shown:
                gap = True
                continue
            if gap:
                lines.append("      ...")
                gap = False
            mark = ">" if step.before is not None else " "
            instead = f"  before {step.before}" if step.before is not None else ""
            lines.append(f"{mark} {number:>3}  {step.what}{instead}")
        return "\n".join([*lines, "      ..."] if gap else lines)

    def name_of(self, task: asyncio.Task[Any]) -> str:
        """The task's name, or a number of its own: asyncio counts over the whole process, which no rerun repeats."""
        if not task.get_name().startswith("Task-"):
            return task.get_name()
        return self._names.setdefault(task, f"task-{len(self._names) + 1}")

    def describe_task(self, task: asyncio.Task[Any]) -> str:
        coro: Any = task.get_coro()
        frame, inner = getattr(coro, "cr_frame", None), getattr(coro, "cr_await", None)
        # Where its own code stands, which tells more than the line of asyncio that it waits in.
        where = f" at line {frame.f_lineno}" if frame is not None and inner is not None else ""
        return f"{self.name_of(task)} {_short(getattr(coro, '__qualname__', type(coro).__qualname__))}(){where}"

    def describe(self, handle: asyncio.Handle) -> str:
        callback = handle._callback  # type: ignore[attr-defined]  # asyncio has no public name for it
        if isinstance(task := getattr(callback, "__self__", None), asyncio.Task):
            return self.describe_task(task)
        if isinstance(callback, _Job):
            return f"in executor: {_name(callback.function)}"
        return f"{'timer' if isinstance(handle, asyncio.TimerHandle) else 'callback'} {_name(callback)}"

    def run_in_executor(
        self,
        executor: Any,  # noqa: ARG002 - whichever it is, there are no threads
        func: Callable[[*Ts], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        self._check_closed()  # type: ignore[attr-defined]  # BaseEventLoop has it, typeshed not
        future: asyncio.Future[T] = self.create_future()
        self.call_soon(_Job(self, functools.partial(func, *args), future))
        return future

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        if self._thread_id not in (None, threading.get_ident()):
            self.strangers.append(threading.current_thread().name)
            raise RuntimeError("a thread reached a ScheduledLoop, which has none; use loop.run_in_executor")
        return super().call_soon_threadsafe(callback, *args, context=context)

    def _write_to_self(self) -> None:
        """Nothing: no thread waits in a selector."""

    def _process_events(self, event_list: list[Any]) -> None:
        """Nothing: there are none."""


def run(main: Callable[[], Coroutine[Any, Any, T]], schedule: Schedule | None = None, *, limit: int = 100_000) -> T:
    """Run ``main()`` to its end under ``schedule``. Its exception carries the schedule, explained, as a note.

    Raises:
        StuckError: it can never end.
    """
    loop = ScheduledLoop(schedule, limit=limit)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        try:
            return runner.run(main())
        except BaseException as error:
            error.add_note(loop.explain())
            raise


def _name(callback: Any) -> str:
    """Name the callable, seen through ``partial`` and the ``Context.run`` of asyncio.to_thread."""
    given: tuple[Any, ...] = ()
    while isinstance(callback, functools.partial):
        callback, given = callback.func, (*callback.args, *given)
        while isinstance(getattr(callback, "__self__", None), Context) and given:
            callback, *rest = given
            given = tuple(rest)
    about = ", ".join(_name(argument) for argument in given if inspect.isroutine(argument))
    name = _short(getattr(callback, "__qualname__", type(callback).__qualname__))
    return f"{name}({about})" if about else name


def _short(qualified_name: str) -> str:
    return qualified_name.rpartition("<locals>.")[2]
