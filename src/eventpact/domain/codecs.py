"""Values that are neither tuples nor records, as JSON and back, equal.

Only values that passed :meth:`Codec.check` are encoded; ``check`` is the one place where a value is judged.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, Final
from uuid import UUID

__all__ = ["Codec", "WireError", "enum_codec", "exactly", "in_utc", "scalar_codec"]

# Beyond this many bits CPython refuses to turn an int into decimal digits (sys.set_int_max_str_digits), so no JSON
# encoder could write it. 4300 digits are 14284 bits.
_MAX_INT_BITS: Final = 14_000


class WireError(TypeError, ValueError):
    """A type, a value or a message that cannot cross a queue and come back equal. The message says which and why."""


def _standard(kind: type, name: str) -> Any:
    return next(base for base in kind.__mro__ if (base.__module__, base.__name__) == ("datetime", name))


class _Real:
    """Classes of the standard library. A test's frozen clock replaces their names in every module, but not in here."""

    datetime: Any = _standard(datetime, "datetime")
    date: Any = _standard(date, "date")


@dataclass(frozen=True, slots=True)
class Codec:
    """The treatment of the values of one annotated type.

    ``check`` returns the value in the form that is kept (an aware ``datetime`` with a fixed offset, say) or raises
    :class:`WireError`. ``encode`` makes JSON of a checked value; ``decode`` raises for JSON that is not of that form.
    """

    check: Callable[[Any], Any]
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def exactly(*kinds: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) not in kinds:
            raise WireError(f"expected {kinds[0].__name__}, got {type(value).__name__}")
        return value

    return check


_an_int, _a_float, _a_decimal, _a_str = exactly(int), exactly(float), exactly(Decimal), exactly(str)


def _check_int(value: Any) -> int:
    if _an_int(value).bit_length() > _MAX_INT_BITS:
        raise WireError(f"an int of {value.bit_length()} bits has no decimal form; at most {_MAX_INT_BITS} bits")
    return value  # type: ignore[no-any-return]


def _check_float(value: Any) -> float:
    if not math.isfinite(_a_float(value)):
        raise WireError(f"{value!r} is not a finite float, and JSON has no other")
    return value  # type: ignore[no-any-return]


def _check_decimal(value: Any) -> Decimal:
    if _a_decimal(value).is_nan():
        raise WireError("a Decimal NaN equals nothing, so it cannot come back equal")
    return value  # type: ignore[no-any-return]


def _check_datetime(value: Any) -> datetime:
    value = _plain(value, _Real.datetime, "datetime")
    offset = value.utcoffset()
    if offset is None:
        raise WireError(f"{value!r} is naive; give it a time zone, e.g. datetime.now(UTC)")
    if offset.microseconds:
        return in_utc(value)  # datetime.fromisoformat reads back some offsets of less than a second as UTC
    if type(value.tzinfo) is timezone:
        return value  # type: ignore[no-any-return]
    # A zone's name does not cross the wire, its offset does. Fixing it here keeps == true in the hour that a clock
    # change repeats, where datetimes of different zones never compare equal.
    return value.replace(tzinfo=UTC if offset == timedelta(0) else timezone(offset), fold=0)  # type: ignore[no-any-return]


def _plain(value: Any, kind: Any, name: str) -> Any:
    """A value of a subclass, such as a frozen clock gives, as the class of the standard library that it equals."""
    if type(value) is kind:
        return value
    parts = ("hour", "minute", "second", "microsecond", "tzinfo") if name == "datetime" else ()
    if isinstance(value, kind):
        plain = kind(*(getattr(value, part) for part in ("year", "month", "day", *parts)))
        plain = plain.replace(fold=value.fold) if parts else plain
        if plain == value:
            return plain
    raise WireError(f"expected {name}, got {type(value).__name__}")


def in_utc(value: datetime) -> datetime:
    """The same moment in UTC; raises :class:`WireError` where ``datetime`` has no such moment."""
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise WireError(f"{value!r} is out of range in UTC") from error


# A float may come as an int: a JSON writer of another language may drop the ".0" of a whole number.
_SCALARS: dict[object, Codec] = {
    str: Codec(_a_str, _same, _a_str),
    bool: Codec(exactly(bool), _same, exactly(bool)),
    int: Codec(_check_int, _same, _check_int),
    float: Codec(_check_float, _same, lambda value: _check_float(float(value) if type(value) is int else value)),
    Decimal: Codec(_check_decimal, str, lambda value: _check_decimal(Decimal(_a_str(value)))),
    _Real.datetime: Codec(
        _check_datetime, _Real.datetime.isoformat, lambda value: _check_datetime(_Real.datetime.fromisoformat(value))
    ),
    _Real.date: Codec(lambda value: _plain(value, _Real.date, "date"), _Real.date.isoformat, _Real.date.fromisoformat),
    UUID: Codec(exactly(UUID), str, lambda value: UUID(_a_str(value))),
}


def scalar_codec(annotation: Any) -> Codec | None:
    """The codec of an annotated type that is neither an enum nor made of others; None if it is no such type."""
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if isinstance(annotation, type) and issubclass(annotation, _Real.date):
        # A frozen clock's class takes the standard one's instances for its own.
        for standard in (_Real.date, _Real.datetime):
            if isinstance(standard(2000, 1, 1), annotation):
                return _SCALARS[standard]
    return None


def enum_codec(kind: type[Enum]) -> Codec:
    """The codec of an enum: by name, because a member's value may be anything.

    A Flag's combinations have no name, nor have members that ``_missing_`` makes: they have only their value, and may
    cross the wire if it leads back to them.
    """

    def by_value(value: Any) -> bool:
        return issubclass(kind, Flag) or kind.__members__.get(value._name_) is not value

    def check(value: Any) -> Any:
        if exactly(kind)(value) and not by_value(value):
            return value
        scalar = value._value_
        if type(scalar) not in (int, str) or (type(scalar) is int and scalar.bit_length() > _MAX_INT_BITS):
            raise WireError(f"{value!r} is none of the members of {kind.__name__}, and its value is no int or str")
        try:
            again = kind(scalar)
        except ValueError:
            again = None
        if again != value or type(again) is not kind:
            raise WireError(f"{value!r} cannot be found again, neither by name nor by value, in {kind.__name__}")
        return value

    def encode(value: Any) -> Any:
        if issubclass(kind, Flag):
            return value._value_
        return [value._value_] if by_value(value) else value._name_

    def decode(value: Any) -> Any:
        if issubclass(kind, Flag):
            return check(kind(_check_int(value)))
        if type(value) is list:
            (scalar,) = value
            return check(kind(scalar))
        return kind.__members__[_a_str(value)]

    return Codec(check, encode, decode)
