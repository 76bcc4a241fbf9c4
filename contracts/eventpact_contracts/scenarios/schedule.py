"""Orders in which ready tasks may run, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hypothesis import strategies as st

__all__ = ["Schedule", "schedules"]


@dataclass(frozen=True)
class Schedule:
    """Decisions that go otherwise than usual: ``{decision: hold}``.

    A decision is a moment when more than one thing may run; they are counted from 0. Usually the one that has been
    ready longest goes first. At a decision that is mentioned, it is held back until ``hold`` decisions later.
    """

    preemptions: Mapping[int, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Schedule({dict(sorted(self.preemptions.items()))})"


def schedules(*, decisions: int = 128, preemptions: int = 5) -> st.SearchStrategy[Schedule]:
    """Draw schedules with few exceptions among the first ``decisions``; the usual order is the simplest.

    Few exceptions find nearly every race: it is rare that more than a handful of steps must be out of order. As it is
    not known how many decisions a run will have, a third of the schedules each is for short, middling and long ones.
    """

    def within(horizon: int) -> st.SearchStrategy[dict[int, int]]:
        return st.dictionaries(st.integers(0, horizon - 1), st.integers(1, 16), max_size=preemptions)

    return st.one_of(*map(within, sorted({min(decisions, 8), min(decisions, 32), decisions}))).map(Schedule)
