"""Scenarios in which handlers, or the failure sink, fail."""

from __future__ import annotations

from functools import cache

from hypothesis import strategies as st

from eventpact_contracts.scenarios import events
from eventpact_contracts.scenarios.events import ROLES
from eventpact_contracts.scenarios.failures import PERMANENT
from eventpact_contracts.scenarios.scenario import ALWAYS, EventPlan, HandlerPlan, Scenario, Traits
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

__all__ = ["failing", "interrupted", "raising_sink", "retried"]

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
