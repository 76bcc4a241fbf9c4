"""Scenarios in which handlers, or the failure sink, fail."""

from __future__ import annotations

from functools import cache
from typing import Final

from hypothesis import strategies as st

from eventpact_contracts.scenarios import events, steps
from eventpact_contracts.scenarios.events import ROLES, is_plain
from eventpact_contracts.scenarios.failures import FAILURES, INTERRUPTIONS, LOOK_ALIKES, PERMANENT
from eventpact_contracts.scenarios.scenario import ALWAYS, Caller, EventPlan, HandlerPlan, Scenario, Traits
from eventpact_contracts.scenarios.strategies.parts import (
    ANY,
    USUAL,
    exceptions,
    failing_or_not,
    in_turn,
    interruptions,
    one_caller,
    planning,
)

__all__ = [
    "beside_an_interruption",
    "beside_one_that_fails",
    "every_handler_fails",
    "failing",
    "interrupted",
    "long_run",
    "raising_sink",
    "retried",
]

_CIRCUIT: Final = 12
"""More failures in a row than any usual limit."""

_WAITING_SECONDS: Final = 0.03

_MANY_FAILURES: Final = 120
"""More failures of one handler in a second than anybody would mail."""

SINK_RAISES = ("RuntimeError", "whose text raises", "DispatchError", "DispatcherClosedError", "group", "falsy")


def failing(traits: Traits) -> st.SearchStrategy[Scenario]:
    """Handlers that fail beside handlers that do not."""
    alike = st.builds(
        lambda kind, how: EventPlan(kind, handlers={role: HandlerPlan(fails=ALWAYS, how=how) for role in ROLES[kind]}),
        st.sampled_from((events.Paid, events.Mirrored)),
        st.sampled_from(("without a text", "the same object")),
    )
    return one_caller(planning(ANY, failing_or_not(traits)) | alike, most=_most(traits, 3))


def _most(traits: Traits, usual: int) -> int:
    """Return how many events at once: more where each may be tried again, as most engines let them wait together."""
    return usual + 1 if traits.guarantees.retries else usual


def raising_sink(traits: Traits) -> st.SearchStrategy[Scenario]:
    """The same, and the failure sink raises."""

    @cache
    def drawn(role: str) -> st.SearchStrategy[HandlerPlan]:
        return st.builds(HandlerPlan, fails=st.just(ALWAYS), how=exceptions(role)) | st.just(HandlerPlan())

    first = st.sampled_from(USUAL).map(lambda kind: EventPlan(kind, handlers={ROLES[kind][0]: HandlerPlan(ALWAYS)}))
    rest = planning(ANY, drawn)
    return st.builds(
        lambda one, others, inside, how: Scenario(
            (one, *others), (in_turn(1 + len(others)),), inside_loop=inside, sink_raises=how
        ),
        first,
        st.lists(rest, max_size=_most(traits, 2)),
        st.booleans() if not traits.needs_loop else st.just(True),
        st.sampled_from(SINK_RAISES),
    )


def interrupted(traits: Traits) -> st.SearchStrategy[Scenario]:
    """Handlers that are cancelled, or raise something that is no ``Exception``."""

    fails = st.sampled_from([ALWAYS, ALWAYS, *range(1, min(traits.guarantees.retries, 1) + 1)])

    @st.composite
    def event(draw: st.DrawFn) -> EventPlan:
        kind = draw(st.sampled_from(ANY))
        role = draw(st.sampled_from(ROLES[kind]))
        how = draw(interruptions(role, needs_loop=traits.needs_loop))
        plan = HandlerPlan(fails=draw(fails), how=how, pauses=draw(st.integers(0, 1)))
        return EventPlan(kind, handlers={role: plan})

    return one_caller(event(), most=_most(traits, 2))


def retried(traits: Traits) -> st.SearchStrategy[Scenario]:
    """Handlers that fail as often as they may, or once more, beside handlers that succeed."""
    most = traits.guarantees.retries
    fails = st.sampled_from([ALWAYS, 0, *range(1, most + 1)])

    @cache
    def drawn(role: str) -> st.SearchStrategy[HandlerPlan]:
        usual = st.builds(HandlerPlan, fails=fails, how=exceptions(role))
        permanent = st.sampled_from([*PERMANENT])
        then = st.builds(HandlerPlan, fails=fails, how=exceptions(role), then=permanent)
        return usual | st.builds(HandlerPlan, fails=fails, how=permanent) | then

    def some_fails(plan: EventPlan) -> EventPlan:
        if any(each.fails for each in plan.handlers.values()):
            return plan
        return EventPlan(plan.kind, handlers={**plan.handlers, ROLES[plan.kind][0]: HandlerPlan(fails=ALWAYS)})

    return one_caller(planning((*ANY, events.Paid), drawn).map(some_fails), most=_most(traits, 2))


def beside_one_that_fails(traits: Traits) -> tuple[Scenario, ...]:
    """One handler of each kind fails beside one that does not, and before another event; with each exception."""
    failing = {role: HandlerPlan(fails=ALWAYS) for role in ROLES[events.Paid][:2]}
    beside = Scenario((EventPlan(events.Paid, handlers=failing), EventPlan(events.Placed)), (in_turn(2),))
    # Exceptions that a future cannot carry, a generator takes for its end, or a dispatcher takes for its own.
    plans: list[EventPlan] = []
    for name, failure in {**FAILURES, **LOOK_ALIKES}.items():
        kind, role = (events.Priced, "coroutine") if failure.awaited and len(plans) % 2 else (events.Placed, "plain")
        plans.append(EventPlan(kind, handlers={role: HandlerPlan(fails=ALWAYS, how=name)}))
    if traits.guarantees.retries:
        plans = _four_at_once()  # an engine may let each event wait for the one before
    last, size = EventPlan(events.Paid), 12 if not traits.guarantees.retries else 4
    groups = [plans[first : first + size] for first in range(0, len(plans), size)]
    return (
        beside,
        _while_others_wait(),
        *(Scenario((*some, last), (in_turn(1 + len(some)),)) for some in groups),
        *(_odd_handlers_fail(traits, first) for first in range(2)),
        *(_alike(how) for how in ("without a text", "the same object")),
    )


