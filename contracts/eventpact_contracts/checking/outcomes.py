"""Results: the outcome of each law over one subject; and the findings of a run that it comes of, as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from eventpact.domain.dispatcher import Guarantees
from eventpact_contracts.driver.trace import Trace

__all__ = ["CONTRACT_VERSION", "Evidence", "LawCheck", "LawResult", "Outcome", "Verdict", "Violation", "with_known"]

CONTRACT_VERSION: Final = "1.1"


class Outcome(Enum):
    """An outcome of CONTRACT.md, or *not selected*: a part of the contract was asked for, and this law is not in it."""

    UPHELD = "upheld"
    ABSENT = "absent, as declared"
    UNCLAIMED = "unclaimed"
    NOT_APPLICABLE = "not applicable"
    NOT_SELECTED = "not selected"
    KNOWN = "known"
    COULD_NOT_RUN = "could not run"
    VIOLATED = "violated"


@dataclass(frozen=True)
class Violation:
    """A counterexample.

    Attributes:
        law_id: the law that it breaks.
        message: how it breaks the law.
        trace: all that happened.
        timed: whether it rests on how long something took, so that it has to be seen again before it counts.
        shortest: whether it rests on the shortest of several times, so that one run may hide it.
    """

    law_id: str
    message: str
    trace: Trace
    timed: bool = False
    shortest: bool = False


@dataclass(frozen=True)
class LawResult:
    """The result of one law over one subject.

    Attributes:
        law_id: the law.
        title: its title in CONTRACT.md.
        outcome: its outcome.
        examples: the number of scenarios that were run.
        observations: how often the state that the law is about was reached in them.
        detail: the message of a violation, the missing prerequisite, the witness of an absence, or the reservation with
            which a law is upheld.
        seconds: the time that it took.
        violation: the counterexample, shrunk, where there is one.
        script: the command that shows it again.
        replays: how often the counterexample was seen when it was run again, and how often it was run.
        known: the reason why a violation of this law is listed as known, where it is listed.
    """

    law_id: str
    title: str
    outcome: Outcome
    examples: int
    observations: int
    detail: str
    seconds: float
    violation: Violation | None = None
    script: str | None = None
    replays: tuple[int, int] | None = None
    known: str = ""

    @property
    def exit_code(self) -> int:
        """0: nothing is wrong. 1: it is violated, or listed as known and not violated. 2: it could not run."""
        if self.outcome is Outcome.VIOLATED or (self.known and self.outcome in _HOLDING):
            return 1
        return 2 if self.outcome is Outcome.COULD_NOT_RUN else 0


_HOLDING: Final = (Outcome.UPHELD, Outcome.ABSENT, Outcome.UNCLAIMED, Outcome.NOT_APPLICABLE)


def gravest(codes: Iterable[int]) -> int:
    """One exit code for several: 1, a violation, outweighs 2, could not run, which stands for nothing at all, too."""
    found = set(codes)
    return 1 if 1 in found else max(found, default=2)


def with_known(result: LawResult, known: Mapping[str, str]) -> LawResult:
    """Take into account that violations of some laws are known: their IDs, each with its reason."""
    reason = known.get(result.law_id, "")
    if not reason:
        return result
    if result.outcome is Outcome.VIOLATED:
        return replace(result, outcome=Outcome.KNOWN, known=reason)
    if result.outcome in _HOLDING:
        detail = f"it is listed as known ({reason}), and was not violated; take it off the list"
        return replace(result, detail=detail, known=reason)
    return replace(result, known=reason)


@dataclass(frozen=True)
class Verdict:
    """The results of all laws over one subject.

    Attributes:
        contract_version: the version of CONTRACT.md.
        dispatcher: the name of the subject: a dispatcher, or a handler where the laws are those of handlers.
        guarantees: the declaration of a dispatcher, where it could be had.
        results: one for each law, in the order of CONTRACT.md.
        seconds: the time that all took.
        module: where the subject is defined, to find out its version.
    """

    contract_version: str
    dispatcher: str
    guarantees: Guarantees | None
    results: tuple[LawResult, ...]
    seconds: float
    module: str = ""

    @property
    def exit_code(self) -> int:
        """The exit code of ``verify``."""
        return gravest(result.exit_code for result in self.results)


@dataclass
class LawCheck:
    """The findings on one law.

    Attributes:
        examples: how many scenarios reached the state that the law is about.
        observations: how often they did.
        likenesses: how often they reached a state like it.
        violation: a counterexample, shrunk.
        scenario: the scenario that it is of.
        replays: how often the counterexample was seen when its scenario was run again, and how often that was run.
        absent: how the law, which is not promised, was seen not to hold.
        detail: a word on things that were not tried.
        failure: why it could not be checked.
        seconds: how long it took.
    """

    examples: int = 0
    observations: int = 0
    likenesses: int = 0
    violation: Violation | None = None
    scenario: str = ""
    replays: tuple[int, int] | None = None
    absent: str | None = None
    detail: str = ""
    failure: str = ""
    seconds: float = 0.0

    def add(self, other: LawCheck) -> None:
        """Take over the findings of another process."""
        self.examples += other.examples
        self.observations += other.observations
        self.likenesses += other.likenesses
        self.seconds += other.seconds
        if self.violation is None:
            self.violation, self.scenario, self.replays = other.violation, other.scenario, other.replays
        self.absent = self.absent or other.absent
        self.detail = self.detail or other.detail
        self.failure = self.failure or other.failure


@dataclass
class Evidence:
    """The findings of a run.

    Attributes:
        laws: the findings on each law, by ID.
        played: how many scenarios were run.
        raised: exceptions of ``dispatch`` and ``aclose``, as they were worded, and how often.
        withstood: hindrances in spite of which the dispatcher accepted.
        waited: how many seconds the suite waited in vain.
        in_loop: whether it was driven inside a running event loop, as it takes events nowhere else and does not say so.
        stopped: why not everything was played, if it was not.
        seconds: how long it took.
    """

    laws: dict[str, LawCheck] = field(default_factory=dict)
    played: int = 0
    raised: Counter[str] = field(default_factory=Counter)
    withstood: dict[str, None] = field(default_factory=dict)
    waited: float = 0.0
    in_loop: bool = False
    stopped: str = ""
    seconds: float = 0.0

    def merged(self, *others: Evidence) -> Evidence:
        """The findings of several processes, together."""
        together = Evidence()
        for each in (self, *others):
            for law_id, check in each.laws.items():
                together.laws.setdefault(law_id, LawCheck()).add(check)
            together.played += each.played
            together.raised += each.raised
            together.withstood |= each.withstood
            together.waited += each.waited
            together.in_loop = together.in_loop or each.in_loop
            together.stopped = together.stopped or each.stopped
            together.seconds = max(together.seconds, each.seconds)
        return together
