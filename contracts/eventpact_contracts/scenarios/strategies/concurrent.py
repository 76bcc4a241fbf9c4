"""Scripts with many callers, with cascades, and with an order of their own."""

from __future__ import annotations

from hypothesis import strategies as st

from eventpact.domain.events import DomainEvent
from eventpact_contracts.driver.scheduled_loop import Schedule
from eventpact_contracts.driver.scheduled_loop import schedules as orders
from eventpact_contracts.scenarios import cast
from eventpact_contracts.scenarios.cast import ROLES
from eventpact_contracts.scenarios.scenario import (
    ALWAYS,
    AwaitReturned,
    AwaitStarted,
    Behaviour,
    Caller,
    Close,
    Dispatch,
    Flood,
    Planned,
    Release,
    Script,
    Setting,
)
from eventpact_contracts.scenarios.strategies.parts import USUAL, behaving, in_turn, of, one_caller

__all__ = [
    "cascades",
    "held",
    "ordered",
    "schedules",
    "threads",
]


def threads(setting: Setting) -> st.SearchStrategy[Script]:  # noqa: ARG001
    """Several threads dispatch at once."""

    def script(drawn: list[list[Planned]]) -> Script:
        events = tuple(planned for one in drawn for planned in one)
        callers, first = [], 0
        for one in drawn:
            callers.append(Caller(in_turn(len(one), first).steps, thread=True))
            first += len(one)
        return Script(events, tuple(callers))

    return st.lists(st.lists(of(USUAL), min_size=1, max_size=4), min_size=2, max_size=6).map(script)


def cascades(setting: Setting) -> st.SearchStrategy[Script]:
    """Handlers that dispatch, deep and wide."""

    def grown(children: st.SearchStrategy[Planned]) -> st.SearchStrategy[Planned]:
        return st.builds(
            lambda kind, role, spawns: Planned(
                kind, behaviours={ROLES[kind][role % len(ROLES[kind])]: Behaviour(spawns=tuple(spawns))}
            ),
            st.sampled_from(USUAL),
            st.integers(0, 3),
            st.lists(children, min_size=1, max_size=4),
        )

    leaf = of(USUAL)
    tree = grown(leaf) | grown(leaf | grown(leaf))
    chain = st.builds(
        lambda kind, chain: Planned(kind, chain=chain), st.sampled_from(USUAL), st.integers(1, min(20, setting.depth))
    )
    return one_caller(tree | chain, most=2)


def schedules(setting: Setting) -> st.SearchStrategy[Script]:
    """Everything at once, under a drawn order of what is ready."""
    if not setting.needs_loop:
        return _releases()
    pausing = st.builds(
        Behaviour,
        fails=st.sampled_from([0, 0, ALWAYS]),
        pauses=st.integers(0, 2),
    )
    spawning = behaving(
        (cast.Priced, cast.Paid),
        lambda _: pausing | st.builds(Behaviour, spawns=st.lists(of(USUAL), min_size=1, max_size=2).map(tuple)),
    )

    def script(drawn: list[list[Planned]], threads: list[bool], timeout: float | None, order: Schedule) -> Script:
        events = tuple(planned for one in drawn for planned in one)
        callers, first = [], 0
        for one, thread in zip(drawn, threads, strict=False):
            callers.append(Caller(in_turn(len(one), first).steps, thread=thread))
            first += len(one)
        if timeout is not None:
            callers.append(Caller((Close(timeout),)))
        return Script(events, tuple(callers), inside_loop=True, close=timeout is not None, schedule=order)

    return st.builds(
        script,
        st.lists(st.lists(spawning, min_size=1, max_size=2), min_size=1, max_size=3),
        st.lists(st.booleans(), min_size=3, max_size=3),
        st.sampled_from([None, 0.0, 5.0]),
        orders(),
    )


def _releases() -> st.SearchStrategy[Script]:
    """Where nothing else can be chosen: callers whose handlers are held, and go on in a drawn order."""

    def script(kinds: list[type[DomainEvent]], fails: list[bool], order: list[int]) -> Script:
        events = tuple(
            Planned(kind, behaviours={ROLES[kind][-1]: Behaviour(held=True, fails=ALWAYS if fail else 0)})
            for kind, fail in zip(kinds, fails, strict=False)
        )
        callers = tuple(Caller((Dispatch(number),), thread=True) for number in range(len(events)))
        return Script(events, callers, releases=tuple(number for number in order if number < len(events)))

    return st.builds(
        script,
        st.lists(st.sampled_from(USUAL), min_size=2, max_size=4),
        st.lists(st.booleans(), min_size=4, max_size=4),
        st.permutations(range(4)),
    )


def ordered(setting: Setting) -> st.SearchStrategy[Script]:
    """Callers who each dispatch several events to the same handlers."""
    pausing = st.builds(
        Behaviour,
        pauses=st.integers(0, 2),
        fails=st.sampled_from([0, *range(1, min(setting.guarantees.retries, 1) + 1)]),
    )
    events = behaving((cast.Placed, cast.Priced, cast.Paid), lambda _: pausing)

    def script(drawn: list[list[Planned]], order: Schedule, inside: bool) -> Script:
        callers, first = [], 0
        for one in drawn:
            callers.append(Caller(in_turn(len(one), first).steps, thread=len(drawn) > 1))
            first += len(one)
        events = tuple(planned for one in drawn for planned in one)
        return Script(events, tuple(callers), inside_loop=inside, schedule=order if setting.needs_loop else None)

    few = st.builds(
        script,
        st.lists(st.lists(events, min_size=2, max_size=5), min_size=1, max_size=2),
        orders(),
        st.booleans(),
    )
    # Where the operating system chooses who runs next, it takes many events until two are seen to change places.
    many = st.builds(
        lambda kind, count: Script((Planned(kind),), (Caller((Flood(0, count),)),)),
        st.sampled_from([cast.Placed, cast.Priced, cast.Paid]),
        st.integers(2, min(60, setting.depth)),
    )
    return few if setting.needs_loop else few | many


def held(setting: Setting) -> st.SearchStrategy[Script]:
    """A handler is held while its caller may or may not wait; or cascades, which a caller waits for as a whole."""
    patience = 0.03 if setting.guarantees.blocks_caller else None

    def hold(kind: type[DomainEvent], role: int) -> Script:
        roles = ROLES[kind]
        return Script(
            (Planned(kind, behaviours={roles[role % len(roles)]: Behaviour(held=True)}),),
            (
                Caller((Dispatch(0),), thread=setting.guarantees.blocks_caller or not setting.needs_loop),
                Caller((AwaitStarted(0), AwaitReturned(0, patience), Release(0))),
            ),
        )

    def cascade(first: type[DomainEvent], second: type[DomainEvent], inside: bool) -> Script:
        planned = Planned(first, behaviours={ROLES[first][0]: Behaviour(spawns=(Planned(second),))})
        return Script((planned,), (in_turn(1),), inside_loop=inside)

    kinds = st.sampled_from(USUAL)
    return st.builds(hold, kinds, st.integers(0, 3)) | st.builds(cascade, kinds, kinds, st.booleans())
