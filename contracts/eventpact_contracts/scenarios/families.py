"""Families of scenarios: each reaches some states of a dispatcher, and every law judges the traces.

A run plays each family once. The laws name the families that reach their states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st

from eventpact_contracts.scenarios.scenario import Scenario, Traits
from eventpact_contracts.scenarios.strategies import closing, concurrent, failing, leaking, routing
from eventpact_contracts.scenarios.strategies.parts import filled

__all__ = ["FAMILIES", "Family"]


@dataclass(frozen=True)
class Family:
    """Scenarios of one sort.

    Attributes:
        name: its name.
        strategy: draws its scenarios for a subject with such traits.
        share: the part of the usual number of examples that it gets.
        seconds: the time that it may take for a hundred examples; some are played in any case.
    """

    name: str
    strategy: Callable[[Traits], st.SearchStrategy[Scenario]]
    share: float
    seconds: float

    def scenarios(self, traits: Traits) -> st.SearchStrategy[Scenario]:
        """The strategy, with content in the events."""
        return filled(self.strategy(traits))


_ALL: Final = (
    Family("quiet", routing.quiet, 1.0, 0.19),
    Family("relatives", routing.relatives, 0.6, 0.1),
    Family("kinds of handlers", routing.kinds_of_handlers, 0.6, 0.14),
    Family("any content", routing.rich, 0.8, 0.19),
    Family("no events", routing.non_events, 0.3, 0.08),
    Family("failing", failing.failing, 0.8, 0.19),
    Family("raising sink", failing.raising_sink, 0.5, 0.14),
    Family("interrupted", failing.interrupted, 0.6, 0.14),
    Family("retried", failing.retried, 0.5, 0.14),
    Family("threads", concurrent.threads, 0.4, 0.14),
    Family("cascades", concurrent.cascades, 0.6, 0.14),
    Family("held", concurrent.held, 0.3, 0.19),
    Family("ordered", concurrent.ordered, 0.6, 0.14),
    Family("schedules", concurrent.schedules, 1.5, 0.29),
    Family("closed", closing.closed, 0.3, 0.1),
    Family("closing", closing.closing, 0.4, 0.24),
    Family("closing twice", closing.closing_twice, 0.25, 0.14),
    Family("paused", concurrent.paused, 0.6, 0.32),
    Family("racing", closing.racing, 0.4, 0.14),
    Family("leaks", leaking.leaks, 0.2, 0.24),
)

FAMILIES: Final = {family.name: family for family in _ALL}
"""Every family, by name, in the order in which they are played."""
