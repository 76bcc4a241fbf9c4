"""Scenarios in which nothing goes wrong, and scenarios with inputs that no dispatcher may take."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import chain, starmap
from typing import Final

from hypothesis import strategies as st

from eventpact.domain.events import DomainEvent
from eventpact_contracts.scenarios import events, steps
from eventpact_contracts.scenarios.events import FAMILY, ROLES, UNSUBSCRIBED
from eventpact_contracts.scenarios.invalid import (
    ASYNC_REGISTRATION,
    EMPTY_REGISTRATIONS,
    INVALID_REGISTRATIONS,
    NON_EVENTS,
)
from eventpact_contracts.scenarios.scenario import Caller, EventPlan, HandlerPlan, Scenario, Traits
from eventpact_contracts.scenarios.strategies.parts import ANY, SUBSCRIBED, USUAL, in_turn, of, one_caller, planning
from eventpact_contracts.scenarios.values import CONTENTS, TEXTS

__all__ = [
    "beside_a_neighbour",
    "every_content",
    "every_invalid",
    "every_non_event",
    "invalid",
    "kinds_of_handlers",
    "non_events",
    "quiet",
    "relatives",
    "rich",
]


_BLOCKS: Final = ((0, 0x600), (0x2000, 0x2070), (0x3040, 0x3100), (0xFFF0, 0x10000), (0x1F600, 0x1F650))
_CHARACTERS: Final = "".join(map(chr, chain.from_iterable(starmap(range, _BLOCKS))))
"""Characters of many kinds. For ``text``, Hypothesis would make a table of Unicode first, which takes seconds."""

_NOT_THE_DEFAULTS: Final = EventPlan(events.Described, values={"usually": None, "maybe": 0, "flag": True})


def quiet(traits: Traits) -> st.SearchStrategy[Scenario]:  # noqa: ARG001 - strategies share one signature
    """One caller, and nothing goes wrong."""
    return one_caller(of((*SUBSCRIBED, *UNSUBSCRIBED)), most=6)


def relatives(traits: Traits) -> st.SearchStrategy[Scenario]:  # noqa: ARG001
    """Events of related types, and events without a handler."""
    return one_caller(of((*FAMILY, *FAMILY, events.Noted, events.AnotherPlaced, events.Placed)), most=5)


def kinds_of_handlers(traits: Traits) -> st.SearchStrategy[Scenario]:  # noqa: ARG001
    """Handlers of every kind, which give way now and then, and return meaningless values."""
    plans = st.builds(HandlerPlan, pauses=st.sampled_from([0, 0, 1, 2, 30]), returns=st.booleans(), spawns=st.just(()))
    return one_caller(planning((events.Paid, events.Shipped, *events.ODD), lambda _: plans), most=3)


def rich(traits: Traits) -> st.SearchStrategy[Scenario]:
    """Events with any values, also where an attempt comes after one that failed."""
    return one_caller(_described(traits), most=2)


def _described(traits: Traits) -> st.SearchStrategy[EventPlan]:
    text = st.sampled_from(TEXTS) | st.lists(st.sampled_from(_CHARACTERS), max_size=20).map("".join)
    integers = st.integers() | st.integers(-(2**13_900), 2**13_900)
    decimals = st.decimals(allow_nan=False)
    zones = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)).map(
        lambda offset: timezone(timedelta(seconds=offset // timedelta(seconds=1)))
    )
    moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=zones)  # noqa: DTZ001 - zones are drawn
    points = st.builds(events.Point, x=integers, label=text, at=st.none() | moments)
    values = {
        "number": integers,
        "text": text,
        "flag": st.booleans(),
        "ratio": st.floats(allow_nan=False, allow_infinity=False),
        "price": decimals,
        "at": moments,
        "day": st.dates(),
        "key": st.uuids(),
        "size": st.sampled_from(events.Size),
        "several": st.lists(text, max_size=3).map(tuple),
        "pair": st.tuples(integers, decimals),
        "point": points,
        "points": st.lists(points, max_size=2).map(tuple),
        "maybe": st.none() | integers,
        "maybe_point": st.none() | points,
        "usually": st.none() | text,
        "occurred_at": moments,
    }
    fails = st.sampled_from([{}, {}, {"plain": HandlerPlan(fails=min(1, traits.guarantees.retries))}])
    return st.builds(
        lambda drawn, handlers: EventPlan(events.Described, values=drawn, handlers=handlers),
        st.fixed_dictionaries({}, optional=values),
        fails,
    )


def non_events(traits: Traits) -> st.SearchStrategy[Scenario]:  # noqa: ARG001
    """Objects that are no events, beside events; a handler dispatches some."""

    def scenario(kind: type[DomainEvent], wrong: list[int], nested: list[int], inside: bool) -> Scenario:
        plan = EventPlan(kind, handlers={ROLES[kind][-1]: HandlerPlan(non_events=tuple(nested))} if nested else {})
        taken: tuple[steps.Step, ...] = (steps.Dispatch(0), *map(steps.DispatchNonEvent, wrong), steps.Dispatch(0))
        return Scenario((plan,), (Caller(taken),), inside_loop=inside)

    numbers = st.integers(0, len(NON_EVENTS) - 1)
    several, few = st.lists(numbers, min_size=1, max_size=4), st.lists(numbers, max_size=2)
    return st.builds(scenario, st.sampled_from(ANY), several, few, st.booleans())


def invalid(traits: Traits) -> st.SearchStrategy[Scenario]:
    """A registration that cannot be."""
    return st.sampled_from(every_invalid(traits))


def beside_a_neighbour(traits: Traits) -> tuple[Scenario, ...]:
    """Handlers that dispatch to another dispatcher of the same class, which has handlers of its own."""
    # A caller who waits for the neighbour's handlers on the loop of the async ones may keep them from running.
    roles = ("plain",) if traits.guarantees.blocks_caller else ("plain", "coroutine")
    to_neighbour = HandlerPlan(beside=tuple(map(EventPlan, (*USUAL, events.Noted))))
    plans = (*map(EventPlan, USUAL), EventPlan(events.Paid, handlers=dict.fromkeys(roles, to_neighbour)))
    return (Scenario(plans, (in_turn(len(plans)),)),) if traits.in_memory else ()


def every_content(traits: Traits) -> tuple[Scenario, ...]:
    """Every content that breaks serializers, once."""
    every = CONTENTS if traits.quick else CONTENTS[::3]
    plans = (*(EventPlan(events.Paid, values=content) for content in every), _NOT_THE_DEFAULTS)
    return (Scenario(plans, (in_turn(len(plans)),)),)


def every_invalid(traits: Traits) -> tuple[Scenario, ...]:
    """Each registration that cannot be, once."""
    every = INVALID_REGISTRATIONS if traits.async_handlers else (*INVALID_REGISTRATIONS, ASYNC_REGISTRATION)
    every += EMPTY_REGISTRATIONS if traits.empty_lists else ()
    return tuple(Scenario(registration=wrong) for wrong in every)


def every_non_event(traits: Traits) -> tuple[Scenario, ...]:  # noqa: ARG001
    """Each object that is no event, before the dispatcher has seen any event; and handlers that dispatch each."""
    numbers = range(len(NON_EVENTS))
    nested = dict.fromkeys(("plain", "coroutine"), HandlerPlan(non_events=tuple(numbers)))
    return (
        Scenario((EventPlan(events.Placed),), (Caller((*map(steps.DispatchNonEvent, numbers), *in_turn(1).steps)),)),
        Scenario((), (Caller(tuple(map(steps.DispatchNonEvent, numbers))),), inside_loop=True),
        Scenario((), (Caller(tuple(map(steps.DispatchNonEvent, numbers[:3])), thread=True),)),
        Scenario((EventPlan(events.Paid, handlers=nested),), (in_turn(1),)),
    )
