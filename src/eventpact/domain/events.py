"""Domain events: facts, named in the past tense, that cannot be changed."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID, uuid4

from eventpact.domain.codecs import in_utc
from eventpact.domain.wire import Json, MalformedError, WireError, decode_fields, fields_of, make

__all__ = ["AccountCreatedEvent", "DomainEvent", "SignUpRepeatedEvent", "VerificationCodeRequestedEvent"]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class DomainEvent:
    """Something that happened. Subclass it with ``@dataclass(frozen=True, kw_only=True)``.

    An event is valid from the moment it exists: its fields are checked when it is made, so every event that can be
    dispatched can also cross a queue and come back equal. See :mod:`eventpact.domain.wire` for the types of fields.

    A class that was renamed keeps its earlier names in ``former_names = ("OldNameEvent",)``, without an annotation, so
    that messages of the version before are read. It is not inherited.

    A ``__post_init__`` of its own may check, normalise or derive fields. It is called again where an event is received,
    so it must accept the fields that it made itself. Events are compared by value: an ``__eq__`` of its own must say
    that an event which is received equals the one that was dispatched.

    Attributes:
        event_id: identifies this event through every redelivery.
        occurred_at: when it happened, in UTC.

    Raises:
        WireError: a field holds a value of another type than it is annotated with, or one that cannot be written down
            (a naive ``datetime``, NaN). It is a ``TypeError`` and a ``ValueError``.
    """

    event_id: UUID = field(default_factory=uuid4)
    occurred_at: datetime = field(default_factory=_now)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A __post_init__ of its own need not call super(), and a mixin's does not; an __init__ need not call either.
        if not hasattr(cls.__post_init__, "__checks__"):
            type.__setattr__(cls, "__post_init__", _checked(cls.__post_init__))
        if "__init__" in vars(cls):
            type.__setattr__(cls, "__init__", _checked(vars(cls)["__init__"]))

    def __post_init__(self) -> None:
        _check(self)

    def to_dict(self) -> dict[str, Json]:
        """The event's fields as JSON values. The type's name is not among them: it names the message."""
        return {name: codec.encode(getattr(self, name)) for name, codec in fields_of(type(self)).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The event that ``to_dict`` was called on, equal to it. A missing field is filled from its default.

        The class's own ``__post_init__`` is called with the fields as they were sent. It may refuse them, but what it
        changes is put back, because it was changed when the event was made.

        Raises:
            WireError: a field is missing, unknown or malformed; the message names it, not its value.
        """
        try:
            event: Self = make(cls, decode_fields(cls, data, "event_id", "occurred_at"))
        except MalformedError as error:
            raise WireError(f"{cls.__name__}.{error}") from error.__cause__
        if event.occurred_at.tzinfo is not UTC:  # as it came, since __post_init__ had changed it
            _check(event)
        return event


def _check(event: DomainEvent) -> None:
    """Check each field, and keep it in the form that crosses the wire."""
    kind = type(event)
    for name, codec in fields_of(kind).items():
        try:
            held = getattr(event, name)
            kept = codec.check(held)
        except (TypeError, ValueError, AttributeError) as error:
            raise WireError(f"{kind.__name__}.{name}: {error}") from None
        if kept is not held:
            object.__setattr__(event, name, kept)
    try:
        if event.occurred_at.tzinfo is not UTC:
            object.__setattr__(event, "occurred_at", in_utc(event.occurred_at))
    except AttributeError:  # a subclass has given it another type
        raise WireError(f"{kind.__name__}.occurred_at is every event's own; leave its type as it is") from None


def to_wire(event: DomainEvent) -> dict[str, Json]:
    """Return the fields of an event as JSON, from which it can be made again elsewhere.

    Raises:
        WireError: it cannot, because its class does not take the fields that it made, or compares otherwise than by
            value.
    """
    kind, data = type(event), event.to_dict()
    advice = "let __init__ and __post_init__ take the fields as they leave them, or derive them before it is made"
    try:
        again = kind.from_dict(data)
    except WireError as error:
        raise WireError(f"{kind.__name__} cannot be made again from its own fields ({error}); {advice}") from error
    if again != event:
        raise WireError(f"{kind.__name__} does not come back equal; let its __eq__ compare fields, or leave it out")
    return data


def _checked(method: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(method)
    def check_afterwards(self: DomainEvent, *args: Any, **kwargs: Any) -> None:
        method(self, *args, **kwargs)
        _check(self)

    check_afterwards.__checks__ = True  # type: ignore[attr-defined]
    return check_afterwards


DomainEvent.__post_init__.__checks__ = True  # type: ignore[attr-defined]


@dataclass(frozen=True, kw_only=True)
class AccountCreatedEvent(DomainEvent):
    """An account was created, and its owner's e-mail address is not verified yet."""

    account_id: str
    email: str


@dataclass(frozen=True, kw_only=True)
class VerificationCodeRequestedEvent(DomainEvent):
    """The owner of an account that is not verified yet wants a new code; it voids the one before."""

    account_id: str
    email: str


@dataclass(frozen=True, kw_only=True)
class SignUpRepeatedEvent(DomainEvent):
    """Someone signed up with the address of a verified account, whose owner ought to know."""

    account_id: str
    email: str
