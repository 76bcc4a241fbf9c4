"""Scripts in which handlers, or the failure sink, fail."""

from __future__ import annotations

from hypothesis import strategies as st

from eventpact.domain.events import DomainEvent
from eventpact_contracts.scenarios import cast
from eventpact_contracts.scenarios.cast import ROLES, is_async
from eventpact_contracts.scenarios.scenario import ALWAYS, Behaviour, Planned, Script, Setting
from eventpact_contracts.scenarios.strategies.parts import (
    USUAL,
    behaving,
    exceptions,
    failing_or_not,
    in_turn,
    one_caller,
)

__all__ = [
    "failing",
    "interrupted",
    "raising_sink",
    "retried",
]


def failing(setting: Setting) -> st.SearchStrategy[Script]:
    """Handlers that fail beside handlers that do not."""
    return one_caller(behaving((*USUAL, cast.Shipped), failing_or_not(setting)), most=_most(setting, 3))


def _most(setting: Setting, usual: int) -> int:
    """How many events at once: more where each may be tried again, as all wait at the same time."""
    return 3 * usual if setting.guarantees.retries else usual


def raising_sink(setting: Setting) -> st.SearchStrategy[Script]:
    """The same, and the failure sink raises."""

    def always(role: str) -> st.SearchStrategy[Behaviour]:
        return st.builds(Behaviour, fails=st.just(ALWAYS), how=exceptions(role))

    first = st.sampled_from(USUAL).map(lambda kind: Planned(kind, behaviours={ROLES[kind][0]: Behaviour(fails=ALWAYS)}))
    rest = behaving(USUAL, lambda role: always(role) | st.just(Behaviour()))
    return st.builds(
        lambda one, others, inside: Script(
            (one, *others), (in_turn(1 + len(others)),), inside_loop=inside, sink_raises=True
        ),
        first,
        st.lists(rest, max_size=_most(setting, 2)),
        st.booleans() if not setting.needs_loop else st.just(True),
    )


def interrupted(setting: Setting) -> st.SearchStrategy[Script]:
    """A handler is cancelled, or raises what is no ``Exception``.

    Where handlers share the suite's own loop, an ``async def`` that raised ``KeyboardInterrupt`` would end that loop,
    as asyncio has it; there, only cancellation is drawn for it.
    """

    def interruption(role: str) -> st.SearchStrategy[str]:
        if not is_async(role):
            return st.sampled_from(["KeyboardInterrupt", "SystemExit"])
        return st.sampled_from(["CancelledError", *([] if setting.needs_loop else ["KeyboardInterrupt", "SystemExit"])])

    def event(kind: type[DomainEvent]) -> st.SearchStrategy[Planned]:
        return st.sampled_from(ROLES[kind]).flatmap(
            lambda role: interruption(role).map(
                lambda how: Planned(kind, behaviours={role: Behaviour(fails=ALWAYS, how=how)})
            )
        )

    return one_caller(st.one_of([event(kind) for kind in USUAL]), most=_most(setting, 2))


def retried(setting: Setting) -> st.SearchStrategy[Script]:
    """Handlers that fail as often as they may, or once more, beside handlers that succeed."""
    most = setting.guarantees.retries
    fails = st.sampled_from([ALWAYS, 0, *range(1, most + 1)])

    def drawn(role: str) -> st.SearchStrategy[Behaviour]:
        return st.builds(Behaviour, fails=fails, how=exceptions(role))

    def some_fails(planned: Planned) -> Planned:
        if any(behaviour.fails for behaviour in planned.behaviours.values()):
            return planned
        return Planned(planned.kind, behaviours={**planned.behaviours, ROLES[planned.kind][0]: Behaviour(fails=ALWAYS)})

    return one_caller(behaving(USUAL, drawn).map(some_fails), most=_most(setting, 2))
