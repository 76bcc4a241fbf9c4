"""Inputs that no dispatcher may take: objects that are no events, and registrations that cannot be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from unittest.mock import Mock
from uuid import UUID

from eventpact.domain.events import DomainEvent
from eventpact_contracts.scenarios import events

__all__ = ["ASYNC_REGISTRATION", "EMPTY_REGISTRATIONS", "INVALID_REGISTRATIONS", "NON_EVENTS", "InvalidRegistration"]


@dataclass(frozen=True)
class _LookAlike:
    """An object with the attributes of an event."""

    event_id: UUID = events.NIL
    occurred_at: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    number: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {"event_id": str(self.event_id), "occurred_at": self.occurred_at.isoformat(), "number": self.number}


class _Placed:
    """A class whose name, with other letters, is that of an event type."""


_Placed.__name__ = _Placed.__qualname__ = "Placed"

NON_EVENTS: Final[tuple[tuple[str, object], ...]] = (
    ("None", None),
    ("a str", "Placed"),
    ("an int", 42),
    ("a dict", {"event_id": "1"}),
    ("an event class", events.Placed),
    ("an event class without a handler", events.Noted),
    ("a tuple of events", (events.Placed(), events.Placed())),
    ("an exception", ValueError("no event")),
    ("an object that looks like an event", _LookAlike()),
    ("a plain object", object()),
    ("an empty str", ""),
    ("zero", 0),
    ("False", False),
    ("an empty list", []),
    ("an empty dict", {}),
    ("a list of events", [events.Placed()]),
    ("an event's dict", events.Placed().to_dict()),
    ("bytes", b"Placed"),
    ("an object that has every attribute", Mock()),
    ("an object whose class is called like an event type", _Placed()),
    ("the base class of events", DomainEvent),
    ("a handler", Mock(spec=["handle"])),
)
"""Objects that are no events, each with a name."""


class Mutable(DomainEvent):
    """No frozen dataclass."""

    number: int = 0


class _MutableNamesake(DomainEvent):
    """No frozen dataclass, in the place of one that is fine."""


_MutableNamesake.__module__, _MutableNamesake.__name__, _MutableNamesake.__qualname__ = (
    events.__name__,
    "Placed",
    "Placed",
)


@dataclass
class Changeable:
    """A dataclass that is not frozen."""

    number: int = 0


@dataclass(frozen=True)
class Opaque:
    """A frozen dataclass with a field that cannot cross a wire."""

    value: object = None


def _holding(name: str, annotation: Any) -> type[DomainEvent]:
    """An event type with one field that is not wire-safe."""
    namespace = {"__annotations__": {"value": annotation}, "__module__": __name__}
    made: type[DomainEvent] = dataclass(frozen=True, kw_only=True)(type(name, (DomainEvent,), namespace))
    return made


class _Order:
    """Has an event type of its own."""

    @dataclass(frozen=True, kw_only=True)
    class Created(DomainEvent):
        """Told from the other one by the class around it, which a wire does not name."""


class _Invoice:
    """Has one of the same name."""

    @dataclass(frozen=True, kw_only=True)
    class Created(DomainEvent):
        """Told from the other one likewise."""


_COUNTED_ELSEWHERE: Final = _holding("Counted", int)
"""Told from the other one by its module, which a wire does not name either."""

_UNSAFE: Final = {
    "HoldsList": list[int],
    "HoldsAnything": object,
    "HoldsBytes": bytes,
    "HoldsAny": Any,
    "HoldsDict": dict[str, int],
    "HoldsSet": set[str],
    "HoldsComplex": complex,
    "HoldsTimedelta": timedelta,
    "HoldsCallable": Callable[[], None],
    "HoldsEither": int | str,
    "HoldsListOrNone": list[int] | None,
    "HoldsListInTuple": tuple[list[int], ...],
    "HoldsChangeable": Changeable,
    "HoldsOpaque": Opaque,
    "HoldsChangeableInTuple": tuple[int, Changeable],
}


class _Deaf:
    """An object without a ``handle``."""


class _Muddled:
    """An object with a ``handle`` that cannot be called."""

    handle = "the event"


class _Mute:
    """An object whose ``handle`` is None."""

    handle = None


class _Generating:
    """An object whose ``handle`` is a generator, and so does nothing when it is called."""

    def handle(self, event: DomainEvent) -> Iterator[None]:  # noqa: ARG002
        yield


class _AsyncGenerating:
    """An object whose ``handle`` is an async generator."""

    async def handle(self, event: DomainEvent) -> AsyncIterator[None]:  # noqa: ARG002
        yield


class _GeneratingCall:
    """A callable object whose ``__call__`` is a generator."""

    def __call__(self, event: DomainEvent) -> Iterator[None]:  # noqa: ARG002
        yield


class _LendingGenerator:
    """An object whose ``handle`` is such an object."""

    handle = _GeneratingCall()


class _PartOfGenerator:
    """An object whose ``handle`` is a partial of a generator."""

    handle = partial(_Generating().handle)


class _Fine:
    def handle(self, event: DomainEvent) -> None:
        """Do nothing."""


class _FineAsync:
    async def handle(self, event: DomainEvent) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class InvalidRegistration:
    """A registration that cannot be.

    Attributes:
        what: its name.
        culprits: names of which the message must have one.
        handlers: makes the handlers that a dispatcher is built with.
    """

    what: str
    culprits: tuple[str, ...]
    handlers: Callable[[], dict[Any, Any]]

    def __repr__(self) -> str:
        return f"InvalidRegistration({self.what!r})"


def _unsafe(name: str, annotation: Any) -> InvalidRegistration:
    kind = _holding(name, annotation)
    return InvalidRegistration(
        f"an event type whose field is a {annotation}", (name,), lambda: {events.Paid: [_Fine()], kind: _Fine()}
    )


INVALID_REGISTRATIONS: Final = (
    InvalidRegistration("a str as key", ("Placed",), lambda: {"Placed": _Fine()}),
    InvalidRegistration("a class that is no event as key", ("_LookAlike",), lambda: {_LookAlike: _Fine()}),
    InvalidRegistration("an event as key", ("Placed",), lambda: {events.Placed(): _Fine()}),
    InvalidRegistration("None as key", ("None",), lambda: {None: _Fine()}),
    InvalidRegistration(
        "a key that is no event beside good ones", ("int",), lambda: {events.Placed: _Fine(), int: [_Fine()]}
    ),
    InvalidRegistration(
        "two types of one wire name",
        ("Placed",),
        lambda: {events.Placed: _Fine(), events.AnotherPlaced: _Fine()},
    ),
    InvalidRegistration(
        "two types of one wire name, served by one handler",
        ("Placed",),
        lambda: dict.fromkeys((events.Noted, events.AnotherPlaced, events.Placed), _Fine()),
    ),
    InvalidRegistration(
        "two types of one wire name, in different classes",
        ("Created",),
        lambda: {_Order.Created: _Fine(), events.Placed: _Fine(), _Invoice.Created: _Fine()},
    ),
    InvalidRegistration(
        "two types of one wire name, in different modules",
        ("Counted",),
        lambda: {events.Counted: _Fine(), events.Noted: _Fine(), _COUNTED_ELSEWHERE: _Fine()},
    ),
    InvalidRegistration("a mutable event type", ("Mutable",), lambda: {Mutable: _Fine()}),
    InvalidRegistration(
        "a mutable event type that is called like another", ("Placed",), lambda: {_MutableNamesake: _Fine()}
    ),
    *(_unsafe(name, annotation) for name, annotation in _UNSAFE.items()),
    InvalidRegistration("a handler without handle", ("Placed", "_Deaf"), lambda: {events.Placed: _Deaf()}),
    InvalidRegistration(
        "a handler without handle behind a good one",
        ("Paid", "_Deaf"),
        lambda: {events.Paid: [_Fine(), _Deaf()]},
    ),
    InvalidRegistration(
        "a handler without handle between good ones",
        ("Paid", "_Deaf"),
        lambda: {events.Noted: _Fine(), events.Paid: (_Fine(), _Deaf(), _Fine()), events.Placed: _Fine()},
    ),
    InvalidRegistration(
        "a handler whose handle is no callable", ("Placed", "_Muddled"), lambda: {events.Placed: _Muddled()}
    ),
    InvalidRegistration("a handler whose handle is None", ("Placed", "_Mute"), lambda: {events.Placed: _Mute()}),
    InvalidRegistration("None as handler", ("Placed", "None"), lambda: {events.Placed: None}),
    InvalidRegistration("None among handlers", ("Paid", "None"), lambda: {events.Paid: [_Fine(), None]}),
    InvalidRegistration(
        "a handle that is a generator", ("Placed", "_Generating"), lambda: {events.Placed: _Generating()}
    ),
    InvalidRegistration(
        "a handle that is an async generator",
        ("Paid", "_AsyncGenerating"),
        lambda: {events.Paid: [_Fine(), _AsyncGenerating()]},
    ),
    InvalidRegistration(
        "a handle whose __call__ is a generator",
        ("Placed", "_LendingGenerator"),
        lambda: {events.Placed: _LendingGenerator()},
    ),
    InvalidRegistration(
        "a handle that is a partial of a generator",
        ("Paid", "_PartOfGenerator"),
        lambda: {events.Paid: [_Fine(), _PartOfGenerator()]},
    ),
)

ASYNC_REGISTRATION: Final = InvalidRegistration(
    "an async handler, which it has no notion of",
    ("Placed", "_FineAsync"),
    lambda: {events.Noted: _Fine(), events.Placed: _FineAsync()},
)
"""Impossible only for a dispatcher that declares ``async_handlers = False``."""

EMPTY_REGISTRATIONS: Final = (
    InvalidRegistration(
        "a key that is no event, without handlers", ("int",), lambda: {events.Placed: _Fine(), int: []}
    ),
    InvalidRegistration("a mutable event type without handlers", ("Mutable",), lambda: {Mutable: []}),
)
"""Of interest only where an empty list of handlers is possible at all."""
