"""What becomes of a law in one run of the suite: the five outcomes of CONTRACT.md, and the numbers behind each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from eventpact.domain.dispatcher import Guarantees
from eventpact_contracts.driver.trace import Trace

__all__ = ["CONTRACT_VERSION", "LawResult", "Outcome", "Verdict", "Violation"]

CONTRACT_VERSION: Final = "1.0"


class Outcome(Enum):
    """What became of a law."""

    UPHELD = "upheld"
    VIOLATED = "violated"
    ABSENT = "absent, as declared"
    UNCLAIMED = "unclaimed"
    COULD_NOT_RUN = "could not run"


@dataclass(frozen=True)
class Violation:
    """A counterexample: which law it breaks, how, and all that happened.

    Attributes:
        law_id: the law.
        message: how it is broken.
        trace: all that happened.
        timed: whether it rests on how long something took, so that it has to be seen again before it counts.
    """

    law_id: str
    message: str
    trace: Trace
    timed: bool = False


@dataclass(frozen=True)
class LawResult:
    """What became of one law, over one dispatcher.

    Attributes:
        law_id: the law.
        title: its title in CONTRACT.md.
        outcome: what became of it.
        examples: how many scripts were run.
        observations: how often the state that the law is about was reached in them.
        detail: what there is to say: what was missing, how an absence was seen, the message of a violation, what was
            not tried although the law is upheld.
        seconds: how long it took.
        violation: the counterexample, shrunk, where there is one.
        script: what to type to see it again.
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


@dataclass(frozen=True)
class Verdict:
    """What became of all laws that were asked for, over one dispatcher."""

    contract_version: str
    dispatcher: str
    guarantees: Guarantees | None
    results: tuple[LawResult, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """0: each law is upheld, absent as declared or unclaimed. 1: one is violated. 2: one, or all, could not run."""
        outcomes = {result.outcome for result in self.results}
        if Outcome.VIOLATED in outcomes:
            return 1
        return 2 if Outcome.COULD_NOT_RUN in outcomes or not outcomes else 0