def _four_at_once() -> list[EventPlan]:
    """The same exceptions, one for each handler of an event."""
    awaited = [name for name, failure in {**FAILURES, **LOOK_ALIKES}.items() if failure.awaited]
    plain = [*awaited[::2], *(name for name, failure in FAILURES.items() if not failure.awaited)]
    left = {True: plain, False: awaited[1::2]}
    plans: list[EventPlan] = []
    while any(left.values()):
        roles = [role for role in ROLES[events.Paid] if left[is_plain(role)]]
        handlers = {
            role: HandlerPlan(fails=ALWAYS, how=left[is_plain(role)].pop()) for role in roles if left[is_plain(role)]
        }
        plans.append(EventPlan(events.Paid, handlers=handlers))
    return plans


def _while_others_wait() -> Scenario:
    """One handler of an event fails, and the others have begun, and wait for something."""
    failing, waiting = HandlerPlan(fails=ALWAYS, seconds=0.01), HandlerPlan(seconds=_WAITING_SECONDS)
    roles = ROLES[events.Paid]
    plans = tuple(
        EventPlan(events.Paid, handlers={role: failing if role == fails else waiting for role in roles})
        for fails in roles
    )
    return Scenario(plans, (in_turn(len(plans)),))


def _alike(how: str) -> Scenario:
    """Every handler of an event fails in the same way."""
    failing = {role: HandlerPlan(fails=ALWAYS, how=how) for role in ROLES[events.Paid]}
    return Scenario((EventPlan(events.Paid, handlers=failing),), (in_turn(1),))


def _odd_handlers_fail(traits: Traits, first: int) -> Scenario:
    """Every other handler of an unusual kind fails."""
    kinds = (events.Odd, events.Mirrored, events.Recorded, events.Crowded) if traits.quick else (events.Odd,)
    failing = [{role: HandlerPlan(fails=ALWAYS) for role in ROLES[kind][first::2]} for kind in kinds]
    plans = [EventPlan(kind, handlers=handlers) for kind, handlers in zip(kinds, failing, strict=True)]
    return Scenario((*plans, EventPlan(events.Returned)), (in_turn(len(plans) + 1),))


def long_run(traits: Traits) -> tuple[Scenario, ...]:
    """Many failures, one after the other, and then events that nothing is wrong with."""
    count = _CIRCUIT if not traits.guarantees.retries else 3
    failing = (EventPlan(events.Placed, handlers={"plain": HandlerPlan(fails=ALWAYS)}),) * count
    plans = (*failing, EventPlan(events.Placed), EventPlan(events.Paid))
    one_by_one = tuple(step for n in range(len(plans)) for step in (steps.Dispatch(n), steps.AwaitEnded(n)))
    in_a_row = Scenario(plans, (Caller(one_by_one, thread=True),))
    if not traits.quick or traits.guarantees.retries:
        return (in_a_row,)
    return (in_a_row, Scenario(failing[:1], (Caller((steps.Flood(0, _MANY_FAILURES),)),)))


def every_handler_fails(traits: Traits) -> tuple[Scenario, ...]:
    """One failure after the other is reported to a failure sink that raises.

    It raises an ``Exception``: law I5 speaks of interruptions, and of handlers; of a sink's the contract is silent.
    """
    kinds = (events.Paid, events.Mirrored, events.Odd, events.Priced) if traits.quick else (events.Paid, events.Priced)
    plans = tuple(EventPlan(kind, handlers={role: HandlerPlan(fails=ALWAYS) for role in ROLES[kind]}) for kind in kinds)
    return tuple(
        Scenario(plans, (in_turn(len(plans)),), inside_loop=True, sink_raises=how)
        for how in ("ValueError", "whose text raises")
    )


def beside_an_interruption(traits: Traits) -> tuple[Scenario, ...]:
    """One handler is interrupted, in each way, beside those that are not, and before other events, of which one is for
    the same handlers; and one within a cascade.
    """
    plans = []
    for role in ROLES[events.Paid][:2]:
        for name, failure in INTERRUPTIONS.items():
            if is_plain(role) or failure.may_be_awaited(on_loop=traits.needs_loop):
                plans.append(EventPlan(events.Paid, handlers={role: HandlerPlan(fails=ALWAYS, how=name)}))
    # What a handler dispatches is somebody's to wait for, too.
    within = EventPlan(events.Placed, handlers={"plain": HandlerPlan(fails=ALWAYS, how="KeyboardInterrupt")})
    plans.append(EventPlan(events.Placed, handlers={"plain": HandlerPlan(spawns=(within,))}))
    # And what it dispatches is taken, whatever becomes of the handler itself.
    for how in ("KeyboardInterrupt", "Abort"):
        spawning = HandlerPlan(spawns=(EventPlan(events.Paid),), fails=ALWAYS, how=how)
        plans.append(EventPlan(events.Placed, handlers={"plain": spawning}))
    last = (EventPlan(events.Paid), EventPlan(events.Placed))
    if traits.quick:
        return tuple(Scenario((plan, *last), (in_turn(3),)) for plan in plans)
    return (Scenario((*plans, *last), (in_turn(len(plans) + 2),)),)
