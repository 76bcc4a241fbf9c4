"""Opens a dispatcher some times before it is judged: its lasting parts start, and its traits become known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from eventpact_contracts.checking.judging import Judging
from eventpact_contracts.checking.outcomes import Violation
from eventpact_contracts.driver.session import run_scenario
from eventpact_contracts.driver.trace import Kind
from eventpact_contracts.laws import Law
from eventpact_contracts.scenarios.events import Paid, Priced
from eventpact_contracts.scenarios.scenario import Caller, EventPlan, HandlerPlan, Scenario
from eventpact_contracts.scenarios.schedule import Schedule
from eventpact_contracts.scenarios.steps import Close, Dispatch
from eventpact_contracts.scenarios.strategies.parts import in_turn
from eventpact_contracts.subjects.subject import CouldNotRunError, Subject

__all__ = ["find_home", "warm_up"]

_SLOW_SECONDS: Final = 0.05
"""A dispatcher that takes longer to open and close is opened once for many scenarios."""

_OPENINGS: Final = 3
_MAX_PACES: Final = 12
"""So often at most it is looked at how fast a dispatcher is."""

_THREAD_SECONDS: Final = 0.005
"""By then whoever has begun a thread waits for it."""

_IDLE: Final = Scenario(callers=(Caller(()),))


def find_home(subject: Subject) -> bool:
    """Have a dispatcher driven inside a running event loop that takes events nowhere else; return whether it is one.

    Law A5 lets it refuse where no loop runs, and its author may not know that there is a hook to say so. One that
    refuses in another thread although a loop runs there lacks no loop: that is for law C1.
    """
    is_elsewhere = subject.max_open > 1 or subject.outlives
    if subject.needs_loop or is_elsewhere or _takes_events(subject, thread=True):
        return False
    try:
        run_scenario(subject, _IDLE, patience=1.0)
        is_one = _takes_events(subject, thread=True, own_loop=True)
    except CouldNotRunError as error:
        is_one = isinstance(error.__cause__, RuntimeError)  # as asyncio raises where no loop runs
    subject.needs_loop = is_one and _takes_events(replace(subject, needs_loop=True))
    return subject.needs_loop


def _takes_events(subject: Subject, *, thread: bool = False, own_loop: bool = False) -> bool:
    one = Scenario((EventPlan(Priced),), (Caller((Dispatch(0),), thread, own_loop),))
    try:
        run = run_scenario(subject, one, patience=1.0)
    except CouldNotRunError:
        return False
    return any(run.trace.of(Kind.ACCEPTED))


def warm_up(subject: Subject, judging: Judging, laws: Sequence[Law]) -> None:
    """Open a dispatcher some times, and note what it can and how long it takes.

    Raises:
        CouldNotRunError: it cannot be opened.
    """
    try:
        run_scenario(subject, _IDLE, subject.settle_timeout)
    except CouldNotRunError as error:
        _open_with_fewer_handlers(subject, judging, laws, error)
    subject.opening = 0.0 if subject.needs_loop or subject.max_open > 1 else _opening_seconds(subject)
    subject.slow = subject.max_open > 1 or subject.opening >= _SLOW_SECONDS
    paces: list[float] = []
    # One that looks slow is looked at again, as the machine may have been: few scenarios are played with slow ones.
    while len(paces) < 3 or (len(paces) < _MAX_PACES and not subject.slow and subject.seems_slow(min(paces))):
        subject.longest = 0.0
        run = run_scenario(subject, _IDLE, subject.settle_timeout)
        paces.append(subject.longest)
        if run.unfinished or subject.hangs or any(run.trace.of(Kind.OVERDUE)):
            # It waits in vain: it is stuck, which an engine that is slow is not, and deserves no more time.
            judging.vain_runs += 1
            subject.slow, subject.longest, paces = subject.max_open > 1, 0.0, [0.0]
            break
    subject.pace = max(1e-6, min(paces))
    if subject.needs_loop:
        hangs = subject.hangs
        _try_schedules(subject)
        subject.only_from_loop = not subject.guarantees.blocks_caller and _refuses_threads(subject)
        subject.hangs = hangs


def _opening_seconds(subject: Subject) -> float:
    """Return how long it takes to open and close: the shortest of some times, as the machine may be busy."""
    took: list[float] = []
    while len(took) < _OPENINGS and min(took, default=_SLOW_SECONDS) >= _SLOW_SECONDS:
        started = time.monotonic()
        run_scenario(subject, _IDLE, subject.settle_timeout)
        took.append(0.0 if subject.hangs else time.monotonic() - started)
    return min(took)


def _try_schedules(subject: Subject) -> None:
    """Find out which handlers run on a loop whose schedule can be chosen. Those in threads are stuck there."""
    # A thread that were done before anybody waits for it would not have to reach for the loop.
    plain = EventPlan(Paid, handlers={"plain": HandlerPlan(seconds=_THREAD_SECONDS)})
    every = Scenario((plain,), (in_turn(1),), schedule=Schedule(), close=True)
    tasks = Scenario((EventPlan(Priced),), (Caller((Close(1.0, 0),)),), schedule=Schedule(), close=True)
    subject.schedulable = _follows(subject, every)
    subject.has_schedulable_tasks = subject.schedulable or _follows(subject, tasks)


def _follows(subject: Subject, scenario: Scenario) -> bool:
    """Return whether all of it happens on the loop: a thread would be late, as the loop's clock runs ahead."""
    run = run_scenario(subject, scenario, patience=1.0)
    return not (run.unfinished or any(run.trace.of(Kind.OVERDUE)))


def _refuses_threads(subject: Subject) -> bool:
    """Return whether it takes events on its loop, and none of them in another thread."""
    on_loop, in_thread = (
        run_scenario(subject, Scenario((EventPlan(Priced),), (Caller((Dispatch(0),), thread=apart),)), patience=1.0)
        for apart in (False, True)
    )
    return any(on_loop.trace.of(Kind.ACCEPTED)) and not any(in_thread.trace.of(Kind.ACCEPTED))


def _open_with_fewer_handlers(subject: Subject, judging: Judging, laws: Sequence[Law], error: CouldNotRunError) -> None:
    """Go on without an empty list of handlers, which it may refuse, or else with usual handlers.

    Not to take unusual ones breaks law R1.

    Raises:
        CouldNotRunError: it cannot be opened either way.
    """
    subject.empty_lists = False
    with suppress(CouldNotRunError):
        run_scenario(subject, _IDLE, subject.settle_timeout)
        return
    subject.usual_handlers = True
    run = run_scenario(subject, _IDLE, subject.settle_timeout)
    message = f"it cannot be built with handlers that are equal, falsy, unhashable or callable: {error}"
    if any(law.id == "R1" for law in laws):
        judging.found["R1"] = _IDLE, Violation("R1", message, run.trace, timed=True)
