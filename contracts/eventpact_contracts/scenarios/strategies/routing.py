"""Scripts in which nothing goes wrong, and scripts with what no dispatcher may take."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import strategies as st

from eventpact_contracts.scenarios import cast
from eventpact_contracts.scenarios.invalid import IMPOSSIBLE, JUNK
from eventpact_contracts.scenarios.scenario import Behaviour, Caller, Dispatch, DispatchJunk, Planned, Script, Setting
from eventpact_contracts.scenarios.strategies.parts import SUBSCRIBED, behaving, in_turn, of, one_caller

__all__ = [
    "both_kinds",
    "family",
    "impossible",
    "junk",
    "quiet",
    "rich",
    "unsubscribed",
]


def quiet(setting: Setting) -> st.SearchStrategy[Script]:  # noqa: ARG001 - strategies share one signature
    """One caller, and nothing goes wrong."""
    return one_caller(of(SUBSCRIBED))


def family(setting: Setting) -> st.SearchStrategy[Script]:  # noqa: ARG001
    """Events of related types."""
    return one_caller(of((cast.Shipped, cast.ShippedAbroad, cast.ShippedByAir, cast.ShippedByMule)))


def unsubscribed(setting: Setting) -> st.SearchStrategy[Script]:  # noqa: ARG001
    """Events without a handler, among others."""
    return st.builds(
        lambda before, lonely, after, inside: Script(
            (*before, lonely, *after), (in_turn(len(before) + 1 + len(after)),), inside_loop=inside
        ),
        st.lists(of(SUBSCRIBED), max_size=1),
        of((cast.Noted, cast.ShippedByMule)),
        st.lists(of((*SUBSCRIBED, cast.Noted)), max_size=1),
        st.booleans(),
    )


def both_kinds(setting: Setting) -> st.SearchStrategy[Script]:  # noqa: ARG001
    """Events that have handlers of both kinds; the async ones give way up to twice."""
    return one_caller(
        behaving((cast.Paid, cast.Shipped), lambda _: st.builds(Behaviour, pauses=st.integers(0, 2))), most=2
    )


def rich(setting: Setting) -> st.SearchStrategy[Script]:  # noqa: ARG001
    """Events with any values."""
    return one_caller(_described(), most=2)


def _described() -> st.SearchStrategy[Planned]:
    text = st.text(st.characters(), max_size=20)
    integers = st.integers() | st.integers(-(2**13_900), 2**13_900)
    decimals = st.decimals(allow_nan=False)
    zones = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)).map(
        lambda offset: timezone(timedelta(minutes=offset // timedelta(minutes=1)))
    )
    moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=zones)  # noqa: DTZ001 - zones are drawn
    points = st.builds(cast.Point, x=integers, label=text, at=st.none() | moments)
    values = {
        "number": integers,
        "text": text,
        "flag": st.booleans(),
        "ratio": st.floats(allow_nan=False, allow_infinity=False),
        "price": decimals,
        "at": moments,
        "day": st.dates(),
        "key": st.uuids(),
        "size": st.sampled_from(cast.Size),
        "several": st.lists(text, max_size=3).map(tuple),
        "pair": st.tuples(integers, decimals),
        "point": points,
        "points": st.lists(points, max_size=2).map(tuple),
        "maybe": st.none() | integers,
        "maybe_point": st.none() | points,
        "occurred_at": moments,
    }
    return st.fixed_dictionaries({}, optional=values).map(lambda drawn: Planned(cast.Described, values=drawn))


def junk(setting: Setting) -> st.SearchStrategy[Script]:  # noqa: ARG001
    """What is no event, beside events."""
    return st.builds(
        lambda wrong, inside: Script(
            (Planned(cast.Placed),),
            (Caller((*(DispatchJunk(number) for number in wrong), Dispatch(0))),),
            inside_loop=inside,
        ),
        st.lists(st.integers(0, len(JUNK) - 1), min_size=1, max_size=4),
        st.booleans(),
    )


def impossible(setting: Setting) -> st.SearchStrategy[Script]:  # noqa: ARG001
    """A registration that cannot be."""
    return st.sampled_from(IMPOSSIBLE).map(lambda wrong: Script(impossible=wrong))
