"""Who takes part in every script: the same event types and handlers each time, told apart by name.

They never change, so an engine that is slow to start (a worker process, say) is started once; what a handler does with
an event is not in the handler, but looked up by the event's ID.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Final
from uuid import UUID

from eventpact.domain.events import DomainEvent

__all__ = [
    "FAMILY",
    "ROLES",
    "Described",
    "Marker",
    "Noted",
    "Paid",
    "Placed",
    "Point",
    "Priced",
    "Shipped",
    "ShippedAbroad",
    "ShippedByAir",
    "ShippedByMule",
    "Size",
    "is_async",
]


NIL: Final = UUID(int=0)


class Size(Enum):
    """A field's type."""

    SMALL = 1
    LARGE = "large"


@dataclass(frozen=True)
class Point:
    """A field's type, nested in itself once."""

    x: int
    label: str
    at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Placed(DomainEvent):
    """It has one plain handler."""

    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Priced(DomainEvent):
    """It has one async handler."""

    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Paid(DomainEvent):
    """It has two handlers of each kind."""

    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Shipped(DomainEvent):
    """It has handlers, and so have two of its three subclasses."""

    number: int = 0


@dataclass(frozen=True, kw_only=True)
class ShippedAbroad(Shipped):
    """A subclass with a handler of its own."""


@dataclass(frozen=True, kw_only=True)
class ShippedByAir(Shipped):
    """Another, its sibling."""


@dataclass(frozen=True, kw_only=True)
class ShippedByMule(Shipped):
    """A subclass that has no handler, although its base class has."""


@dataclass(frozen=True, kw_only=True)
class Noted(DomainEvent):
    """It has no handler, and no relatives."""

    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Marker(DomainEvent):
    """Dispatched when everything else is over: when it has come through, nothing more is under way."""

    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Described(DomainEvent):
    """It has a field of every kind."""

    number: int = 0
    text: str = ""
    flag: bool = False
    ratio: float = 0.0
    price: Decimal = Decimal(0)
    at: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    day: date = date(2000, 1, 1)
    key: UUID = NIL
    size: Size = Size.SMALL
    several: tuple[str, ...] = ()
    pair: tuple[int, Decimal] = (0, Decimal(0))
    point: Point = Point(0, "")
    points: tuple[Point, ...] = ()
    maybe: int | None = None
    maybe_point: Point | None = None


ROLES: dict[type[DomainEvent], tuple[str, ...]] = {
    Placed: ("plain",),
    Priced: ("coroutine",),
    Paid: ("plain", "coroutine", "plain_too", "coroutine_too"),
    Shipped: ("plain", "coroutine"),
    ShippedAbroad: ("plain",),
    ShippedByAir: ("coroutine",),
    Described: ("plain", "coroutine"),
    Marker: ("plain", "coroutine"),
}
"""The handlers of each event type. A handler is called ``EventType.role``."""

FAMILY = frozenset(kind.__name__ for kind in (Shipped, ShippedAbroad, ShippedByAir, ShippedByMule))
"""The types that are related."""


def is_async(handler: str) -> bool:
    """Whether the handler of this name is an ``async def``."""
    return handler.rpartition(".")[2].startswith("coroutine")
