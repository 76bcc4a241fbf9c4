"""The event types of every scenario, and the handlers that each has: see :data:`ROLES` and the driver's probes.

They never change, so that an engine that is slow to start (a worker process, say) is started once: the plan of a
handler is looked up by the event's ID. They are as various as those of real programs: deep and wide families, types
without a handler, a type of the same name as another.
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
    "ODD",
    "RETURNED_COROUTINES",
    "ROLES",
    "SHARED",
    "UNSUBSCRIBED",
    "AnotherPlaced",
    "Counted",
    "Crowded",
    "Described",
    "Enveloped",
    "Marker",
    "Mirrored",
    "Noted",
    "Odd",
    "Paid",
    "Placed",
    "Point",
    "Priced",
    "Recorded",
    "Returned",
    "Shipped",
    "ShippedAbroad",
    "ShippedByAir",
    "ShippedByMule",
    "ShippedToNobody",
    "Signed",
    "Size",
    "is_async",
    "is_plain",
    "is_shared",
    "label_of",
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
class _Content(DomainEvent):
    """Fields that may hold anything; see :mod:`eventpact_contracts.scenarios.values`."""

    number: int = 0
    text: str = ""
    price: Decimal = Decimal(0)
    ratio: float = 0.0
    at: datetime | None = None
    several: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Placed(_Content):
    """One plain handler."""


@dataclass(frozen=True, kw_only=True)
class Priced(_Content):
    """One async handler."""


@dataclass(frozen=True, kw_only=True)
class Paid(_Content):
    """Two handlers of each kind."""


@dataclass(frozen=True, kw_only=True)
class Shipped(_Content):
    """The head of a family, with handlers."""


@dataclass(frozen=True, kw_only=True)
class ShippedAbroad(Shipped):
    """A subclass with a handler of its own."""


@dataclass(frozen=True, kw_only=True)
class ShippedOverseas(ShippedAbroad):
    """A grandchild without a handler; both its ancestors have some."""


@dataclass(frozen=True, kw_only=True)
class ShippedByAir(Shipped):
    """Another subclass with a handler, the sibling of the first."""


@dataclass(frozen=True, kw_only=True)
class ShippedBothWays(ShippedAbroad, ShippedByAir):
    """A child of two siblings, with a handler of its own."""


@dataclass(frozen=True, kw_only=True)
class ShippedByMule(Shipped):
    """A subclass that has no handler, although its base class has."""


@dataclass(frozen=True, kw_only=True)
class ShippedByMuleTrain(ShippedByMule):
    """A grandchild whose nearest ancestor with a handler is its grandparent."""


@dataclass(frozen=True, kw_only=True)
class ShippedByCaravan(ShippedByMuleTrain):
    """A great-grandchild with a handler; between it and the head of the family nobody has any."""


@dataclass(frozen=True, kw_only=True)
class ShippedToNobody(Shipped):
    """A subclass that is registered with an empty list of handlers, where the dispatcher takes one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Enveloped(_Content):
    """Fields, kept in slots, that are called as the parts of a message are, in which an event may travel."""

    type: str = "a type"
    name: str = "a name"
    event: str = "an event"
    id: int = 7
    key: str = "a key"
    version: int = 2
    data: str = "data"
    payload: str = "a payload"
    args: tuple[int, ...] = (1, 2)
    kwargs: str = "kwargs"
    handler: str = "a handler"
    kind: str = "a kind"
    attempt: int = 3
    timestamp: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Noted(_Content):
    """No handler, and no relatives."""


@dataclass(frozen=True, kw_only=True)
class Mirrored(_Content):
    """Handlers that are equal to one another, two of each kind."""


@dataclass(frozen=True, kw_only=True)
class Odd(_Content):
    """Handlers of every odd kind: falsy, empty, unhashable, callable, a list, with awaitables of several kinds."""


@dataclass(frozen=True, kw_only=True)
class Counted(_Content):
    """One handler, given by itself, that is falsy."""


@dataclass(frozen=True, kw_only=True)
class Emptied(_Content):
    """False, as an event about nothing may be, and equal to every other of its class, as if that were its key."""

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return type(other) is Emptied

    def __hash__(self) -> int:
        return 7


@dataclass(frozen=True, kw_only=True)
class Signed(_Content):
    """One handler, given by itself, that returns a coroutine from a plain ``handle``."""


