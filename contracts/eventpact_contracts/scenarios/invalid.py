"""What no dispatcher may take: things that are no events, and registrations that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from eventpact.domain.events import DomainEvent
from eventpact_contracts.scenarios import cast

__all__ = ["IMPOSSIBLE", "JUNK", "Impossible"]


@dataclass(frozen=True)
class _LookAlike:
    """It has all that an event has, and is none."""

    event_id: UUID = cast.NIL
    occurred_at: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    number: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {"event_id": str(self.event_id), "occurred_at": self.occurred_at.isoformat(), "number": self.number}


JUNK: Final[tuple[tuple[str, object], ...]] = (
    ("None", None),
    ("a str", "Placed"),
    ("an int", 42),
    ("a dict", {"event_id": "1"}),
    ("an event class", cast.Placed),
    ("an event class without a handler", cast.Noted),
    ("a tuple of events", (cast.Placed(), cast.Placed())),
    ("an exception", ValueError("no event")),
    ("an object that looks like an event", _LookAlike()),
    ("a plain object", object()),
)
"""Things that are no events, each with what to call it."""


class Mutable(DomainEvent):
    """No frozen dataclass."""

    number: int = 0


@dataclass(frozen=True, kw_only=True)
class HoldsList(DomainEvent):
    """Not wire-safe."""

    numbers: list[int]


@dataclass(frozen=True, kw_only=True)
class HoldsAnything(DomainEvent):
    """Not wire-safe."""

    value: object = None


@dataclass(frozen=True, kw_only=True)
class HoldsBytes(DomainEvent):
    """Not wire-safe."""

    value: bytes = b""


def _namesake() -> type[DomainEvent]:
    @dataclass(frozen=True, kw_only=True)
    class Placed(DomainEvent):
        number: int = 0

    return Placed


class _Deaf:
    """Has no ``handle``."""


class _Muddled:
    """Has a ``handle`` that cannot be called."""

    handle = "the event"


class _Fine:
    def handle(self, event: DomainEvent) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Impossible:
    """A registration that cannot be.

    Attributes:
        what: what to call it.
        culprits: names of which the message must have one.
        handlers: makes what a dispatcher is built with.
    """

    what: str
    culprits: tuple[str, ...]
    handlers: Callable[[], dict[Any, Any]]

    def __repr__(self) -> str:
        return f"Impossible({self.what!r})"


IMPOSSIBLE: Final = (
    Impossible("a str as key", ("Placed",), lambda: {"Placed": _Fine()}),
    Impossible("a class that is no event as key", ("_LookAlike",), lambda: {_LookAlike: _Fine()}),
    Impossible("a key that is no event beside good ones", ("int",), lambda: {cast.Placed: _Fine(), int: [_Fine()]}),
    Impossible("two types of one wire name", ("Placed",), lambda: {cast.Placed: _Fine(), _namesake(): _Fine()}),
    Impossible("a mutable event type", ("Mutable",), lambda: {Mutable: _Fine()}),
    Impossible("an event type with a list", ("HoldsList",), lambda: {HoldsList: _Fine()}),
    Impossible("an event type with bytes", ("HoldsBytes",), lambda: {cast.Paid: [_Fine()], HoldsBytes: _Fine()}),
    Impossible("an event type with any object", ("HoldsAnything",), lambda: {HoldsAnything: _Fine()}),
    Impossible("a handler without handle", ("Placed", "_Deaf"), lambda: {cast.Placed: _Deaf()}),
    Impossible(
        "a handler without handle behind a good one", ("Paid", "_Deaf"), lambda: {cast.Paid: [_Fine(), _Deaf()]}
    ),
    Impossible("a handler whose handle is no callable", ("Placed", "_Muddled"), lambda: {cast.Placed: _Muddled()}),
    Impossible("None as handler", ("Placed", "None"), lambda: {cast.Placed: None}),
)
