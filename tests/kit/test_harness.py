"""What checking a law comes to when something is missing, claimed too much, or claimed too little."""

from __future__ import annotations

import math
import re
import threading
import unittest
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support.tracing import MODEST, RETRYING, closed, closing, failed, handled, law, started, taken, trace

from eventpact.domain.dispatcher import (
    Delivery,
    DispatchError,
    EventDispatcher,
    FailureSink,
    Guarantees,
    Handlers,
    Ordering,
    RegistrationError,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
from eventpact_contracts import EventDispatcherContract
from eventpact_contracts.checking.check import CouldNotRunError, check, check_laws
from eventpact_contracts.checking.model import Model, check_against_model
from eventpact_contracts.checking.outcomes import Outcome
from eventpact_contracts.crash import crashes as crash
from eventpact_contracts.driver.session import run_scenario
from eventpact_contracts.driver.trace import Entry, Kind, Trace
from eventpact_contracts.rogues.sound.pass_through import Journaling
from eventpact_contracts.scenarios.events import Marker, Placed
from eventpact_contracts.scenarios.scenario import Caller, EventPlan, Scenario
from eventpact_contracts.scenarios.steps import Close, Dispatch
from eventpact_contracts.scenarios.strategies.parts import in_turn
from eventpact_contracts.subjects.subject import Subject as CheckedSubject

pytestmark = pytest.mark.slow

SYNC = SyncEventDispatcher.guarantees
FLAGS = ("needs_loop", "async_handlers", "engine_outlives_dispatcher")
CANCELLED = failed("a", "Placed.plain", exception="CancelledError", interruption=True)


class Subject:
    """The hooks, without a test class around them."""

    needs_loop = False
    settle_timeout = 1.0
    opened = 0

    def __init__(self, guarantees: Any = SYNC, factory: Any = SyncEventDispatcher, **hooks: Any) -> None:
        self.guarantees = guarantees
        self.factory = factory
        for name, value in hooks.items():
            setattr(self, name, value)

    @contextmanager
    def subject(self, handlers: Handlers, on_failure: FailureSink) -> Iterator[EventDispatcher]:
        self.opened += 1
        yield self.factory(handlers, on_failure=on_failure)


class Refusing(SyncEventDispatcher):
    """It accepts nothing."""

    def dispatch(self, event: DomainEvent) -> None:
        raise DispatchError("not today")


class Dropping(SyncEventDispatcher):
    """It accepts everything, and does nothing."""

    def dispatch(self, event: DomainEvent) -> None:
        """Drop it."""


def test_what_is_missing_is_said_and_nothing_is_upheld() -> None:
    no_guarantees = check(law("R1"), Subject(guarantees=None))
    assert no_guarantees.outcome is Outcome.COULD_NOT_RUN
    assert "declares no guarantees; add guarantees = Guarantees(" in no_guarantees.detail

    class NoSubject:
        guarantees = SYNC

    no_subject = check(law("R1"), NoSubject())
    assert no_subject.outcome is Outcome.COULD_NOT_RUN
    assert "has no subject(handlers, on_failure)" in no_subject.detail


def generator(handlers: Handlers, on_failure: FailureSink) -> Iterator[EventDispatcher]:
    yield SyncEventDispatcher(handlers, on_failure=on_failure)


async def coroutine(handlers: Handlers, on_failure: FailureSink) -> EventDispatcher:
    return SyncEventDispatcher(handlers, on_failure=on_failure)


async def async_generator(handlers: Handlers, on_failure: FailureSink) -> AsyncIterator[EventDispatcher]:
    yield SyncEventDispatcher(handlers, on_failure=on_failure)


async_context = asynccontextmanager(async_generator)


@pytest.mark.parametrize(
    ("subject", "says"),
    [
        (SyncEventDispatcher, "decorate it with @contextlib.contextmanager and yield the dispatcher"),
        (generator, "decorate it with @contextlib.contextmanager"),
        (coroutine, "make it a plain def; with needs_loop = True"),
        (async_generator, "make it a plain def; with needs_loop = True"),
        (async_context, "make it a plain def; with needs_loop = True"),
    ],
)
def test_a_subject_that_is_no_context_manager_is_told_what_to_do(subject: Any, says: str) -> None:
    def opening(handlers: Handlers, on_failure: FailureSink) -> Any:
        return subject(handlers, on_failure=on_failure)

    result = check(law("R1"), Subject(subject=opening))
    assert result.outcome is Outcome.COULD_NOT_RUN
    assert f"no context manager; {says}" in result.detail


def test_a_dispatcher_that_cannot_be_opened_could_not_run() -> None:
    def broken(handlers: Handlers, on_failure: FailureSink) -> EventDispatcher:
        raise OSError("no such broker")

    result = check(law("R1"), Subject(factory=broken))
    assert result.outcome is Outcome.COULD_NOT_RUN
    assert "OSError: no such broker" in result.detail


def test_no_law_is_upheld_without_having_seen_what_it_is_about() -> None:
    result = check(law("R1"), Subject(factory=Refusing), examples=20)
    assert (result.outcome, result.observations) == (Outcome.COULD_NOT_RUN, 0)
    assert result.examples > 0


def test_a_violation_comes_with_its_shortest_trace() -> None:
    result = check(law("R1"), Subject(factory=Dropping), seed=7)
    assert result.outcome is Outcome.VIOLATED
    assert result.violation is not None
    assert [entry.kind.value for entry in result.violation.trace] == ["dispatched", "accepted", "waited in vain"]
    assert "e1 was accepted, and " in result.detail
    assert "never received it" in result.detail


def test_the_same_seed_finds_the_same() -> None:
    first, second = (check(law("R1"), Subject(factory=Dropping), seed=11).detail for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("law_id", "declared", "outcome"),
    [
        ("G1", replace(SYNC, blocks_caller=False), Outcome.UNCLAIMED),
        ("G2", replace(SYNC, retries=2), Outcome.VIOLATED),
        ("G3", replace(SYNC, delivery=Delivery.AT_LEAST_ONCE), Outcome.COULD_NOT_RUN),
        ("G4", replace(SYNC, ordering=Ordering.NONE), Outcome.UNCLAIMED),
    ],
)
def test_guarantees_are_checked_from_both_sides(law_id: str, declared: Guarantees, outcome: Outcome) -> None:
    result = check(law(law_id), Subject(declared), examples=20)
    assert result.outcome is outcome, result.detail
    assert result.detail


def test_what_only_closing_made_refuse_says_what_was_not_tried() -> None:
    result = check(law("A5"), Subject(), examples=20)
    assert result.outcome is Outcome.UPHELD
    assert result.observations > 0
    assert result.detail == (
        "only closing made it refuse; give it unavailable() to try what it does without its engine"
    )


def test_what_took_events_in_spite_of_all_that_was_tried_says_so() -> None:
    result = check(law("A5"), Subject(unavailable=nullcontext), examples=20)
    assert result.outcome is Outcome.UPHELD
    assert result.detail == ("only closing made it refuse; it took what came in spite of an engine that is unavailable")


@contextmanager
def gone() -> Iterator[None]:
    raise ConnectionError("the engine's own tools do not answer")
    yield


def test_an_engine_that_cannot_be_made_unavailable_is_told() -> None:
    result = check(law("A5"), Subject(unavailable=gone), examples=20)
    assert (result.outcome, result.detail) == (
        Outcome.COULD_NOT_RUN,
        "unavailable() raised ConnectionError: the engine's own tools do not answer",
    )


class Blocking(SyncEventDispatcher):
    """Closing it blocks the thread of whoever awaits that, so that nobody can give it up."""

    async def aclose(self, timeout: float = 10.0) -> NoReturn:
        del timeout
        while True:
            threading.Event().wait()


class Idle(SyncEventDispatcher):
    """It loses what comes when everything else is settled: the suite's marker."""

    def dispatch(self, event: DomainEvent) -> None:
        if type(event) is not Marker:
            super().dispatch(event)


def test_an_event_that_the_suite_looks_for_behind_all_others_is_lost_like_any_other() -> None:
    run = run_scenario(CheckedSubject.of(Subject(factory=Idle)), Scenario((EventPlan(Placed),), (in_turn(1),)), 0.2)
    violation = law("R1").judge(run.trace)
    assert violation is not None
    assert violation.message == "Marker e2 was accepted, and Marker.plain never received it"


class Keeping(SyncEventDispatcher):
    """It keeps a coroutine that nobody will await, as long as anybody keeps it."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.kept = self.note()

    async def note(self) -> None:
        """Note something."""


def test_what_a_closed_dispatcher_keeps_is_left_behind_with_it() -> None:
    scenario = Scenario((EventPlan(Placed),), (Caller((Dispatch(0), Close(5.0))),), close=True, leaks=True)
    run = run_scenario(CheckedSubject.of(Subject(factory=Keeping)), scenario, 1.0)
    notes = [entry.note for entry in run.trace.of(Kind.LEFT)]
    assert notes == ["RuntimeWarning: coroutine 'Keeping.note' was never awaited"]


def test_a_closing_that_blocks_is_seen_where_a_scenario_is_not_about_closing() -> None:
    blocking = CheckedSubject.of(Subject(factory=Blocking))
    for _ in range(2):  # the second is not waited for so long
        run = run_scenario(blocking, Scenario((EventPlan(Placed),), (in_turn(1),)), 0.2)
        assert [entry.note for entry in run.trace.of(Kind.PUT_AWAY)] == ["aclose did not return, nor let its thread go"]
        assert not run.unfinished


def test_what_could_be_made_to_refuse_otherwise_is_not_counted_by_closing() -> None:
    result = check(law("A5"), Subject(AsyncioEventDispatcher.guarantees, AsyncioEventDispatcher, needs_loop=True))
    assert (result.outcome, result.detail) == (Outcome.UPHELD, "")
    assert result.observations > result.examples > 0


def test_an_engine_that_was_not_restarted_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target = f"{Journaling.__module__}:{Journaling.__qualname__}"
    subject = Subject(Journaling.guarantees, Journaling, needs_loop=True, target=target)
    cannot_be_called = check(law("G3"), subject, examples=3)
    monkeypatch.delattr(Journaling, "engine")
    monkeypatch.setenv("EVENTPACT_ROGUE_JOURNAL", str(tmp_path))
    without = check(law("G3"), subject, examples=3)
    assert [(result.outcome, result.detail) for result in (cannot_be_called, without)] == [
        (Outcome.UPHELD, "its engine was not restarted: engine() yields nothing to call"),
        (Outcome.UPHELD, "its engine was not restarted: it gives no engine()"),
    ]


def test_no_two_runs_with_kills_dispatch_the_same_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that outlives a run may still hold its events, and what is dispatched again then changes nothing."""
    same = [crash._Plan(("Paid",), "dispatch", "handling")] * 2
    monkeypatch.setattr(crash, "_plans", lambda *_, **__: iter(same))
    played = []
    play = crash._run

    def run(*arguments: Any) -> Trace:
        played.append(play(*arguments))
        return played[-1]

    monkeypatch.setattr(crash, "_run", run)
    target = f"{Journaling.__module__}:{Journaling.__qualname__}"
    check(law("G3"), Subject(Journaling.guarantees, Journaling, needs_loop=True, target=target), examples=20)
    first, second = ({entry.event for entry in trace.entries if entry.kind is Kind.DISPATCHED} for trace in played)
    assert first
    assert second
    assert not first & second


def test_what_an_asyncio_dispatcher_claims_too_much_is_a_violation() -> None:
    declared = Guarantees(blocks_caller=True, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO)
    subject = Subject(declared, AsyncioEventDispatcher, needs_loop=True)
    for law_id in ("G1", "G4"):
        result = check(law(law_id), subject)
        assert result.outcome is Outcome.VIOLATED, result.detail


def test_at_least_once_without_a_target_says_how_to_give_one() -> None:
    result = check(law("G3"), Subject(replace(SYNC, delivery=Delivery.AT_LEAST_ONCE)))
    assert result.outcome is Outcome.COULD_NOT_RUN
    assert 'target = "module:factory"' in result.detail


def test_a_target_that_cannot_be_imported_could_not_run() -> None:
    result = check(law("G3"), Subject(target="no_such_module:factory"))
    assert result.outcome is Outcome.COULD_NOT_RUN
    assert "no_such_module" in result.detail


def test_at_least_once_that_loses_is_convicted_by_killing_it() -> None:
    declared = replace(SYNC, delivery=Delivery.AT_LEAST_ONCE)
    subject = Subject(declared, target="eventpact.infrastructure.sync_dispatcher:SyncEventDispatcher")
    result = check(law("G3"), subject, examples=10)
    assert result.outcome is Outcome.VIOLATED
    assert result.violation is not None
    assert "was accepted, and lost" in result.violation.message
    assert "crashed" in str(result.violation.trace)


@pytest.mark.parametrize(
    ("hook", "value", "says"),
    [
        *(("settle_timeout", value, "give it seconds") for value in ("5", -1, 0, math.inf, math.nan, None, True)),
        ("dispatch_bound", "2 s", "give it seconds"),
        ("max_open", 0, "give it a number, from 1"),
        ("max_open", 2.5, "give it a number, from 1"),
        *((flag, value, "give it True or False") for flag in FLAGS for value in ("yes", None, 1)),
        ("subject", lambda handlers: handlers, "takes (handlers); write def subject(self, handlers, on_failure)"),
        ("subject", lambda *, handlers, on_failure: None, "write def subject(self, handlers, on_failure)"),
        ("unavailable", 3, "unavailable is 3; write def unavailable(self)"),
        ("unavailable", None, "unavailable is None; write def unavailable(self)"),
        ("unavailable", lambda seconds: seconds, "takes (seconds); write def unavailable(self)"),
        ("target", SyncEventDispatcher, '"module:factory", importable'),
        ("target", "module", '"module:factory", importable'),
    ],
)
def test_a_hook_that_makes_no_sense_is_named(hook: str, value: object, says: str) -> None:
    subject = Subject(**{hook: value})
    result = check(law("R1"), subject)
    assert result.outcome is Outcome.COULD_NOT_RUN
    assert hook in result.detail
    assert says in result.detail
    assert not subject.opened


class NoClosing:
    def dispatch(self, event: DomainEvent) -> None: ...


class ClosesAtOnce(NoClosing):
    async def aclose(self) -> tuple[DomainEvent, ...]:
        return ()


@pytest.mark.parametrize(
    ("yielded", "says"),
    [
        (lambda: None, "None has no dispatch"),
        (NoClosing, "has no aclose"),
        (ClosesAtOnce, "cannot be called as it is; write aclose(self, timeout=10.0)"),
        (lambda: SyncEventDispatcher, "is a class; call it"),
    ],
)
def test_a_subject_that_yields_no_dispatcher_could_not_run(yielded: Any, says: str) -> None:
    left: list[str] = []

    class Odd(Subject):
        @contextmanager
        def subject(self, handlers: Handlers, on_failure: FailureSink) -> Iterator[EventDispatcher]:
            try:
                yield yielded()
            finally:
                left.append("subject")

    result = check(law("R1"), Odd())
    assert result.outcome is Outcome.COULD_NOT_RUN
    assert "subject() raised TypeError: " in result.detail
    assert says in result.detail
    assert left, "what was entered is left"
    with pytest.raises(CouldNotRunError, match=re.escape(says)):
        check_against_model(Odd())


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("need_loop", "needs_loop"), ("settle_time", "settle_timeout"), ("known_violation", "known_violations")],
)
def test_a_hook_that_is_misspelt_is_refused(wrong: str, right: str) -> None:
    with pytest.raises(TypeError, match=f"no hook {wrong}; did you mean {right}"):
        type("TestShop", (EventDispatcherContract,), {wrong: True})


