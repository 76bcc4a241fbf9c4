"""Scenarios in which the dispatcher closes, in each state that a delivery may be in."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Final

from hypothesis import strategies as st

from eventpact.domain.events import DomainEvent
from eventpact_contracts.scenarios import events, steps
from eventpact_contracts.scenarios.events import ROLES
from eventpact_contracts.scenarios.scenario import ALWAYS, Caller, EventPlan, HandlerPlan, Scenario, Traits
from eventpact_contracts.scenarios.strategies.parts import (
    ANY,
    USUAL,
    exceptions,
    failing_or_not,
    in_turn,
    many_callers,
    of,
    planning,
)

__all__ = [
    "between_attempts",
    "closed",
    "closing",
    "closing_twice",
    "leaks",
    "let_go_late",
    "racing",
]


_HELD: Final = HandlerPlan(held=True)


def closed(traits: Traits) -> st.SearchStrategy[Scenario]:  # noqa: ARG001
    """Events that are dispatched while closing lasts, and afterwards."""

    def scenario(kind: type[DomainEvent], during: list[EventPlan], after: list[EventPlan], inside: bool) -> Scenario:
        # A held handler keeps closing from ending before the second caller had its turn.
        first = EventPlan(kind, handlers={ROLES[kind][0]: _HELD})
        late: tuple[steps.Step, ...] = (
            steps.AwaitBegun(),
            *(steps.Dispatch(1 + number) for number in range(len(during))),
            steps.Release(0),
            steps.AwaitClosed(),
            *(steps.Dispatch(1 + len(during) + number) for number in range(len(after))),
        )
        return Scenario(
            (first, *during, *after),
            (
                Caller((steps.Dispatch(0),), thread=True),
                Caller((steps.AwaitStarted(0), steps.Close(5.0))),
                Caller(late),
            ),
            inside_loop=inside,
            close=True,
        )

    kinds = of((*ANY, events.Noted, events.ShippedByMule, events.AnotherPlaced))
    during, after = st.lists(kinds, min_size=1, max_size=3), st.lists(kinds, min_size=2, max_size=5)
    return st.builds(scenario, st.sampled_from(USUAL), during, after, st.booleans())


def closing(traits: Traits) -> st.SearchStrategy[Scenario]:
    """A dispatcher that closes while there is something to settle."""

    @cache
    def handler(role: str) -> st.SearchStrategy[HandlerPlan]:
        fails = [ALWAYS, *range(1, traits.guarantees.retries + 1)]
        failing = st.builds(HandlerPlan, fails=st.sampled_from(fails), how=exceptions(role))
        spawning = st.builds(HandlerPlan, spawns=st.lists(of(USUAL), min_size=1, max_size=1).map(tuple))
        return st.just(HandlerPlan()) | failing | st.just(HandlerPlan(pauses=1)) | spawning

    usual = planning(ANY, handler)
    apart = traits.guarantees.blocks_caller

    def let_go(plans: list[EventPlan], inside: bool) -> Scenario:
        """One handler is held, and let go on in time."""
        first = EventPlan(events.Paid, handlers={"coroutine": _HELD})
        after = (steps.AwaitBegun(), steps.CollectGarbage(), steps.Release(0))
        return _closing((first, *plans), steps.Close(5.0), after, inside, apart=apart)

    def held_too_long(plans: list[EventPlan], timeout: float, inside: bool) -> Scenario:
        """One handler is held until closing has ended."""
        first = EventPlan(events.Priced, handlers={"coroutine": _HELD})
        return _closing(
            (first, *plans), steps.Close(timeout), (steps.AwaitClosed(), steps.Release(0)), inside, apart=apart
        )

    def at_once(plans: list[EventPlan], timeout: float, inside: bool) -> Scenario:
        """Whatever is pending is closed upon."""
        taken = (*in_turn(len(plans)).steps, steps.Close(timeout))
        return Scenario(tuple(plans), (Caller(taken),), inside_loop=inside, close=True)

    def cascading(kind: type[DomainEvent], timeout: float, inside: bool) -> Scenario:
        """A cascade is under way when closing begins."""
        callers = (Caller((steps.Dispatch(0),), thread=True), Caller((steps.AwaitEnded(0), steps.Close(timeout))))
        plan = EventPlan(kind, chain=min(20, traits.depth))
        return Scenario((plan,), callers, inside_loop=inside, close=True)

    some = st.lists(usual, min_size=1, max_size=3)
    timeouts = st.sampled_from([0.0, 0.02, 5.0])
    fails = st.sampled_from([ALWAYS, *range(1, traits.guarantees.retries + 1)])
    return st.one_of(
        st.builds(at_once, some, st.sampled_from([5.0, 5.0, 0.0]), st.booleans()),
        st.builds(let_go, some, st.booleans()),
        st.builds(partial(let_go_late, apart=apart), st.sampled_from(ROLES[events.Paid]), some, st.booleans()),
        st.builds(held_too_long, some, st.sampled_from([0.0, 0.02]), st.booleans()),
        st.builds(between_attempts, st.sampled_from(USUAL), fails, timeouts, st.booleans()),
        st.builds(cascading, st.sampled_from(USUAL), timeouts, st.booleans()),
    )


def _closing(
    plans: tuple[EventPlan, ...], close: steps.Close, after: tuple[steps.Step, ...], inside: bool, *, apart: bool
) -> Scenario:
    """One caller dispatches the first event, one the others, one closes, and one takes the steps that follow.

    Args:
        apart: whether who dispatches is a thread everywhere, because he may have to wait for one who is not.
    """
    return Scenario(
        plans,
        (
            Caller(tuple(steps.Dispatch(n) for n in range(1, len(plans))), thread=apart),
            Caller((steps.Dispatch(0),), thread=True),
            Caller((steps.AwaitStarted(0), close)),
            Caller(after),
        ),
        inside_loop=inside,
        close=True,
    )


def between_attempts(kind: type[DomainEvent], fails: int, timeout: float, inside: bool = False) -> Scenario:
    """An attempt has failed when closing begins, and the next may not have come."""
    plan = EventPlan(kind, handlers={ROLES[kind][0]: HandlerPlan(fails=fails)})
    callers = (Caller((steps.Dispatch(0),), thread=True), Caller((steps.AwaitEnded(0), steps.Close(timeout))))
    return Scenario((plan,), callers, inside_loop=inside, close=True)


def let_go_late(
    role: str, plans: list[EventPlan], inside: bool, handler: HandlerPlan = _HELD, *, apart: bool = False
) -> Scenario:
    """One handler is held past the deadline, and let go on before closing has to end."""
    first = EventPlan(events.Paid, handlers={role: handler})
    after = (steps.AwaitBegun(), steps.AwaitReturned(0, 0.1), steps.Release(0))
    return _closing((first, *plans), steps.Close(0.0), after, inside, apart=apart)


def closing_twice(traits: Traits) -> st.SearchStrategy[Scenario]:
    """The same, and once more, at once or afterwards."""

    def twice(scenario: Scenario, at_once: bool, timeout: float) -> Scenario:
        after: tuple[steps.Step, ...] = (steps.AwaitBegun(),) if at_once else (steps.AwaitClosed(),)
        return replace(scenario, callers=(*scenario.callers, Caller((*after, steps.Close(timeout)))))

    return st.builds(twice, closing(traits), st.booleans(), st.sampled_from([0.0, 1.0]))


def racing(traits: Traits) -> st.SearchStrategy[Scenario]:  # noqa: ARG001
    """Events that are dispatched while another caller closes."""

    def scenario(drawn: list[list[EventPlan]], hold: bool, inside: bool) -> Scenario:
        plans, callers = many_callers(drawn)
        if not hold:
            closer = Caller((steps.Close(5.0),))
            return Scenario(plans, (*callers, closer), inside_loop=inside, close=True, interleaved=True)
        # Held, the first event keeps closing from ending before the others are dispatched.
        plans = (*plans, EventPlan(events.Priced, handlers={"coroutine": _HELD}))
        last = len(plans) - 1
        rest = tuple(Caller((steps.AwaitBegun(), *caller.steps), thread=True) for caller in callers[1:])
        return Scenario(
            plans,
            (
                Caller((steps.Dispatch(last),), thread=True),
                Caller((steps.AwaitStarted(last), steps.Close(5.0))),
                Caller((steps.AwaitStarted(last), *callers[0].steps), thread=True),
                *rest,
                Caller((steps.AwaitBegun(), *(steps.AwaitReturned(n, 1.0) for n in range(last)), steps.Release(last))),
            ),
            inside_loop=inside,
            close=True,
        )

    return st.builds(
        scenario,
        st.lists(st.lists(of(ANY), min_size=1, max_size=3), min_size=1, max_size=3),
        st.booleans(),
        st.booleans(),
    )


def leaks(traits: Traits) -> st.SearchStrategy[Scenario]:
    """A dispatcher that had something to do, and closes."""

    def scenario(plans: list[EventPlan], inside: bool) -> Scenario:
        taken = (*in_turn(len(plans)).steps, steps.Close(5.0))
        return Scenario(tuple(plans), (Caller(taken),), inside_loop=inside, close=True, leaks=True)

    def given_up(first: EventPlan, plans: list[EventPlan], timeout: float, inside: bool) -> Scenario:
        """Closing has to give up one event, of whose handlers one is held and those behind it have no turn."""
        every = (first, *plans)
        return Scenario(
            every,
            (
                Caller((steps.Dispatch(0),), thread=True),
                *(
                    Caller((steps.AwaitStarted(0), steps.Dispatch(number)), thread=True)
                    for number in range(1, len(every))
                ),
                Caller((steps.AwaitStarted(0), steps.Close(timeout))),
            ),
            inside_loop=inside,
            close=True,
            leaks=True,
        )

    some = st.lists(planning(ANY, failing_or_not(traits)), min_size=1, max_size=3)
    held = st.sampled_from(
        [
            EventPlan(events.Paid, handlers={"coroutine": _HELD, "coroutine_too": HandlerPlan(pauses=1)}),
            EventPlan(events.Signed, handlers={"awaitable": _HELD}),
        ]
    )
    return st.builds(scenario, some, st.booleans()) | st.builds(
        given_up, held, some, st.sampled_from([0.0, 0.02]), st.booleans()
    )
