"""Scenarios in which the dispatcher closes, in each state that a delivery may be in."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from itertools import islice
from typing import Final

from hypothesis import strategies as st

from eventpact.domain.events import DomainEvent
from eventpact_contracts.scenarios import events, steps
from eventpact_contracts.scenarios.events import ROLES
from eventpact_contracts.scenarios.scenario import ALWAYS, Caller, EventPlan, HandlerPlan, Scenario, Traits
from eventpact_contracts.scenarios.strategies.concurrent import (
    FIRST_LINES,
    failing_after,
    full_when_closing,
    paused_after,
)
from eventpact_contracts.scenarios.strategies.parts import (
    ANY,
    USUAL,
    each_apart,
    each_behind_the_first,
    exceptions,
    in_turn,
    many_callers,
    of,
    planning,
)

__all__ = [
    "HELD",
    "SINGLE",
    "between_attempts",
    "closed",
    "closing",
    "closing_in_each_state",
    "closing_twice",
    "let_go_while_closing",
    "racing",
]

HELD: Final = HandlerPlan(held=True)

SINGLE: Final = (events.Placed, events.Priced, events.Signed)
"""Types with one handler, whose events are given up with that."""

_DEEP: Final = 1_000
"""So deep a cascade may be where an event takes less than a millisecond."""

_LONG_SECONDS: Final = 3.0
"""Longer than anybody looks each second who looks at longer and longer intervals whether all is settled."""

_BACKLOG: Final = 120
"""Events that are pending when the dispatcher closes."""

_UNREPORTED_LINES: Final = range(4, 34, 5)
"""Of the lines between an attempt that failed and its report, some: it takes more of them to do so by mistake."""

_FIRST_WAIT_SECONDS: Final = 0.7
"""Longer than most dispatchers wait before a second attempt."""


def closed(traits: Traits) -> st.SearchStrategy[Scenario]:  # noqa: ARG001
    """Events that are dispatched while closing lasts, and afterwards."""

    def scenario(kind: type[DomainEvent], during: list[EventPlan], after: list[EventPlan], inside: bool) -> Scenario:
        # A held handler keeps closing from ending before the second caller had its turn.
        first = EventPlan(kind, handlers={ROLES[kind][0]: HELD})
        numbers = iter(map(steps.Dispatch, range(1, 1 + 2 * len(during) + len(after))))
        dispatching = tuple(islice(numbers, len(during)))
        late: tuple[steps.Step, ...]
        late = (steps.AwaitBegun(), *dispatching, steps.Release(0), steps.AwaitClosed(), *islice(numbers, len(after)))
        before = [EventPlan(plan.kind) for plan in during]  # what was found out about a type may be remembered
        return Scenario(
            (first, *during, *after, *before),
            (
                Caller((*numbers, steps.Dispatch(0)), thread=True),
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
        first = EventPlan(events.Paid, handlers={"coroutine": HELD})
        after = (steps.AwaitBegun(), steps.CollectGarbage(), steps.Release(0))
        return _closing((first, *plans), steps.Close(5.0), after, inside, apart=apart)

    def held_too_long(plans: list[EventPlan], timeout: float, inside: bool) -> Scenario:
        """One handler is held until closing has ended."""
        first = EventPlan(events.Priced, handlers={"coroutine": HELD})
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
        st.builds(partial(_let_go_late, apart=apart), st.sampled_from(ROLES[events.Paid]), some, st.booleans()),
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


def between_attempts(
    kind: type[DomainEvent], fails: int, timeout: float, inside: bool = False, *, rest: float = 0.0
) -> Scenario:
    """An attempt has failed when closing begins, and the next is planned, and may not come in ``rest`` seconds."""
    plan = EventPlan(kind, handlers={ROLES[kind][0]: HandlerPlan(fails=fails)})
    closing: tuple[steps.Step, ...] = (steps.AwaitEnded(0), steps.Rest(0.003), steps.Close(timeout))
    if rest:
        closing += (steps.Rest(rest),)
    callers = (Caller((steps.Dispatch(0),), thread=True), Caller(closing))
    return Scenario((plan,), callers, inside_loop=inside, close=True)


def _let_go_late(
    role: str, plans: list[EventPlan], inside: bool, handler: HandlerPlan = HELD, *, apart: bool = False
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
        plans = (*plans, EventPlan(events.Priced, handlers={"coroutine": HELD}))
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


def closing_in_each_state(traits: Traits) -> tuple[Scenario, ...]:
    """Closing in each state that a delivery may be in."""
    # A plain handler cannot be cancelled, so closing has to leave without it, whatever becomes of it.
    found = [
        _held_too_long((events.Placed, HandlerPlan(held=True)), (events.Placed, HandlerPlan(held=True, fails=ALWAYS))),
        _held_too_long((events.Placed, HandlerPlan(held=True, fails=ALWAYS)), (events.Placed, HandlerPlan())),
        # Those behind it are given up with it, though it is let go on later.
        _held_too_long((events.Paid, HandlerPlan(held=True)), (events.Placed, HandlerPlan())),
        _all_held(traits),
        # Where the caller waits for the handler, it is his to wait for.
        *(() if traits.guarantees.blocks_caller else (_resisting(),)),
        # An interruption of its own is none of the dispatcher's, which has not given it up.
        *(_cancels_itself(kind, role) for kind, role in ((events.Priced, "coroutine"), (events.Placed, "plain"))),
        # It ends in the second of grace, when the handlers behind it are not to have their turn any more.
        _let_go_late("plain", [], inside=False),
        # It takes longer than closing needs to look at it once.
        *(_slow(kind, role) for kind, role in ((events.Placed, "plain"), (events.Priced, "coroutine"))),
        *(
            between_attempts(kind, ALWAYS, timeout, rest=rest)
            for kind in SINGLE
            # A timer that nobody has cancelled would start the next attempt by then.
            for timeout, rest in ((0.0, _FIRST_WAIT_SECONDS), (5.0, 0.0))
            if traits.guarantees.retries
        ),
    ]
    if traits.quick:
        many = ((events.Placed, HandlerPlan(held=True)),) * 12  # more than there are threads: some are queued
        found.append(_held_too_long(*many, timeout=_LONG_SECONDS))
    if traits.quick and not traits.guarantees.blocks_caller:
        found += [_backlog(timeout) for timeout in (0.0, 5.0)]
        found += [full_when_closing(0.02, ends_late=late) for late in (False, True)]
        # A chain that is shorter takes long for other reasons: each dispatcher would take a while to open.
        found += [paused_after(place, 0.0) for place in range(FIRST_LINES if traits.depth >= _DEEP else 0)]
    if traits.quick:
        found += [failing_after(place, closes=not traits.guarantees.blocks_caller) for place in _UNREPORTED_LINES]
    if not traits.needs_loop:
        found.append(_reporting())
    if traits.guarantees.blocks_caller and not traits.needs_loop:
        # The failure sink has the caller's thread to itself: only reported deliveries are settled.
        told = HandlerPlan(fails=ALWAYS, report_held=True)
        found.append(_held_too_long((events.Placed, told), (events.Paid, told)))
        found.append(_let_go_late(ROLES[events.Paid][-1], [], inside=False, handler=told))
    return tuple(found)


def _held_too_long(*given: tuple[type[DomainEvent], HandlerPlan], timeout: float = 0.02) -> Scenario:
    """Plain handlers, or the reports of their failures, are held until closing has ended."""
    plans = tuple(EventPlan(kind, handlers={"plain": handler}) for kind, handler in given)
    closer: tuple[steps.Step, ...] = (
        steps.AwaitStarted(0),
        *(steps.AwaitReturned(n, 0.05) for n in range(1, len(plans))),
        steps.Close(timeout),
        *(steps.Release(n) for n in range(len(plans))),
    )
    return Scenario(plans, (*each_behind_the_first(len(plans)), Caller(closer)), close=True)


def _all_held(traits: Traits) -> Scenario:
    """Every handler that there is is held until closing has ended, which waits once for all of them."""
    kinds = (events.Paid, events.Placed, events.Crowded, events.Priced)[: 4 if traits.quick else 2]
    plans = tuple(EventPlan(kind, handlers={role: HandlerPlan(held=True) for role in ROLES[kind]}) for kind in kinds)
    closer: tuple[steps.Step, ...] = (
        steps.AwaitStarted(0),
        *(steps.AwaitReturned(n, 0.02) for n in range(len(plans))),
        steps.Close(0.19),
        *(steps.Release(n) for n in range(len(plans))),
    )
    return Scenario(plans, (*each_behind_the_first(len(plans)), Caller(closer)), close=True)


def let_go_while_closing(plan: EventPlan) -> Scenario:
    """A held handler, or a held report, goes on when closing has begun and waits for it."""
    callers = (
        Caller((steps.Dispatch(0),), thread=True),
        Caller((steps.AwaitStarted(0), steps.Close(5.0))),
        Caller((steps.AwaitBegun(), steps.Release(0))),
    )
    return Scenario((plan,), callers, close=True)


def _cancels_itself(kind: type[DomainEvent], role: str) -> Scenario:
    """A handler is let go on while closing has time left, and raises the exception that cancels a task."""
    plan = EventPlan(kind, handlers={role: HandlerPlan(held=True, fails=ALWAYS, how="CancelledError")})
    return let_go_while_closing(plan)


def _resisting() -> Scenario:
    """A handler that goes on waiting when it is cancelled is held until closing has ended."""
    plan = EventPlan(events.Priced, handlers={"coroutine": HandlerPlan(held=True, resists=True)})
    closer = (steps.AwaitStarted(0), steps.Close(0.02), steps.Release(0))
    return Scenario((plan,), (*each_apart(1), Caller(closer)), close=True)


def _slow(kind: type[DomainEvent], role: str) -> Scenario:
    """A handler that takes a while runs when closing begins, and another waits for it."""
    plans = [EventPlan(kind, handlers={role: HandlerPlan(seconds=0.3, spawns=(EventPlan(events.Counted),))})]
    plans.append(EventPlan(kind))
    return Scenario(
        tuple(plans),
        (
            Caller((steps.Dispatch(0), steps.Dispatch(1)), thread=True),
            Caller((steps.AwaitStarted(0), steps.Close(5.0))),
        ),
        close=True,
    )


def _backlog(timeout: float) -> Scenario:
    """Many events are pending behind one that is held, and closing gives up or settles all of them."""
    first = EventPlan(events.Priced, handlers={"coroutine": HandlerPlan(held=True)})
    kinds = (events.Priced, events.Placed, events.Paid, events.Emptied)
    plans = (first, *(EventPlan(kinds[number % 4]) for number in range(_BACKLOG)))
    opening: tuple[steps.Step, ...] = (
        (steps.AwaitBegun(), steps.Release(0)) if timeout else (steps.AwaitClosed(), steps.Release(0))
    )
    return Scenario(plans, (Caller((*in_turn(len(plans)).steps, steps.Close(timeout))), Caller(opening)), close=True)


def _reporting() -> Scenario:
    """A failure is being reported when closing begins, and closing waits for that."""
    plan = EventPlan(events.Placed, handlers={"plain": HandlerPlan(fails=ALWAYS, report_held=True)})
    return let_go_while_closing(plan)