def test_a_class_whose_tests_pytest_cannot_parametrise_is_refused() -> None:
    with pytest.raises(TypeError, match=r"unittest\.TestCase"):
        type("TestShop", (EventDispatcherContract, unittest.TestCase), {})


class Slow(Subject):
    """Takes its time to open, and counts how many are open."""

    open = most = 0
    lock = threading.Lock()

    @contextmanager
    def subject(self, handlers: Handlers, on_failure: FailureSink) -> Iterator[EventDispatcher]:
        threading.Event().wait(0.1)
        with self.lock:
            self.open += 1
            self.most = max(self.most, self.open)
        with super().subject(handlers, on_failure) as dispatcher:
            yield dispatcher
        with self.lock:
            self.open -= 1


def test_a_dispatcher_that_is_slow_to_open_is_opened_once_for_all_laws() -> None:
    slow = Slow()
    results = check_laws([law("R2"), law("R6"), law("R7")], slow, examples=10)
    assert {result.outcome for result in results} == {Outcome.UPHELD}
    assert slow.opened < 8
    assert slow.most == 1


def test_of_a_slow_one_as_many_are_open_at_a_time_as_may_be() -> None:
    slow = Slow(max_open=3)
    results = check_laws([law("R1"), law("G1"), law("L2")], slow, examples=10)
    assert {result.outcome for result in results} == {Outcome.UPHELD}
    assert slow.most == 3
    assert slow.open == 0


