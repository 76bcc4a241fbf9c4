"""Scripts in which the dispatcher closes, or cannot accept."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from eventpact.domain.events import DomainEvent
from eventpact_contracts.scenarios import cast
from eventpact_contracts.scenarios.cast import ROLES
from eventpact_contracts.scenarios.scenario import (
    ALWAYS,
    AwaitBegun,
    AwaitClosed,
    AwaitReturned,
    AwaitStarted,
    Behaviour,
    Caller,
    Close,
    CollectGarbage,
    Dispatch,
    Planned,
    Release,
    Script,
    Setting,
    Step,
)
from eventpact_contracts.scenarios.strategies.parts import USUAL, behaving, exceptions, failing_or_not, in_turn, of

__all__ = [
    "cannot_accept",
    "closed",
    "closing",
    "closing_twice",
    "left_behind",
    "let_go_late",
    "racing",
    "refused",
]


_HELD: Final = Behaviour(held=True)


def closed(setting: Setting) -> st.SearchStrategy[Script]:  # noqa: ARG001
    """Events that are dispatched while closing lasts, and afterwards."""

    def script(kind: type[DomainEvent], during: list[Planned], after: list[Planned], inside: bool) -> Script:
        # A held handler keeps closing from ending before the second caller had its turn.
        first = Planned(kind, behaviours={ROLES[kind][0]: Behaviour(held=True)})
        events = (first, *during, *after)
        late: tuple[Step, ...] = (
            AwaitBegun(),
            *(Dispatch(1 + number) for number in range(len(during))),
            Release(0),
            AwaitClosed(),
            *(Dispatch(1 + len(during) + number) for number in range(len(after))),
        )
        return Script(
            events,
            (Caller((Dispatch(0),), thread=True), Caller((AwaitStarted(0), Close(5.0))), Caller(late)),
            inside_loop=inside,
            close=True,
        )

    during, after = st.lists(of(USUAL), max_size=2), st.lists(of(USUAL), min_size=1, max_size=2)
    return st.builds(script, st.sampled_from(USUAL), during, after, st.booleans())


def refused(setting: Setting) -> st.SearchStrategy[Script]:
    """Events that are refused, because the dispatcher is closing, closed, full or cut off."""
    return closed(setting)


def cannot_accept(setting: Setting) -> st.SearchStrategy[Script]:
    """The same; the other reasons not to accept are in :func:`musts`."""
    return closed(setting)


def closing(setting: Setting) -> st.SearchStrategy[Script]:
    """A dispatcher that closes while there is something to settle."""

    def behaviour(role: str) -> st.SearchStrategy[Behaviour]:
        failing = st.builds(Behaviour, fails=st.just(ALWAYS), how=exceptions(role))
        return st.just(Behaviour()) | failing | st.just(Behaviour(pauses=1))

    usual = behaving(USUAL, behaviour)

    def let_go(events: list[Planned], inside: bool) -> Script:
        """One handler is held, and let go on in time."""
        kinds = (Planned(cast.Paid, behaviours={"coroutine": Behaviour(held=True)}), *events)
        return Script(
            kinds,
            (
                Caller(tuple(Dispatch(n) for n in range(1, len(kinds)))),
                Caller((Dispatch(0),), thread=True),
                Caller((AwaitStarted(0), Close(5.0))),
                Caller((AwaitBegun(), CollectGarbage(), Release(0))),
            ),
            inside_loop=inside,
            close=True,
        )

    def held_too_long(events: list[Planned], timeout: float, inside: bool) -> Script:
        """One handler is held until closing has ended."""
        kinds = (Planned(cast.Priced, behaviours={"coroutine": Behaviour(held=True)}), *events)
        return Script(
            kinds,
            (
                Caller(tuple(Dispatch(n) for n in range(1, len(kinds)))),
                Caller((Dispatch(0),), thread=True),
                Caller((AwaitStarted(0), Close(timeout), Release(0))),
            ),
            inside_loop=inside,
            close=True,
        )

    def at_once(events: list[Planned], timeout: float, inside: bool) -> Script:
        """Whatever is pending is closed upon."""
        return Script(
            tuple(events),
            (Caller((*in_turn(len(events)).steps, Close(timeout))),),
            inside_loop=inside,
            close=True,
        )

    some = st.lists(usual, min_size=1, max_size=3)
    del setting
    return st.one_of(
        st.builds(at_once, some, st.just(5.0), st.booleans()),
        st.builds(let_go, some, st.booleans()),
        st.builds(let_go_late, st.sampled_from(ROLES[cast.Paid]), some, st.booleans()),
        st.builds(held_too_long, some, st.sampled_from([0.0, 0.02]), st.booleans()),
    )


def let_go_late(role: str, events: list[Planned], inside: bool, behaviour: Behaviour = _HELD) -> Script:
    """One handler is held past the deadline, and let go on before closing has to end."""
    kinds = (Planned(cast.Paid, behaviours={role: behaviour}), *events)
    return Script(
        kinds,
        (
            Caller(tuple(Dispatch(n) for n in range(1, len(kinds)))),
            Caller((Dispatch(0),), thread=True),
            Caller((AwaitStarted(0), Close(0.0))),
            Caller((AwaitBegun(), AwaitReturned(0, 0.1), Release(0))),
        ),
        inside_loop=inside,
        close=True,
    )


def closing_twice(setting: Setting) -> st.SearchStrategy[Script]:
    """The same, and once more, at once or afterwards."""

    def twice(script: Script, at_once: bool) -> Script:
        after: tuple[Step, ...] = (AwaitBegun(),) if at_once else (AwaitClosed(),)
        closer = Caller((*after, Close(1.0)))
        return Script(script.events, (*script.callers, closer), inside_loop=script.inside_loop, close=True)

    return st.builds(twice, closing(setting), st.booleans())


def racing(setting: Setting) -> st.SearchStrategy[Script]:
    """Events that are dispatched while another closes."""

    def script(drawn: list[list[Planned]], hold: bool, inside: bool) -> Script:
        events = tuple(planned for one in drawn for planned in one)
        callers, first = [], 0
        for one in drawn:
            callers.append(Caller(in_turn(len(one), first).steps, thread=True))
            first += len(one)
        if not hold:
            return Script(events, (*callers, Caller((Close(5.0),))), inside_loop=inside, close=True)
        # Held, the first event keeps closing from ending before the others are dispatched.
        events = (*events, Planned(cast.Priced, behaviours={"coroutine": Behaviour(held=True)}))
        last = len(events) - 1
        rest = tuple(Caller((AwaitBegun(), *caller.steps), thread=True) for caller in callers[1:])
        return Script(
            events,
            (
                Caller((Dispatch(last),), thread=True),
                Caller((AwaitStarted(last), Close(5.0))),
                Caller((AwaitStarted(last), *callers[0].steps), thread=True),
                *rest,
                Caller((AwaitBegun(), *(AwaitReturned(n, 1.0) for n in range(last)), Release(last))),
            ),
            inside_loop=inside,
            close=True,
        )

    del setting
    return st.builds(
        script,
        st.lists(st.lists(of(USUAL), min_size=1, max_size=3), min_size=1, max_size=3),
        st.booleans(),
        st.booleans(),
    )


def left_behind(setting: Setting) -> st.SearchStrategy[Script]:
    """A dispatcher that had something to do, and closes."""

    def script(events: list[Planned], inside: bool) -> Script:
        steps = (*in_turn(len(events)).steps, Close(5.0))
        return Script(tuple(events), (Caller(steps),), inside_loop=inside, close=True, leftovers=True)

    def given_up(events: list[Planned], timeout: float, inside: bool) -> Script:
        """Closing has to give up one, of whose handlers the first is held and the second has no turn."""
        roles = {"plain": Behaviour(), "coroutine": Behaviour(held=True), "coroutine_too": Behaviour(pauses=1)}
        every = (Planned(cast.Paid, behaviours=roles), *events)
        return Script(
            every,
            (
                Caller((Dispatch(0),), thread=True),
                *(Caller((AwaitStarted(0), Dispatch(number)), thread=True) for number in range(1, len(every))),
                Caller((AwaitStarted(0), Close(timeout))),
            ),
            inside_loop=inside,
            close=True,
            leftovers=True,
        )

    some = st.lists(behaving(USUAL, failing_or_not(setting)), min_size=1, max_size=3)
    return st.builds(script, some, st.booleans()) | st.builds(
        given_up, some, st.sampled_from([0.0, 0.02]), st.booleans()
    )
