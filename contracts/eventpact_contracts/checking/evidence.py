"""Evidence: the findings of a run, law by law, as plain data, so that families can be played in several processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from eventpact_contracts.checking.outcomes import Violation

__all__ = ["Evidence", "LawCheck"]


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
        stopped: why not everything was played, if it was not.
        seconds: how long it took.
    """

    laws: dict[str, LawCheck] = field(default_factory=dict)
    played: int = 0
    raised: Counter[str] = field(default_factory=Counter)
    withstood: dict[str, None] = field(default_factory=dict)
    waited: float = 0.0
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
            together.stopped = together.stopped or each.stopped
            together.seconds = max(together.seconds, each.seconds)
        return together
