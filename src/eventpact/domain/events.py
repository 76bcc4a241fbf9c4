"""Domain events: facts, told in the past tense, that cannot be changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID, uuid4

from eventpact.domain.wire import Json, fields_of, in_utc

__all__ = ["AccountCreatedEvent", "DomainEvent", "SignUpRepeatedEvent", "VerificationCodeRequestedEvent"]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class DomainEvent:
    """Something that happened. Subclass it with ``@dataclass(frozen=True, kw_only=True)``.

    An event is valid from the moment it exists: its fields are checked when it is made, so every event that can be
    dispatched can also cross a queue and come back equal. See :mod:`eventpact.domain.wire` for what a field may be.

    Attributes:
        event_id: identifies this event through every redelivery.
        occurred_at: when it happened, in UTC.

    Raises:
        TypeError: a field holds a value of another type than it is annotated with (:class:`WireError`).
        ValueError: a field's value cannot be written down (a naive ``datetime``, NaN).
    """

    event_id: UUID = field(default_factory=uuid4)
    occurred_at: datetime = field(default_factory=_now)

    def __post_init__(self) -> None:
        for name, codec in fields_of(type(self)).items():
            held = getattr(self, name)
            try:
                kept = codec.check(held)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{type(self).__name__}.{name}: {error}") from None
            if kept is not held:
                object.__setattr__(self, name, kept)
        if self.occurred_at.tzinfo is not UTC:
            object.__setattr__(self, "occurred_at", in_utc(self.occurred_at))

    def to_dict(self) -> dict[str, Json]:
        """The event's fields as JSON values. The type's name is not among them: it names the message."""
        return {name: codec.encode(getattr(self, name)) for name, codec in fields_of(type(self)).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The event that ``to_dict`` was called on, equal to it.

        Raises:
            ValueError: a field is missing, unknown or not of its type; the message names it, not its value.
        """
        codecs = fields_of(cls)
        if not isinstance(data, Mapping) or data.keys() != codecs.keys():
            given = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
            raise ValueError(f"{cls.__name__} has the fields {sorted(codecs)}, got {given}")
        values = {}
        for name, codec in codecs.items():
            try:
                values[name] = codec.decode(data[name])
            except (TypeError, ValueError, KeyError, ArithmeticError, AttributeError) as error:
                raise ValueError(f"{cls.__name__}.{name} is malformed ({type(error).__name__})") from error
        try:
            return cls(**values)
        except Exception as error:
            raise ValueError(f"{cls.__name__} does not take these values ({type(error).__name__})") from error


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
