"""Checks one law over one dispatcher: draws scripts, plays them, and judges the traces."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final

import hypothesis
from hypothesis import HealthCheck, Phase, given
from hypothesis.errors import Flaky, HypothesisException

from eventpact_contracts.checking.outcomes import LawResult, Outcome, Violation
from eventpact_contracts.crash.crashes import check_crashes
from eventpact_contracts.driver.session import perform
from eventpact_contracts.driver.trace import Kind, Trace
from eventpact_contracts.laws import Law
from eventpact_contracts.scenarios.fixed import musts
from eventpact_contracts.scenarios.scenario import Caller, Script, Setting
from eventpact_contracts.subjects.subject import CouldNotRunError, Hooks, Subject, called, hooks_of, is_opened, opened

__all__ = ["CouldNotRunError", "Subject", "check", "is_opened", "opened"]

_SLOW: Final = 0.05
"""A dispatcher that takes more seconds to open and close is opened once for many scripts."""

_SECONDS_PER_EXAMPLE: Final = 0.015
_FEWEST: Final = 10
"""So many examples there are at least, however long they take."""

_SHRINKING: Final = 2.0
_SHORTEST_PATIENCE: Final = 0.2
_REPEATS: Final = 2


class _ConvictedError(Exception):
    """A trace breaks the law."""


class _Enough(BaseException):
    """Stop, wherever Hypothesis is. No ``Exception``, because those are counterexamples to it."""


def check(law: Law, subject: Any, *, examples: int = 100, seed: int = 0) -> LawResult:
    """Check one law over one dispatcher, with a number of examples and a seed.

    Upheld means that what the law is about was seen at least once, and the law held each time.
    """
    started = time.monotonic()
    case: _Case | None = None
    try:
        if law.processes:
            hooks = hooks_of(subject)
            outcome, detail, violation, tried, seen = check_crashes(law, hooks, examples=examples, seed=seed)
        else:
            with ExitStack() as stack:
                hooks = hooks_of(subject)
                if hooks.keeper is None:
                    hooks.keeper = stack
                    stack.callback(setattr, hooks, "keeper", None)
                case = _Case(law, hooks, examples, seed)
                outcome, detail, violation = case.run()
                tried, seen = case.examples, case.observations
    except CouldNotRunError as error:
        outcome, detail, violation = Outcome.COULD_NOT_RUN, str(error), None
        tried, seen = (case.examples, case.observations) if case else (0, 0)
    return LawResult(
        law_id=law.id,
        title=law.title,
        outcome=outcome,
        examples=tried,
        observations=seen,
        detail=detail,
        seconds=time.monotonic() - started,
        violation=violation,
        script=_again(law, subject, examples, seed) if outcome is Outcome.VIOLATED else None,
    )


def _again(law: Law, subject: Any, examples: int, seed: int) -> str:
    target = getattr(subject, "reproduce", None)
    if callable(target):
        return str(target(law.id, examples, seed))
    if hasattr(subject, "factory"):
        return f"eventpact verify {getattr(subject, 'target', None) or called(subject)} --law {law.id} --seed {seed}"
    return f"pytest -k '{type(subject).__name__} and {law.id}' --eventpact-seed {seed} --eventpact-examples {examples}"


@dataclass
class _Case:
    """One law, one dispatcher, one run of the suite."""

    law: Law
    hooks: Hooks
    wanted: int
    seed: int
    examples: int = 0
    observations: int = 0
    likenesses: int = 0
    tried: list[Script] = field(default_factory=list)
    best: tuple[Script, Violation] | None = None
    first: tuple[Script, Violation] | None = None
    seen_absent: str | None = None
    deadline: float = field(default=0.0)

    def run(self) -> tuple[Outcome, str, Violation | None]:
        self._warm_up()
        promised = self.law.promised(self.hooks.guarantees)
        setting = self.hooks.setting
        count = max(3, round(self.wanted * self.law.share))
        try:
            for script in musts(self.law.id, setting):
                self._try(script)
            # Laws with a small share have scripts that take long; all may take as long as they would at the usual pace.
            self.deadline = time.monotonic() + max(1.0, self.wanted * _SECONDS_PER_EXAMPLE)
            self._explore(setting, count)
        except (_ConvictedError, _Enough, Flaky):
            pass  # what was found is in self.first and self.best
        except HypothesisException as error:
            raise CouldNotRunError(f"Hypothesis could not draw scripts: {error}") from error
        if self.first is not None:
            violation = self._confirmed()
            return Outcome.VIOLATED, violation.message, violation
        if self.seen_absent is not None:
            return Outcome.ABSENT, self.seen_absent, None
        detail = ""
        if not self.observations and self.likenesses:
            self.observations, detail = self.likenesses, self._only_closing()
        if not self.observations:
            raise CouldNotRunError(
                f"in {self.examples} examples, nothing was seen of what the law is about: "
                + (self.last_reason or "the dispatcher accepted nothing, or nothing happened")
            )
        if not promised:
            return Outcome.UNCLAIMED, "it is not promised, and was never seen to fail", None
        return Outcome.UPHELD, detail, None

    last_reason: str = ""

    def _only_closing(self) -> str:
        """What else did not make it refuse, and what was not tried."""
        said = ["only closing made it refuse"]
        if withstood := list(dict.fromkeys(reason for script in self.tried if (reason := script.cannot_accept))):
            said.append(f"it took what came in spite of {' and '.join(withstood)}")
        if not hasattr(self.hooks.subject, "unavailable"):
            said.append("give it unavailable() to try what it does without its engine")
        return "; ".join(said)

    def _explore(self, setting: Setting, count: int) -> None:
        fewest = self.examples + min(count, _FEWEST)

        @hypothesis.seed(self.seed)
        @hypothesis.settings(
            max_examples=count,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
            print_blob=False,
            verbosity=hypothesis.Verbosity.quiet,
        )
        @given(self.law.scripts(setting))
        def play(script: Script) -> None:
            if time.monotonic() > self.deadline and (self.first is not None or self.examples >= fewest):
                raise _Enough
            self._try(script)

        play()

    def _try(self, script: Script) -> None:
        if script.unavailable and not hasattr(self.hooks.subject, "unavailable"):
            return
        hurried = self.first is not None or self.overdue
        trace = self._play(script, self._short_patience() if hurried else self.hooks.settle_timeout)
        if self.first is None:
            self.examples += 1
            self.observations += self.law.observations(trace)
            if self.law.likeness is not None:
                self.likenesses += self.law.likeness(trace)
                self.tried.append(script)
            self.overdue = self.overdue or any(trace.of(Kind.OVERDUE))
        if violation := self._judge(trace):
            if self.first is None:
                seen_again = self._seen_again(script, violation, hurried)
                if seen_again is None:
                    return
                self.first = script, seen_again
                self.deadline = time.monotonic() + _SHRINKING
            if self.best is None or script.size < self.best[0].size:
                self.best = script, violation
            raise _ConvictedError

    overdue: bool = False
    """Whether the dispatcher is known to lose things, so that it is not waited for that long any more."""

    def _short_patience(self) -> float:
        return min(self.hooks.settle_timeout, max(_SHORTEST_PATIENCE, 5 * self.hooks.longest))

    def _seen_again(self, script: Script, violation: Violation, hurried: bool) -> Violation | None:
        """The violation, if it does not rest on a moment's delay: those that may are looked at once more."""
        if hurried and any(violation.trace.of(Kind.OVERDUE)):
            again = self.law.judge(self._play(script, self.hooks.settle_timeout))
            if again is None:
                return None
            violation = again
        if not violation.timed:
            return violation
        traces = [violation.trace, *(self._play(script, self.hooks.settle_timeout) for _ in range(_REPEATS))]
        if not all(map(self.law.judge, traces)):
            return None
        together = tuple(entry for trace in traces for entry in trace)
        return violation if self.law.judge(replace(violation.trace, entries=together)) else None

    def _judge(self, trace: Trace) -> Violation | None:
        """How the trace breaks what is promised. What is not promised is only seen to be absent."""
        law = self.law
        promised = law.promised(self.hooks.guarantees)
        if not promised:
            violation = law.judge(trace)
            absent = law.witness(trace) if law.witness else violation.message if violation else None
            if absent is not None and (law.witness is None or violation is None):
                self.seen_absent = self.seen_absent or absent
                if law.witness is None:
                    raise _Enough
            return violation if law.witness else None
        return law.judge(trace)

    def _confirmed(self) -> Violation:
        """The shortest counterexample, unless it was only seen by waiting less than usual, or by a moment's delay."""
        assert self.first is not None
        assert self.best is not None
        script, violation = self.best
        if self.best[0] is self.first[0]:
            return self.first[1]
        return self._seen_again(script, violation, hurried=True) or self.first[1]

    def _warm_up(self) -> None:
        """Open a dispatcher once: what is started for good is started now, and how long it takes is known."""
        hooks = self.hooks
        if hooks.pace or self.law.id == "A4":
            return
        idle = Script(callers=(Caller(()),))
        started = time.monotonic()
        self._play(idle, hooks.settle_timeout)
        hooks.slow = not hooks.needs_loop and time.monotonic() - started > _SLOW
        paces = []
        for _ in range(3):
            hooks.longest = 0.0
            self._play(idle, hooks.settle_timeout)
            paces.append(hooks.longest)
        hooks.pace = max(1e-6, min(paces))

    def _play(self, script: Script, patience: float) -> Trace:
        trace, broken = perform(self.hooks, script, patience)
        if broken and self.law.judge(trace) is None:
            raise CouldNotRunError(f"{broken}\nWhat happened until then:\n{trace}")
        return trace
