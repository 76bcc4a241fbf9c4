"""Law G3: real processes that dispatch and work, killed with SIGKILL at drawn steps, judged by their journals.

The processes are named by a *target*, ``"module:factory"``, importable in a fresh process:

- ``factory(handlers, on_failure=...)`` returns a dispatcher, or a context manager that yields one, as for
  ``eventpact verify``. A class whose constructor takes them will do.
- ``factory.worker(handlers, on_failure=...)``, where there is one, works until its process is told to end (SIGTERM):
  for an engine that handles events in other processes than those that dispatch. Without it, the process that dispatches
  handles too, and a restart builds the dispatcher again.
- ``factory.engine()``, where there is one, is a context manager that the suite enters before it starts any process: it
  starts a broker, say, and tells the processes where by the environment. If it yields something that can be called,
  that kills the engine and starts it again.

Where the dispatcher blocks its caller, an event is accepted only when it is settled, so that only events which its
handler dispatched in turn can be lost; the runs are made like that. A dispatcher that promises at-most-once and gives
no target could not run either: its loss must be seen.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from eventpact.domain.dispatcher import Delivery
from eventpact_contracts.checking.outcomes import LawCheck
from eventpact_contracts.crash.child import KINDS, imported
from eventpact_contracts.crash.processes import ProcessGroup
from eventpact_contracts.driver.probes import subscriptions_of
from eventpact_contracts.driver.trace import Kind, Trace
from eventpact_contracts.laws.law import Law
from eventpact_contracts.laws.view import TraceView
from eventpact_contracts.scenarios.events import ROLES, Marker
from eventpact_contracts.subjects.subject import CouldNotRunError, Subject

__all__ = ["check_crashes"]

_SUBSCRIPTIONS: Final = subscriptions_of(kinds=tuple(KINDS.values()))
_SHARE: Final = 0.1
"""The part of the usual number of examples, as each takes seconds."""

_MAX_SECONDS: Final = 5.0
"""After this long, no further run is begun, once everyone was killed once."""

_MIN_RUNS: Final = 3
"""Runs that are tried where nothing was in danger: the first may have drawn handlers that run in the call."""


@dataclass(frozen=True)
class _Plan:
    """The events, and the process that is killed, and when."""

    kinds: tuple[str, ...]
    victim: str
    step: str


def _plans(generator: random.Random, count: int, victims: Sequence[str], *, retries: bool) -> Iterator[_Plan]:
    """Every victim at every step first, then drawn ones."""
    steps = ("handling", "half handled", "accepted", *(["tried again"] if retries else []))
    pairs = [(victim, step) for step in steps for victim in victims]
    for number in range(count):
        victim, step = pairs[number] if number < len(pairs) else generator.choice(pairs)
        several = generator.randint(2, 3)  # of which one may wait for another
        kinds = [generator.choice(["Placed", "Priced", "Paid"]) for _ in range(several)]
        if step == "half handled":
            kinds[0] = "Paid"
        yield _Plan(tuple(kinds), victim, step)


def _kill_in(plan: _Plan, group: ProcessGroup, engine: _Engine) -> None:
    """Dispatch, kill, restart, and wait until all is settled."""
    # Not drawn from the seed: an engine that outlives the run may still hold an event of the last one under its id.
    events = [(kind, str(uuid4())) for kind in plan.kinds]
    for kind, event in events:
        group.close_gates(kind, event)  # of these alone: events that an earlier run left in the engine hold nothing up
    if plan.step == "tried again":
        group.fail_once(*events[0])
    group.start("dispatch")
    if engine.apart:
        group.start("work")
    if engine.blocks:
        for kind, event in events:
            parent = str(uuid4())
            group.add_child(parent, kind, event)
            group.order("Placed", parent)
    else:
        for kind, event in events:
            group.order(kind, event)
            group.until_accepted(event)  # one by one, so that it is the first that is handled first
    group.until_accepted(*(event for _, event in events))
    first = events[0][1]
    if plan.step != "accepted":
        group.until(lambda: bool(_started(group, first)))
    if plan.step == "tried again":
        group.until(lambda: any(entry.attempt > 1 for entry in group.entries_of(Kind.STARTED)))
    if plan.step == "half handled" and (started := _started(group, first)):
        # One of its handlers has succeeded, and the others have not.
        group.open_gate(first, started[-1])
        group.until(lambda: bool(group.entries_of(Kind.SUCCEEDED)))
    if plan.victim == "engine":
        assert engine.restart is not None
        group.engine(engine.restart)
        group.open_all()
    else:
        group.kill(plan.victim)
        works = plan.victim == ("work" if engine.apart else "dispatch")
        if plan.step == "handling" and engine.survives and works:
            # And again, when it has taken up what was left: that it has read is not that it is done.
            before = len(_started(group, first))
            group.restart(plan.victim)
            group.until(lambda: len(_started(group, first)) > before)
            group.kill(plan.victim)
        group.open_all()
        group.restart(plan.victim)
    _settle(group, engine.survives)


def _started(group: ProcessGroup, event: str) -> list[str]:
    """The handlers that have begun with an event."""
    return [entry.handler for entry in group.entries_of(Kind.STARTED) if entry.event == event]


@dataclass(frozen=True)
class _Engine:
    """Facts about the dispatcher that is killed."""

    apart: bool
    blocks: bool
    survives: bool
    restart: Callable[[], object] | None


def _settle(group: ProcessGroup, again: bool) -> None:
    """Wait until every accepted delivery has succeeded; where none is tried again, until a marker has come through."""

    def all_done() -> bool:
        entries = group.entries()
        accepted = {entry.event: entry.event_type for entry in entries if entry.kind is Kind.ACCEPTED}
        done = {entry.delivery for entry in entries if entry.kind is Kind.SUCCEEDED}
        return all(
            (event, name) in done for event, kind in accepted.items() for given, name in _SUBSCRIPTIONS if given == kind
        )

    def marker_passed() -> bool:
        return sum(entry.event == marker for entry in group.entries_of(Kind.SUCCEEDED)) >= len(ROLES[Marker])

    if not again:
        marker = str(uuid4())
        group.order("Marker", marker)
    if group.until(all_done if again else marker_passed):
        group.idle()
    else:
        group.overdue()


def check_crashes(law: Law, subject: Subject, *, examples: int, seed: int) -> LawCheck:
    """Check law G3.

    Raises:
        CouldNotRunError: there is no target, or its processes cannot be run.
    """
    if not subject.target:
        raise CouldNotRunError(
            'there is no target; set target = "module:factory", importable in a fresh process, so that processes can be'
            " started and killed (see eventpact_contracts.crash.crashes)"
        )
    try:
        factory = imported(subject.target)
    except (ImportError, AttributeError) as error:
        raise CouldNotRunError(f"the target {subject.target} cannot be imported: {error}") from error
    count = max(3, round(examples * _SHARE))
    apart = hasattr(factory, "worker")
    promised = subject.guarantees.delivery is Delivery.AT_LEAST_ONCE
    check, runs = LawCheck(), 0
    with ExitStack() as stack:
        restart = stack.enter_context(factory.engine() if hasattr(factory, "engine") else nullcontext())
        engine = _Engine(apart, subject.guarantees.blocks_caller, promised, restart if callable(restart) else None)
        victims = [*(["work"] if apart else []), "dispatch", *(["engine"] if callable(restart) else [])]
        deadline = time.monotonic() + _MAX_SECONDS
        retries = promised and subject.guarantees.retries > 0
        for plan in _plans(random.Random(seed), count, victims, retries=retries):  # noqa: S311 - not for secrets
            enough = runs >= len(victims) and (check.observations or runs >= _MIN_RUNS)
            if enough and time.monotonic() > deadline:
                break
            trace = _run(plan, subject.target, subject, engine)
            runs += 1
            seen = law.observations(trace)
            check.observations += seen
            check.examples += bool(seen)
            if not any(trace.of(Kind.ACCEPTED)):
                raise CouldNotRunError(f"nothing was accepted in the process that was to be killed{_reason(trace)}")
            if (violation := law.judge(trace)) is not None:
                check.violation = violation
                return check
            if not promised and law.witness is not None:
                check.absent = check.absent or law.witness(TraceView(trace))
                if check.absent and runs >= len(victims):
                    break
    if not check.observations:
        raise CouldNotRunError(f"in {runs} runs, no delivery was accepted and unsettled when a process was killed")
    if promised:
        check.detail = _not_restarted(factory, restart)
    return check


def _reason(trace: Trace) -> str:
    """The exception of ``dispatch`` in that process, for a message, if there was one."""
    raised = next(trace.of(Kind.RAISED, Kind.REFUSED), None)
    return f": dispatch raised {raised.exception[0]}: {raised.note}" if raised else ""


def _not_restarted(factory: object, restart: object) -> str:
    """Why nobody saw the engine come back, if nobody did."""
    if callable(restart):
        return ""
    why = "engine() yields nothing to call" if hasattr(factory, "engine") else "it gives no engine()"
    return f"its engine was not restarted: {why}"


def _run(plan: _Plan, target: str, subject: Subject, engine: _Engine) -> Trace:
    with tempfile.TemporaryDirectory(prefix="eventpact-crash-") as place:
        # A call that waits for handlers would hold up the loop that they may need.
        where = "outside" if not subject.needs_loop else "beside the loop" if engine.blocks else "on the loop"
        kinds = "all kinds" if subject.async_handlers else "plain"
        group = ProcessGroup(Path(place), target, where, kinds, max(subject.settle_timeout, 5.0))
        try:
            _kill_in(plan, group, engine)
        finally:
            group.end()
        subscribed = {handler for _, handler in _SUBSCRIPTIONS}
        entries = tuple(
            entry
            for entry in group.entries()
            if entry.event_type != Marker.__name__ and (not entry.handler or entry.handler in subscribed)
        )
    return Trace(entries, _SUBSCRIPTIONS, subject.guarantees, outlives=subject.outlives)
