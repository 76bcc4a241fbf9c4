"""The parts of scenarios: events, plans of their handlers, and callers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final

from hypothesis import strategies as st

from eventpact.domain.events import DomainEvent
from eventpact_contracts.scenarios import events, steps
from eventpact_contracts.scenarios.events import ROLES, is_plain
from eventpact_contracts.scenarios.failures import FAILURES, INTERRUPTIONS, LOOK_ALIKES, PERMANENT
from eventpact_contracts.scenarios.scenario import ALWAYS, Caller, EventPlan, HandlerPlan, Scenario, Traits
from eventpact_contracts.scenarios.values import CONTENTS, ROUND_NUMBERS

__all__ = [
    "ANY",
    "FLOOD",
    "SUBSCRIBED",
    "USUAL",
    "each_apart",
    "each_behind_the_first",
    "exceptions",
    "failing_or_not",
    "filled",
    "in_turn",
    "interruptions",
    "many_callers",
    "of",
    "one_caller",
    "planning",
]


USUAL: Final = (events.Placed, events.Priced, events.Paid)
SUBSCRIBED: Final = tuple(kind for kind, roles in ROLES.items() if roles and kind is not events.Marker)
ANY: Final = (*USUAL, *USUAL, *events.ODD, events.Shipped, events.ShippedByCaravan, events.ShippedBothWays)
"""The types of most scenarios: usual ones as often as unusual ones."""

FLOOD: Final = 1_050
"""More events than a queue usually holds, or anybody usually counts to."""

_MAX_PLANNED_ROLES: Final = 4
"""Of a type with more handlers than this, only some have plans in one scenario."""


def exceptions(role: str) -> st.SearchStrategy[str]:
    """Exceptions that a handler raises. A future cannot carry some of them, and an ``async def`` cannot raise them."""
    return _exceptions(awaited=not is_plain(role))


@cache
def _exceptions(*, awaited: bool) -> st.SearchStrategy[str]:
    failures = FAILURES | LOOK_ALIKES | PERMANENT
    return st.sampled_from([name for name, each in failures.items() if each.awaited or not awaited])


def interruptions(role: str, *, needs_loop: bool) -> st.SearchStrategy[str]:
    """Exceptions that are no ``Exception``.

    Where handlers share the suite's own loop, an awaited handler that raised ``KeyboardInterrupt`` would end that loop,
    as asyncio has it; there, only the others are drawn for it.
    """
    return _interruptions(awaited=not is_plain(role), on_loop=needs_loop)


@cache
def _interruptions(*, awaited: bool, on_loop: bool) -> st.SearchStrategy[str]:
    names = [name for name, each in INTERRUPTIONS.items() if not awaited or each.may_be_awaited(on_loop=on_loop)]
    return st.sampled_from(names)


def one_caller(
    plans: st.SearchStrategy[EventPlan], *, least: int = 1, most: int = 4, **given: Any
) -> st.SearchStrategy[Scenario]:
    return st.builds(
        lambda drawn, inside: Scenario(tuple(drawn), (in_turn(len(drawn)),), inside_loop=inside, **given),
        st.lists(plans, min_size=least, max_size=most),
        st.booleans(),
    )


def in_turn(count: int, first: int = 0) -> Caller:
    return Caller(tuple(steps.Dispatch(number) for number in range(first, first + count)))


def each_apart(count: int) -> tuple[Caller, ...]:
    """Callers who each dispatch one event, in threads."""
    return tuple(Caller((steps.Dispatch(number),), thread=True) for number in range(count))


def each_behind_the_first(count: int) -> tuple[Caller, ...]:
    """The same, and all others wait until the first event is held, as an engine with one thread holds but one."""
    first, *others = each_apart(count)
    return first, *(Caller((steps.AwaitStarted(0), *other.steps), thread=True) for other in others)


def many_callers(
    drawn: Sequence[Sequence[EventPlan]], *, threads: Sequence[bool] | None = None
) -> tuple[tuple[EventPlan, ...], list[Caller]]:
    """Callers who each dispatch some events, in threads unless it is said otherwise."""
    callers, first = [], 0
    for number, one in enumerate(drawn):
        callers.append(Caller(in_turn(len(one), first).steps, thread=threads is None or threads[number]))
        first += len(one)
    return tuple(plan for one in drawn for plan in one), callers


def of(kinds: Sequence[type[DomainEvent]], **handlers: HandlerPlan) -> st.SearchStrategy[EventPlan]:
    """Events of these types whose handlers succeed, or do as they are told."""
    return st.sampled_from(kinds).map(lambda kind: EventPlan(kind, handlers=handlers))


@st.composite
def planning(
    draw: st.DrawFn, kinds: Sequence[type[DomainEvent]], handler: Callable[[str], st.SearchStrategy[HandlerPlan]]
) -> EventPlan:
    """An event whose handlers each do as is drawn. ``handler`` returns the same strategy for the same role."""
    kind = draw(st.sampled_from(kinds))
    roles = ROLES[kind]
    if len(roles) > _MAX_PLANNED_ROLES:
        step = draw(st.sampled_from((3, 5)))
        roles = roles[draw(st.integers(0, step - 1)) :: step]
    return EventPlan(kind, handlers={role: draw(handler(role)) for role in roles})


def failing_or_not(traits: Traits) -> Callable[[str], st.SearchStrategy[HandlerPlan]]:
    fails = st.sampled_from([0, ALWAYS, *range(1, min(traits.guarantees.retries, 2) + 1)])

    @cache
    def drawn(role: str) -> st.SearchStrategy[HandlerPlan]:
        return st.builds(HandlerPlan, fails=fails, how=exceptions(role), returns=st.booleans())

    return drawn


def filled(scenarios: st.SearchStrategy[Scenario]) -> st.SearchStrategy[Scenario]:
    """The same scenarios, with content in their events."""
    content = st.sampled_from([{}, *ROUND_NUMBERS, *CONTENTS])
    return st.builds(_fill, scenarios, st.lists(content, min_size=2, max_size=2))


def _fill(scenario: Scenario, contents: list[dict[str, Any]]) -> Scenario:
    plans = tuple(_filled(plan, contents, number) for number, plan in enumerate(scenario.events))
    return replace(scenario, events=plans)


def _filled(plan: EventPlan, contents: list[dict[str, Any]], number: int) -> EventPlan:
    values = plan.values or contents[number % len(contents)]
    handlers = {
        role: replace(each, spawns=tuple(_filled(child, contents, number + 1) for child in each.spawns))
        for role, each in plan.handlers.items()
    }
    return replace(plan, values=values, handlers=handlers)