@dataclass(frozen=True, kw_only=True)
class Crowded(_Content):
    """Seven handlers: where there is room for so many deliveries, the room rarely ends with an event."""


@dataclass(frozen=True, kw_only=True)
class Recorded(_Content):
    """Shares its two handlers with :class:`Returned`."""


@dataclass(frozen=True, kw_only=True)
class Returned(_Content):
    """Shares its two handlers with :class:`Recorded`."""


def _namesake() -> type[DomainEvent]:
    @dataclass(frozen=True, kw_only=True)
    class Placed(_Content):
        """The same name as an event type with a handler, and no handler."""

    Placed.__qualname__ = "Placed"  # as a class has that was loaded again
    return Placed


AnotherPlaced: Final = _namesake()


@dataclass(frozen=True, kw_only=True)
class Marker(DomainEvent):
    """Dispatched when everything else is over: when it has come through, nothing more is under way."""

    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Described(DomainEvent):
    """A field of every kind."""

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
    usually: str | None = "a default that is not None"


ROLES: Final[dict[type[DomainEvent], tuple[str, ...]]] = {
    # A subclass before its base, and others after theirs: the order of registration must not matter.
    ShippedByCaravan: ("plain",),
    Placed: ("plain",),
    Priced: ("coroutine",),
    Paid: ("plain", "coroutine", "plain_too", "coroutine_too"),
    Shipped: ("plain", "coroutine"),
    ShippedToNobody: (),
    ShippedAbroad: ("plain",),
    ShippedByAir: ("coroutine",),
    ShippedBothWays: ("plain",),
    Described: ("plain", "coroutine"),
    Enveloped: ("plain", "coroutine"),
    Mirrored: ("plain_equal", "plain_equal_too", "coroutine_equal", "coroutine_equal_too"),
    Odd: (
        "plain_falsy",
        "plain_empty",
        "plain_unhashable",
        "plain_callable",
        "plain_list",
        "plain_equals_anything",
        "plain_attribute",
        "plain_lent",
        "coroutine_falsy",
        "coroutine_callable",
        "awaitable",
        "awaitable_object",
        "awaitable_call",
        "awaitable_at_times",
    ),
    Counted: ("plain_falsy",),
    Signed: ("awaitable",),
    Emptied: ("plain", "coroutine"),
    Crowded: tuple(f"{('plain', 'coroutine')[number % 2]}_{number}" for number in range(7)),
    Recorded: ("plain_shared", "coroutine_shared"),
    Returned: ("plain_shared", "coroutine_shared"),
    Marker: ("plain", "coroutine"),
}
"""The handlers of each event type. A handler is called ``EventType.role``; the role begins with its kind."""

SHARED: Final = (Recorded, Returned)
"""The types that have their handlers in common."""

FAMILY: Final = (
    Shipped,
    ShippedAbroad,
    ShippedOverseas,
    ShippedByAir,
    ShippedBothWays,
    ShippedByMule,
    ShippedByMuleTrain,
    ShippedByCaravan,
    ShippedToNobody,
)
"""The types that are related."""

UNSUBSCRIBED: Final = (Noted, AnotherPlaced, ShippedByMule, ShippedByMuleTrain, ShippedOverseas, ShippedToNobody)
"""The types that have no handler."""

ODD: Final = (Mirrored, Emptied, Odd, Counted, Signed, Crowded, Recorded, Returned)
"""The types whose handlers are unusual."""


def label_of(kind: type) -> str:
    """The name of an event type in a trace: its own, except where two types share theirs."""
    return "AnotherPlaced" if kind is AnotherPlaced else kind.__name__


def is_async(handler: str) -> bool:
    """Return whether the handler of this name is an ``async def``."""
    return handler.rpartition(".")[2].startswith("coroutine")


RETURNED_COROUTINES: Final = ("'run_awaiting'", "'_AsyncCall.__call__'")
"""The coroutines that plain handlers return, as a warning names them."""


def is_shared(handler: str) -> bool:
    """Return whether the handler of this name is one of two types, and has another name with the other."""
    return handler.endswith("_shared")


def is_plain(handler: str) -> bool:
    """Return whether the handler of this name is called, and returns nothing to await."""
    return not is_async(handler) and not is_awaitable(handler)


def is_awaitable(handler: str) -> bool:
    """Return whether the handler of this name is a plain callable that returns an awaitable."""
    return handler.rpartition(".")[2].startswith("awaitable")
