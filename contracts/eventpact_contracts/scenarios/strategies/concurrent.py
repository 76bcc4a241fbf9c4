"""Scenarios with many callers, with cascades, and with an order of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st

from eventpact.domain.events import DomainEvent
from eventpact_contracts.scenarios import events, steps
from eventpact_contracts.scenarios.events import ROLES
from eventpact_contracts.scenarios.scenario import ALWAYS, Caller, EventPlan, HandlerPlan, Scenario, Traits
from eventpact_contracts.scenarios.schedule import Schedule
from eventpact_contracts.scenarios.schedule import schedules as orders
from eventpact_contracts.scenarios.strategies.parts import (
    ANY,
    FLOOD,
    USUAL,
    each_apart,
    failing_or_not,
    in_turn,
    many_callers,
    of,
    one_caller,
    planning,
)

__all__ = [
    "FIRST_LINES",
    "cascades",
    "failing_after",
    "full_when_closing",
    "held",
    "ordered",
    "paused",
    "paused_after",
    "paused_at",
    "schedules",
    "threads",
    "woken_after",
]

FIRST_LINES: Final = 24
"""So far goes, at the most, whoever decides whether to take an event."""

_MAX_LINES = 200

_BLOCKED_SECONDS = 0.03
"""The time that a scenario gives a caller who is likely to be waiting."""

_WAITING_SECONDS: Final = 0.2
"""By then a caller waits for room, if he is ever going to."""

_LATE_SECONDS: Final = 0.1
"""A deadline of hundredths of a second is over by then, and the second after it is not."""


def threads(traits: Traits) -> st.SearchStrategy[Scenario]:
    """Several threads dispatch at once, and now and then a handler fails."""

    def scenario(drawn: list[list[EventPlan]], interleaved: bool) -> Scenario:
        plans, callers = many_callers(drawn)
        return Scenario(plans, tuple(callers), interleaved=interleaved)

    quiet = st.lists(st.lists(of(ANY), min_size=1, max_size=4), min_size=2, max_size=6)
    failing = st.lists(
        st.lists(planning(USUAL, failing_or_not(traits)), min_size=1, max_size=3), min_size=2, max_size=3
    )
    return st.builds(scenario, st.one_of(quiet, quiet, quiet, failing), st.booleans())


def paused_at(
    place: int, *, closes: bool, kinds: Sequence[type[DomainEvent]] = (events.Placed,) * 3, inside: bool = False
) -> Scenario:
    """Dispatching pauses after so many lines, and meanwhile another caller closes, or dispatches."""
    first = Caller((steps.DispatchPaused(0), steps.DispatchPaused(1, place)), thread=True)
    meanwhile = steps.Close(0.5) if closes else steps.Dispatch(2)
    other = Caller((steps.AwaitPaused(), meanwhile, steps.Resume()), thread=not closes)
    plans = tuple(map(EventPlan, kinds[: 2 if closes else 3]))
    return Scenario(plans, (first, other), inside_loop=inside, close=closes)


def paused_after(
    place: int, timeout: float, *, kind: type[DomainEvent] = events.Placed, at_once: int = 1, inside: bool = False
) -> Scenario:
    """A thread of the dispatcher pauses so many lines after a handler has ended, and meanwhile a caller closes.

    Args:
        at_once: how many handlers run by then: a dispatcher of fewer threads has something left for each.
    """
    last = ROLES[kind][-1]
    first = EventPlan(kind, handlers={last: HandlerPlan(held=True, pauses_after=place)})
    dispatched = tuple(steps.Dispatch(number) for number in range(at_once + 2))
    released = tuple(steps.Release(number) for number in range(at_once))
    late = steps.AwaitEnded(at_once, _BLOCKED_SECONDS)  # what is begun now was given up already
    closing = Caller((steps.AwaitPaused(at_once), steps.Close(timeout), steps.Resume(), late))
    return Scenario(
        (first,) * at_once + (EventPlan(kind),) * 2,
        (Caller((*dispatched, steps.AwaitStarted(0), *released)), closing),
        inside_loop=inside,
        close=True,
    )


def woken_after(place: int, *, kind: type[DomainEvent] = events.Placed) -> Scenario:
    """A thread of the dispatcher pauses so many lines after a handler has ended; a caller dispatches meanwhile."""
    first = EventPlan(kind, handlers={ROLES[kind][-1]: HandlerPlan(pauses_after=place)})
    meanwhile = Caller((steps.AwaitPaused(0), steps.Dispatch(1), steps.Resume()), thread=True)
    return Scenario((first, EventPlan(kind)), (Caller((steps.Dispatch(0),), thread=True), meanwhile))


def failing_after(
    place: int, *, closes: bool, kind: type[DomainEvent] = events.Placed, inside: bool = False
) -> Scenario:
    """A thread of the dispatcher pauses so many lines after a handler has failed for good, which is to be reported.

    Args:
        closes: whether a caller closes meanwhile; the one who has dispatched it may be waiting.
    """
    failing = HandlerPlan(fails=ALWAYS, how="PermanentFailureError", pauses_after=place)
    meanwhile = (steps.AwaitPaused(0), steps.Close(1.0)) if closes else (steps.AwaitReturned(0),)
    return Scenario(
        (EventPlan(kind, handlers={ROLES[kind][0]: failing}),),
        (Caller((steps.Dispatch(0),), thread=True), Caller((*meanwhile, steps.Resume()))),
        inside_loop=inside,
        close=closes,
    )


def paused(traits: Traits) -> st.SearchStrategy[Scenario]:
    """The same at any line, with events of any type."""
    kinds = st.sampled_from((*USUAL, events.Signed))
    dispatching = st.builds(
        paused_at,
        st.integers(0, _MAX_LINES),
        closes=st.booleans(),
        kinds=st.lists(kinds, min_size=3, max_size=3),
        inside=st.booleans(),
    )
    lines, inside = st.integers(0, 2 * FIRST_LINES), st.booleans()
    blocks = traits.guarantees.blocks_caller
    failing = st.builds(failing_after, lines, closes=st.just(not blocks), kind=kinds, inside=inside)
    if blocks:
        return dispatching | failing
    return (
        dispatching
        | dispatching
        | failing
        | st.builds(
            paused_after,
            lines,
            st.sampled_from([0.0, 0.5]),
            kind=kinds,
            at_once=st.sampled_from([1, 1, 4]),
            inside=inside,
        )
    )


def cascades(traits: Traits) -> st.SearchStrategy[Scenario]:
    """Handlers that dispatch, deep and wide; some fail afterwards."""

    def grown(children: st.SearchStrategy[EventPlan]) -> st.SearchStrategy[EventPlan]:
        return st.builds(
            lambda kind, role, spawns, fails: EventPlan(
                kind,
                handlers={ROLES[kind][role % len(ROLES[kind])]: HandlerPlan(spawns=tuple(spawns), fails=fails)},
            ),
            st.sampled_from((*USUAL, events.Recorded, events.Signed)),
            st.integers(0, 3),
            st.lists(children, min_size=1, max_size=4),
            st.sampled_from([0, 0, 0, ALWAYS]),
        )

    leaf = of((*ANY, events.Noted))
    tree = grown(leaf) | grown(leaf | grown(leaf))
    chain = st.builds(
        lambda kind, chain: EventPlan(kind, chain=chain),
        st.sampled_from([*USUAL, events.Signed]),
        st.integers(1, min(20, traits.depth)),
    )
    return one_caller(tree | chain, most=2)


def schedules(traits: Traits) -> st.SearchStrategy[Scenario]:
    """Everything at once, under a drawn order of the ready tasks."""
    if not traits.schedulable:
        return _releases()
    pausing = st.builds(
        HandlerPlan,
        fails=st.sampled_from([0, 0, ALWAYS, min(1, traits.guarantees.retries)]),
        pauses=st.integers(0, 2),
    )
    either = pausing | st.builds(HandlerPlan, spawns=st.lists(of(USUAL), min_size=1, max_size=2).map(tuple))
    spawning = planning((events.Priced, events.Paid), lambda _: either)

    def scenario(
        drawn: list[list[EventPlan]], threads: list[bool], timeout: float | None, apart: bool, order: Schedule
    ) -> Scenario:
        plans, callers = many_callers(drawn, threads=threads)
        if timeout is not None:
            first = callers.pop()
            *before, last = first.steps
            assert isinstance(last, steps.Dispatch)
            callers += (
                [first, Caller((steps.Close(timeout),))]
                if apart
                else [Caller((*before, steps.Close(timeout, last.event)))]
            )
        return Scenario(plans, tuple(callers), inside_loop=True, close=timeout is not None, schedule=order)

    return st.builds(
        scenario,
        st.lists(st.lists(spawning, min_size=1, max_size=2), min_size=1, max_size=3),
        st.lists(st.booleans(), min_size=3, max_size=3),
        st.sampled_from([None, 0.0, 5.0]),
        st.booleans(),
        orders(),
    )


def _releases() -> st.SearchStrategy[Scenario]:
    """Without another choice: callers whose handlers are held, and go on in a drawn order."""

    def scenario(kinds: list[type[DomainEvent]], fails: list[bool], order: list[int]) -> Scenario:
        plans = tuple(
            EventPlan(kind, handlers={ROLES[kind][-1]: HandlerPlan(held=True, fails=ALWAYS if fail else 0)})
            for kind, fail in zip(kinds, fails, strict=False)
        )
        releases = tuple(number for number in order if number < len(plans))
        return Scenario(plans, each_apart(len(plans)), releases=releases)

    return st.builds(
        scenario,
        st.lists(st.sampled_from(USUAL), min_size=2, max_size=4),
        st.lists(st.booleans(), min_size=4, max_size=4),
        st.permutations(range(4)),
    )


def ordered(traits: Traits) -> st.SearchStrategy[Scenario]:
    """Callers who each dispatch several events to the same handlers."""
    pausing = st.builds(
        HandlerPlan,
        pauses=st.integers(0, 2),
        fails=st.sampled_from([0, *range(1, min(traits.guarantees.retries, 1) + 1)]),
    )
    plans = planning((*USUAL, events.Recorded), lambda _: pausing)

    def scenario(drawn: list[list[EventPlan]], order: Schedule | None, inside: bool) -> Scenario:
        planned, callers = many_callers(drawn, threads=[len(drawn) > 1] * len(drawn))
        return Scenario(planned, tuple(callers), inside_loop=inside, schedule=order if traits.schedulable else None)

    few = st.builds(
        scenario,
        st.lists(st.lists(plans, min_size=2, max_size=5), min_size=1, max_size=2),
        st.none() | orders() if traits.schedulable else st.none(),
        st.booleans(),
    )
    # Where the operating system chooses who runs next, it takes many events until two are seen to change places.
    many = st.builds(
        lambda kind, count: Scenario((EventPlan(kind),), (Caller((steps.Flood(0, count),)),)),
        st.sampled_from([*USUAL, events.Recorded]),
        st.integers(2, min(60, traits.depth)),
    )
    return few if traits.needs_loop else few | many


def held(traits: Traits) -> st.SearchStrategy[Scenario]:
    """A handler is held while its caller may or may not wait; others dispatch meanwhile, and handlers dispatch."""
    blocks = traits.guarantees.blocks_caller
    patience = _BLOCKED_SECONDS if blocks else None
    apart = blocks or not traits.needs_loop

    def hold(kind: type[DomainEvent], role: int) -> Scenario:
        return Scenario(
            (_held(kind, role),),
            (
                Caller((steps.Dispatch(0),), thread=apart),
                Caller((steps.AwaitStarted(0), steps.AwaitReturned(0, patience), steps.Release(0))),
            ),
        )

    def beside(kind: type[DomainEvent], role: int, others: Sequence[EventPlan]) -> Scenario:
        """Other outermost callers dispatch while the first is held."""
        numbers = range(1, 1 + len(others))
        return Scenario(
            (_held(kind, role), *others),
            (
                Caller((steps.Dispatch(0),), thread=apart),
                *(Caller((steps.AwaitStarted(0), steps.Dispatch(number)), thread=apart) for number in numbers),
                Caller(
                    (
                        steps.AwaitStarted(0),
                        *(steps.AwaitReturned(n, _BLOCKED_SECONDS) for n in numbers),
                        steps.Release(0),
                    )
                ),
            ),
        )

    def cascade(first: type[DomainEvent], second: type[DomainEvent], role: int, inside: bool) -> Scenario:
        spawning = HandlerPlan(spawns=(EventPlan(second),))
        plan = EventPlan(first, handlers={ROLES[first][role % len(ROLES[first])]: spawning})
        return Scenario((plan,), (in_turn(1),), inside_loop=inside)

    kinds, roles = st.sampled_from([*USUAL, events.Paid, events.Signed]), st.integers(0, 3)
    some = st.lists(of(ANY), min_size=1, max_size=2)
    return st.one_of(
        st.builds(hold, kinds, roles),
        st.builds(beside, kinds, roles, some),
        st.builds(cascade, kinds, st.sampled_from([*USUAL, *events.ODD]), roles, st.booleans()),
    )


def _held(kind: type[DomainEvent], role: int) -> EventPlan:
    roles = ROLES[kind]
    return EventPlan(kind, handlers={roles[role % len(roles)]: HandlerPlan(held=True)})


def full_when_closing(timeout: float, *, ends_late: bool = False) -> Scenario:
    """A flood in which a caller waits for room, if the dispatcher is one that lets him, when closing makes some: by
    settling what is pending, or by giving it up, as what was at work ends in the second after that or does not.
    """
    held = EventPlan(events.Placed, handlers={"plain": HandlerPlan(held=True)})
    flooding = Caller((steps.Dispatch(0), steps.Flood(1, FLOOD)), thread=True)
    closing = Caller((steps.AwaitStarted(0), steps.Rest(_WAITING_SECONDS), steps.Close(timeout)))
    given_up = (steps.AwaitBegun(), steps.Rest(_LATE_SECONDS)) if ends_late else (steps.AwaitClosed(),)
    releasing = Caller((*((steps.AwaitBegun(),) if timeout > 1.0 else given_up), steps.Release(0)), thread=True)
    # One who began to wait later waits longer: until closing has given up, and everybody has let it take its second.
    late = Caller((steps.AwaitStarted(0), steps.Rest(_WAITING_SECONDS / 2), steps.Dispatch(1)), thread=True)
    others = EventPlan(events.Placed) if timeout > 1.0 else held  # each thread of the dispatcher has one
    return Scenario((held, others), (flooding, closing, releasing, late), close=True)