def test_what_is_seen_beside_other_scenarios_convicts_only_if_it_is_seen_alone() -> None:
    [dropped] = check_laws([law("R1")], Slow(factory=Dropping, max_open=3), examples=10)
    assert dropped.outcome is Outcome.VIOLATED
    [crowded] = check_laws([law("R1")], _Crowded(max_open=3), examples=10)
    assert crowded.outcome is Outcome.UPHELD


class _Crowded(Slow):
    """Delivers nothing while another is open, as no engine would that says that several may be."""

    @contextmanager
    def subject(self, handlers: Handlers, on_failure: FailureSink) -> Iterator[EventDispatcher]:
        with super().subject(handlers, on_failure) as dispatcher:
            deliver = dispatcher.dispatch
            dispatcher.dispatch = lambda event: None if self.open > 1 else deliver(event)  # type: ignore[method-assign]
            yield dispatcher


def test_a_model_convicts_what_drops_events() -> None:
    with pytest.raises(AssertionError, match="attempts, successes and reports"):
        check_against_model(Subject(factory=Dropping), examples=5)


def test_a_model_counts_the_events_that_it_judged() -> None:
    examples, events = check_against_model(Subject(), examples=5)
    assert examples >= 5
    assert events >= examples


@pytest.mark.parametrize(
    ("declared", "interruption", "faults"),
    [
        # Closing interrupted the handler, and the engine, which outlives the dispatcher, delivered the event again.
        (RETRYING, (closing(0), CANCELLED), []),
        (RETRYING, (CANCELLED,), ["e1 at Placed.plain: attempts, successes and reports are (2, 1, 0)"]),
        (MODEST, (closing(0), CANCELLED), ["e1 at Placed.plain: attempts, successes and reports are (2, 1, 0)"]),
    ],
)
def test_a_model_knows_who_may_deliver_again_what_closing_interrupted(
    declared: Guarantees, interruption: tuple[Entry, ...], faults: list[str]
) -> None:
    happened = trace(
        taken("a", "Placed"),
        started("a", "Placed.plain"),
        interruption,
        handled("a", "Placed.plain", attempt=2),
        closed(),
        guarantees=declared,
    )
    found = Model(declared.retries, {"a": EventPlan(Placed)}).faults(happened)
    assert [fault.partition(", and should be")[0] for fault in found] == faults


def test_the_hooks_of_a_contract_class_are_those_of_any_subject() -> None:
    made: AbstractContextManager[EventDispatcher] = Subject().subject({}, lambda failed: None)
    with made as dispatcher:
        assert dispatcher.guarantees == SYNC


class RefusesEmptyLists(SyncEventDispatcher):
    """A good dispatcher that has no use for an event type without handlers."""

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        if any(isinstance(given, list) and not given for given in handlers.values()):
            raise RegistrationError("give each type a handler")
        super().__init__(handlers, on_failure=on_failure)


def test_who_refuses_an_empty_list_of_handlers_is_convicted_by_no_law() -> None:
    results = check_laws(
        [law(each) for each in ("R1", "R2", "R4", "A4")], Subject(factory=RefusesEmptyLists), examples=5
    )
    assert {each.law_id: each.outcome for each in results if each.outcome is not Outcome.UPHELD} == {}
