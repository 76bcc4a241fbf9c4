"""Runs scenarios, lets every law judge each trace, and confirms and shrinks the counterexamples."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from eventpact_contracts.checking.outcomes import Evidence, LawCheck, Violation
from eventpact_contracts.checking.shrink import replayed, shrunk
from eventpact_contracts.driver.session import Run, run_scenario
from eventpact_contracts.driver.trace import Kind, Trace
from eventpact_contracts.laws import Law
from eventpact_contracts.laws.view import TraceView
from eventpact_contracts.scenarios.scenario import Scenario
from eventpact_contracts.subjects.subject import Subject

__all__ = ["Judging"]

_SHRINK_SECONDS: Final = 6.0
"""Spent on making one counterexample smaller."""

_SHRINK_ALL_SECONDS: Final = 7.0
_REPLAY_ALL_SECONDS: Final = 2.0
"""Spent on running counterexamples again. Shrinking leaves none over where a scenario takes long."""

_MIN_PATIENCE_SECONDS: Final = 0.15
_MIN_CONFIRMING_SECONDS: Final = 1.0
_REPEATS: Final = 2
_BUSY_REPEATS: Final = 6
"""A violation that is one of time has to show so many times again: more often where others are at work, too."""


class Judging:
    """All laws before the traces of one subject; the findings go into the evidence.

    Attributes:
        found: the counterexample of each law that is violated, with its scenario.
        vain_runs: how many runs waited in vain.
    """

    def __init__(self, laws: Sequence[Law], subject: Subject, evidence: Evidence) -> None:
        self.found: dict[str, tuple[Scenario, Violation]] = {}
        self.vain_runs = 0
        self._laws, self._subject, self._evidence = laws, subject, evidence
        self._confirmed_loss = False
        self._unfinished: dict[str, str] = {}

    def check_of(self, law: Law) -> LawCheck:
        return self._evidence.laws[law.id]

    def knows_all(self) -> bool:
        """Return whether every law is violated, so that no other run can show more."""
        return len(self.found) == len(self._laws)

    def run(self, scenario: Scenario, patience: float) -> Run:
        """Run a scenario without judging it."""
        played = scenario.on_one_loop() if self._subject.only_from_loop else scenario
        run = run_scenario(self._subject, played, patience)
        self._evidence.waited += sum(entry.timeout or 0.0 for entry in run.trace.of(Kind.OVERDUE))
        return run

    def take_clean(self, scenario: Scenario, run: Run) -> bool:
        """Judge a run that is finished and breaks no law; return whether it is such a run."""
        view = TraceView(run.trace)
        judges = [law for law in self._laws if law.promised(self._subject.guarantees) or law.witness is not None]
        if run.unfinished or any(law.judge(view) for law in judges):
            return False
        self._note_facts(scenario, run)
        self._judge(view)
        return True

    def try_scenario(self, scenario: Scenario) -> None:
        """Run a scenario, and judge it."""
        if scenario.unavailable and not self._subject.can_be_unavailable:
            return
        hurried = self.vain_runs > 0
        run = self.run(scenario, self._short_patience() if hurried else self._subject.settle_timeout)
        self._note_facts(scenario, run)
        if run.excused:
            return
        faults = self._judge(TraceView(run.trace))
        if run.unfinished and not faults:
            self._note_unfinished(scenario, run)
        if not faults:
            return
        if not hurried and (run.unfinished or any(run.trace.of(Kind.OVERDUE))):
            self._confirmed_loss = True
        if hurried and any(run.trace.of(Kind.OVERDUE)):
            # It may only have been slower than it was waited for.
            confirming = self.run(scenario, self._confirming_patience())
            self._confirmed_loss = True
            again = self._judge(TraceView(confirming.trace))
            faults = {law_id: violation for law_id, violation in again.items() if law_id in faults}
        for law_id, violation in faults.items():
            if violation.timed and not self._seen_again(law_id, scenario, violation):
                continue
            self.found[law_id] = scenario, violation

    def _short_patience(self) -> float:
        return min(self._subject.settle_timeout, max(_MIN_PATIENCE_SECONDS, 3 * self._subject.longest))

    def _confirming_patience(self) -> float:
        """The full patience once; afterwards it is known that this dispatcher loses things."""
        if not self._confirmed_loss:
            return self._subject.settle_timeout
        return min(self._subject.settle_timeout, max(_MIN_CONFIRMING_SECONDS, 4 * self._subject.longest))

    def _note_facts(self, scenario: Scenario, run: Run) -> None:
        """Note the facts that a run showed besides violations."""
        evidence = self._evidence
        evidence.played += 1
        self.vain_runs += bool(run.unfinished) or any(run.trace.of(Kind.OVERDUE))
        for entry in run.trace.of(Kind.RAISED, Kind.REFUSED):
            if "DispatcherClosedError" not in entry.exception and (entry.event_type or not entry.event):
                evidence.raised[f"{entry.exception[0]}: {entry.note}"[:300]] += 1
        if scenario.hindrance and not any(run.trace.of(Kind.REFUSED)):
            evidence.withstood[scenario.hindrance] = None

    def _note_unfinished(self, scenario: Scenario, run: Run) -> None:
        """A scenario that did not come to its end lets no law pass that needs it, unless another run convicts it."""
        family = next((law for law in self._laws if scenario in law.fixed(self._subject.traits)), None)
        for law in [family] if family else self._laws:
            self._unfinished.setdefault(law.id, f"{run.unfinished}\nUntil then:\n{run.trace}")

    def _judge(self, view: TraceView) -> dict[str, Violation]:
        """The violations of laws that are not known to be violated."""
        found = {}
        for law in self._laws:
            if law.id in self.found:
                continue
            check = self.check_of(law)
            seen = law.observations(view)
            check.observations += seen
            check.examples += bool(seen)
            if law.likeness is not None:
                check.likenesses += law.likeness(view)
            if violation := self._violation(law, view):
                found[law.id] = violation
        return found

    def _violation(self, law: Law, view: TraceView) -> Violation | None:
        """Return how the trace breaks a promise. A law that is not promised is only seen to be absent."""
        violation = law.judge(view)
        if law.promised(self._subject.guarantees):
            return violation
        check = self.check_of(law)
        if law.witness is None:
            check.absent = check.absent or (violation.message if violation else None)
            return None
        if violation is None:
            check.absent = check.absent or law.witness(view)
        return violation

    def _seen_again(self, law_id: str, scenario: Scenario, violation: Violation) -> bool:
        """Return whether a violation does not rest on a moment's delay."""
        law = next(law for law in self._laws if law.id == law_id)
        traces: list[Trace] = [violation.trace]
        for _ in range(_BUSY_REPEATS if _is_busy() else _REPEATS):
            run = self.run(scenario, self._confirming_patience())
            traces.append(run.trace)
            if law.judge(run.trace) is None and not violation.shortest:
                return False
            self._confirmed_loss = self._confirmed_loss or bool(run.unfinished) or any(run.trace.of(Kind.OVERDUE))
        together = tuple(entry for trace in traces for entry in trace)
        return law.judge(replace(violation.trace, entries=together)) is not None

    def shrink(self, until: float) -> None:
        """Make counterexamples smaller, for some seconds and not beyond that moment."""
        deadline = min(time.monotonic() + _SHRINK_ALL_SECONDS, until)
        for law in self._laws:
            if law.id not in self.found or time.monotonic() > deadline:
                continue
            scenario, violation = self.found[law.id]
            if violation.timed:
                continue
            seconds = min(_SHRINK_SECONDS, deadline - time.monotonic())
            smaller = shrunk(scenario, partial(self._breaks, law), seconds)
            if smaller is scenario:
                continue
            again = law.judge(self.run(smaller, self._confirming_patience()).trace)
            if again is not None:
                self.found[law.id] = smaller, again

    def _breaks(self, law: Law, scenario: Scenario) -> bool:
        violation = law.judge(self.run(scenario, self._short_patience()).trace)
        return violation is not None and not violation.timed

    def note_counterexamples(self) -> None:
        """Put the counterexamples into the evidence, run again as long as there is time: the first one at least."""
        until = time.monotonic() + _REPLAY_ALL_SECONDS
        for law in self._laws:
            if law.id in self.found:
                check, (scenario, violation) = self.check_of(law), self.found[law.id]
                check.violation, check.scenario = violation, repr(scenario)
                if not violation.timed and time.monotonic() < until:
                    check.replays = replayed(partial(self._breaks, law), scenario)
        if not self.found:
            for law_id, reason in self._unfinished.items():
                self._evidence.laws[law_id].failure = reason


def _is_busy() -> bool:
    """Return whether more is to be done on this machine than it can do at once. Windows does not tell."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)
