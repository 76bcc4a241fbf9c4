"""A law as one block: its identity, the scenarios that reach it, its judge, its observations, its usual causes.

A law stands in the file of its chapter, as a judge that is decorated::

    @law("R7", families=("quiet",), observations=_accepted, causes=(...), rogue="chatty")
    def returns_nothing(view: TraceView) -> Fault | None:
        ...

Its title and its words are read from CONTRACT.md by its ID.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from eventpact.domain.dispatcher import Guarantees
from eventpact_contracts.checking.outcomes import Violation
from eventpact_contracts.driver.trace import Trace
from eventpact_contracts.laws.view import TraceView
from eventpact_contracts.scenarios.scenario import Scenario, Traits

__all__ = ["Fault", "Law", "always", "contract_words", "law", "registered"]

_CONTRACT: Final = Path(__file__).parents[1] / "CONTRACT.md"
_LAW_LINE: Final = re.compile(r"^- \*\*([A-Z]\d+) ([^*]+)\*\*: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Fault:
    """Violation of a law by a trace.

    Attributes:
        message: how, in a sentence.
        timed: whether it rests on how long something took, so that it has to be seen again before it counts.
        shortest: whether it rests on the shortest of several times, so that one run may hide it.
    """

    message: str
    timed: bool = False
    shortest: bool = False


Judge = Callable[[TraceView], Fault | None]
J = TypeVar("J", bound=Judge)


def always(guarantees: Guarantees) -> bool:  # noqa: ARG001 - the other claims look at it
    """Promise a law of every dispatcher."""
    return True


def _nothing(traits: Traits) -> tuple[Scenario, ...]:  # noqa: ARG001 - others look at it
    return ()


@dataclass(frozen=True, kw_only=True)
class Law:
    """One law of CONTRACT.md.

    Attributes:
        id: its ID there.
        title: its title there.
        promise: its words there.
        find_fault: finds how a trace breaks it: the decorated judge.
        observe: counts how often a trace reached the state that it is about, and was judged.
        families: the families of scenarios that reach that state.
        fixed: scenarios that every run plays for it: large, or too important to leave to chance.
        promised: whether a dispatcher with such guarantees promises it. If it does not, a trace that breaks it is the
            witness of its absence.
        witness: finds the absence in a trace, where that is not a trace that breaks the law. A dispatcher that does
            not promise the law is then judged all the same.
        likeness: counts how often a trace reached a state like the one that it is about, which stands in for that one
            where the dispatcher could not be brought to it. The law is then upheld, with a detail on the attempts.
        usual_order: whether it judges only traces in which ready tasks ran in the usual order; C3 judges the others.
        cancelled: whether it judges traces in which closing was cancelled, too.
        processes: whether it is about processes that are killed, so that its traces come from elsewhere.
        needs: the capability without which nothing of it remains to be compared.
        causes: its usual causes.
        rogue: the dispatcher of the known-bad gallery that fails alike, by name.
    """

    id: str
    title: str
    promise: str
    find_fault: Judge
    observe: Callable[[TraceView], int]
    families: tuple[str, ...] = ()
    fixed: Callable[[Traits], tuple[Scenario, ...]] = _nothing
    promised: Callable[[Guarantees], bool] = always
    witness: Callable[[TraceView], str | None] | None = None
    likeness: Callable[[TraceView], int] | None = None
    usual_order: bool = False
    cancelled: bool = False
    processes: bool = False
    needs: str = ""
    causes: tuple[str, ...] = ()
    rogue: str = ""

    def judge(self, trace: Trace | TraceView) -> Violation | None:
        """Judge a trace."""
        view = _view(trace)
        if self._passes_over(view):
            return None
        fault = self.find_fault(view)
        return None if fault is None else Violation(self.id, fault.message, view.trace, fault.timed, fault.shortest)

    def observations(self, trace: Trace | TraceView) -> int:
        """Count how often the trace reached the state that the law is about."""
        view = _view(trace)
        return 0 if self._passes_over(view) else self.observe(view)

    def _passes_over(self, view: TraceView) -> bool:
        return (self.usual_order and not view.is_usual) or (view.was_cancelled and not self.cancelled)


def _view(trace: Trace | TraceView) -> TraceView:
    return trace if isinstance(trace, TraceView) else TraceView(trace)


_REGISTERED: Final[dict[str, Law]] = {}


def law(law_id: str, *, observations: Callable[[TraceView], int], **given: Any) -> Callable[[J], J]:
    """Register the decorated judge as that of a law; see :class:`Law`."""
    title, promise = contract_words()[law_id]

    def register(judge: J) -> J:
        _REGISTERED[law_id] = Law(
            id=law_id, title=title, promise=promise, find_fault=judge, observe=observations, **given
        )
        return judge

    return register


def registered() -> tuple[Law, ...]:
    """The laws whose chapters have been imported, in CONTRACT.md's order."""
    return tuple(_REGISTERED[law_id] for law_id in contract_words() if law_id in _REGISTERED)


@cache
def contract_words() -> dict[str, tuple[str, str]]:
    """Title and words of each law of CONTRACT.md, by ID."""
    text = _CONTRACT.read_text("utf-8")
    return {law_id: (title.strip(), words.strip()) for law_id, title, words in _LAW_LINE.findall(text)}
