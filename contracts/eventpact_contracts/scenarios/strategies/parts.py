"""What scripts are made of: events, and how their handlers behave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from eventpact.domain.events import DomainEvent
from eventpact_contracts.scenarios import cast
from eventpact_contracts.scenarios.cast import ROLES, is_async
from eventpact_contracts.scenarios.scenario import ALWAYS, Behaviour, Caller, Dispatch, Planned, Script, Setting

__all__ = [
    "SUBSCRIBED",
    "USUAL",
    "behaving",
    "exceptions",
    "failing_or_not",
    "in_turn",
    "of",
    "one_caller",
]


USUAL = (cast.Placed, cast.Priced, cast.Paid)


SUBSCRIBED = (*USUAL, cast.Shipped, cast.ShippedAbroad, cast.ShippedByAir, cast.Described)


def exceptions(role: str) -> st.SearchStrategy[str]:
    """What a handler raises. A future cannot carry StopIteration, and an ``async def`` cannot raise it."""
    usual = ("ValueError", "KeyError", "Exception", "TimeoutError", "Awkward")
    return st.sampled_from(usual if is_async(role) else (*usual, "StopIteration"))


def one_caller(
    events: st.SearchStrategy[Planned], *, least: int = 1, most: int = 4, **given: Any
) -> st.SearchStrategy[Script]:
    return st.builds(
        lambda drawn, inside: Script(tuple(drawn), (in_turn(len(drawn)),), inside_loop=inside, **given),
        st.lists(events, min_size=least, max_size=most),
        st.booleans(),
    )


def in_turn(count: int, first: int = 0) -> Caller:
    return Caller(tuple(Dispatch(number) for number in range(first, first + count)))


def of(kinds: tuple[type[DomainEvent], ...], **behaviours: Any) -> st.SearchStrategy[Planned]:
    return st.sampled_from(kinds).map(lambda kind: Planned(kind, behaviours=behaviours))


def behaving(
    kinds: tuple[type[DomainEvent], ...], behaviour: Callable[[str], st.SearchStrategy[Behaviour]]
) -> st.SearchStrategy[Planned]:
    """An event whose handlers each behave as drawn."""

    def planned(kind: type[DomainEvent]) -> st.SearchStrategy[Planned]:
        return st.fixed_dictionaries({role: behaviour(role) for role in ROLES[kind]}).map(
            lambda behaviours: Planned(kind, behaviours=behaviours)
        )

    return st.one_of([planned(kind) for kind in kinds])


def failing_or_not(setting: Setting) -> Callable[[str], st.SearchStrategy[Behaviour]]:
    fails = st.sampled_from([0, ALWAYS, *range(1, min(setting.guarantees.retries, 2) + 1)])
    return lambda role: st.builds(Behaviour, fails=fails, how=exceptions(role))
