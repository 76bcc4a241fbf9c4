"""Scenarios after which something may be left behind."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from eventpact.domain.events import DomainEvent
from eventpact_contracts.scenarios import events, steps
from eventpact_contracts.scenarios.events import ROLES
from eventpact_contracts.scenarios.failures import INTERRUPTIONS
from eventpact_contracts.scenarios.scenario import ALWAYS, Caller, EventPlan, HandlerPlan, Scenario, Traits
from eventpact_contracts.scenarios.strategies.closing import HELD, SINGLE, between_attempts
from eventpact_contracts.scenarios.strategies.parts import (
    ANY,
    each_apart,
    each_behind_the_first,
    failing_or_not,
    in_turn,
    planning,
)

__all__ = ["leaking_in_each_state", "leaks"]


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
            EventPlan(events.Paid, handlers={"coroutine": HELD, "coroutine_too": HandlerPlan(pauses=1)}),
            EventPlan(events.Signed, handlers={"awaitable": HELD}),
        ]
    )
    return st.builds(scenario, some, st.booleans()) | st.builds(
        given_up, held, some, st.sampled_from([0.0, 0.02]), st.booleans()
    )


def leaking_in_each_state(traits: Traits) -> tuple[Scenario, ...]:
    """Closing ends all that the first callers began together, that waits for its next attempt or its turn, or that
    an interruption has left. One that was given up ends when its handler does; one that is refused begins nothing.
    """
    retries = traits.guarantees.retries
    waiting = tuple(replace(between_attempts(kind, ALWAYS, 0.0), leaks=True) for kind in (SINGLE if retries else ()))
    return (
        *(_first_together(number) for number in range(6 if traits.quick else 1)),
        *waiting,
        _refused(),
        *((*_given_up_in_turn(), _interrupted(traits), *map(_with_few, (*SINGLE, None))) if traits.quick else ()),
    )


def _with_few(kind: type[DomainEvent] | None) -> Scenario:
    """A dispatcher with one handler, or with none, has something to do, and closes."""
    plans = tuple(map(EventPlan, (events.Noted,) if kind is None else (kind, events.Noted)))
    taken = Caller((*in_turn(len(plans)).steps, steps.Close(5.0)))
    return Scenario(plans, (taken,), close=True, leaks=True, only=() if kind is None else (kind,))


def _given_up_in_turn() -> tuple[Scenario, ...]:
    """Closing gives up a held delivery, and one of the same handler behind it; they are let go on afterwards."""
    closer = Caller((steps.AwaitStarted(0), steps.AwaitReturned(1, 0.05), steps.Close(0.02), steps.Release(0)))
    return tuple(
        Scenario(
            (EventPlan(kind, handlers={ROLES[kind][0]: HELD}), EventPlan(kind)),
            (*each_behind_the_first(2), closer),
            close=True,
            leaks=True,
        )
        for kind in SINGLE
    )


def _interrupted(traits: Traits) -> Scenario:
    """Handlers raise each interruption in turn, and are awaited where they can."""
    plans = [
        EventPlan(kind, handlers={ROLES[kind][0]: HandlerPlan(fails=ALWAYS, how=name)})
        for name, failure in INTERRUPTIONS.items()
        for kind in SINGLE
        if kind is events.Placed or failure.may_be_awaited(on_loop=traits.needs_loop)
    ]
    return Scenario(tuple(plans), (Caller((*in_turn(len(plans)).steps, steps.Close(5.0))),), close=True, leaks=True)


def _refused() -> Scenario:
    """A closed dispatcher refuses events."""
    taken = (steps.Dispatch(0), steps.Close(5.0), steps.Dispatch(1), steps.Dispatch(2))
    plans = tuple(EventPlan(kind) for kind in (events.Priced, events.Paid, events.Signed))
    return Scenario(plans, (Caller(taken),), close=True, leaks=True)


def _first_together(number: int) -> Scenario:
    """The first events that a dispatcher ever has are dispatched by several threads, and it closes."""
    plans = (EventPlan(events.Priced, values={"number": number}),) * 4
    closer = Caller((*(steps.AwaitReturned(each, 1.0) for each in range(len(plans))), steps.Close(5.0)))
    return Scenario(plans, (*each_apart(len(plans)), closer), close=True, leaks=True, interleaved=True)
