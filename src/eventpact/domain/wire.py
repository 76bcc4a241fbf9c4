"""How a field of an event crosses a queue: as JSON, and back, equal.

A field may be annotated ``str``, ``bool``, ``int``, ``float``, ``Decimal``, ``datetime``, ``date``, ``UUID``, an
``Enum``, a ``tuple`` of these, a frozen dataclass of these, or ``X | None`` of one of them. Everything else is refused
with :class:`WireError`, because it could not be rebuilt equal in another process, or could be changed on the way.

Only what passed :meth:`Codec.check` encodes; ``check`` is the one place where a value is judged.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from functools import cache
from typing import Any
from uuid import UUID

__all__ = ["Codec", "Json", "WireError", "codec_for", "fields_of", "in_utc"]

Json: typing.TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

# Beyond this many bits CPython refuses to turn an int into decimal digits (sys.set_int_max_str_digits), so no JSON
# encoder could write it. 4300 digits are 14284 bits.
_MAX_INT_BITS = 14_000


class WireError(TypeError):
    """A type, or a value, that cannot cross a queue and come back equal. The message says which and why."""


@dataclass(frozen=True, slots=True)
class Codec:
    """What is done with the values of one annotated type.

    ``check`` returns the value in the form that is kept (an aware ``datetime`` with a fixed offset, say) or raises
    :class:`WireError` or ``ValueError``. ``encode`` makes JSON of a checked value; ``decode`` is its inverse and
    raises ``ValueError``, ``KeyError`` or ``TypeError`` for JSON that is not of that form.
    """

    check: Callable[[Any], Any]
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def _exactly(*kinds: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) not in kinds:
            raise WireError(f"expected {kinds[0].__name__}, got {type(value).__name__}")
        return value

    return check


def _check_int(value: Any) -> int:
    if type(value) is not int:
        raise WireError(f"expected int, got {type(value).__name__}")
    if value.bit_length() > _MAX_INT_BITS:
        raise ValueError(f"an int of {value.bit_length()} bits has no decimal form; at most {_MAX_INT_BITS} bits")
    return value


def _check_float(value: Any) -> float:
    if type(value) is not float:
        raise WireError(f"expected float, got {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite float, and JSON has no other")
    return value


def _check_decimal(value: Any) -> Decimal:
    if type(value) is not Decimal:
        raise WireError(f"expected Decimal, got {type(value).__name__}")
    if value.is_nan():
        raise ValueError("a Decimal NaN equals nothing, so it cannot come back equal")
    return value


def _check_datetime(value: Any) -> datetime:
    if type(value) is not datetime:
        raise WireError(f"expected datetime, got {type(value).__name__}")
    offset = value.utcoffset()
    if offset is None:
        raise ValueError(f"{value!r} is naive; give it a time zone, e.g. datetime.now(UTC)")
    if offset.microseconds:
        return in_utc(value)  # datetime.fromisoformat reads back some offsets of less than a second as UTC
    if type(value.tzinfo) is timezone:
        return value
    # A zone's name does not cross the wire, its offset does. Fixing it here keeps == true in the hour that a clock
    # change repeats, where datetimes of different zones never compare equal.
    return value.replace(tzinfo=UTC if offset == timedelta(0) else timezone(offset), fold=0)


def in_utc(value: datetime) -> datetime:
    """The same moment in UTC.

    Raises:
        ValueError: it is out of the range of ``datetime`` there.
    """
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{value!r} is out of range in UTC") from error


def _decode_datetime(value: Any) -> datetime:
    return _check_datetime(datetime.fromisoformat(value))


def _decode_float(value: Any) -> float:
    # A JSON writer of another language may drop the ".0" of a whole number.
    return _check_float(float(value) if type(value) is int else value)


_SCALARS: dict[object, Codec] = {
    str: Codec(_exactly(str), _same, _exactly(str)),
    bool: Codec(_exactly(bool), _same, _exactly(bool)),
    int: Codec(_check_int, _same, _check_int),
    float: Codec(_check_float, _same, _decode_float),
    Decimal: Codec(_check_decimal, str, lambda value: _check_decimal(Decimal(_exactly(str)(value)))),
    datetime: Codec(_check_datetime, datetime.isoformat, _decode_datetime),
    date: Codec(_exactly(date), date.isoformat, date.fromisoformat),
    UUID: Codec(_exactly(UUID), str, lambda value: UUID(_exactly(str)(value))),
}


@cache
def codec_for(annotation: Any) -> Codec:
    """The codec of an annotated type.

    Raises:
        WireError: the annotation is none of those that can cross a queue.
    """
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        members = [argument for argument in arguments if argument is not type(None)]
        if len(members) == 1 and len(arguments) == 2:
            return _optional(codec_for(members[0]))
    elif origin is tuple and arguments:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return _homogeneous(codec_for(arguments[0]))
        return _fixed(tuple(codec_for(argument) for argument in arguments))
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        return _enum(annotation)
    elif isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return _record(annotation)
    raise WireError(
        f"{annotation!r} cannot cross a queue; use str, bool, int, float, Decimal, an aware datetime, date, UUID, an"
        " Enum, a tuple of these, a frozen dataclass of these, or one of them | None"
    )


def _optional(inner: Codec) -> Codec:
    def through(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda value: None if value is None else function(value)

    return Codec(through(inner.check), through(inner.encode), through(inner.decode))


def _homogeneous(inner: Codec) -> Codec:
    def check(value: Any) -> tuple[Any, ...]:
        return tuple(inner.check(item) for item in _exactly(tuple)(value))

    return Codec(
        check,
        lambda value: [inner.encode(item) for item in value],
        lambda value: tuple(inner.decode(item) for item in _exactly(list, tuple)(value)),
    )


def _fixed(inner: tuple[Codec, ...]) -> Codec:
    def each(value: Any, kinds: tuple[type, ...], step: str) -> list[Any]:
        if len(_exactly(*kinds)(value)) != len(inner):
            raise ValueError(f"expected {len(inner)} items, got {len(value)}")
        return [getattr(codec, step)(item) for codec, item in zip(inner, value, strict=True)]

    return Codec(
        lambda value: tuple(each(value, (tuple,), "check")),
        lambda value: each(value, (tuple,), "encode"),
        lambda value: tuple(each(value, (list, tuple), "decode")),
    )


def _enum(kind: type[Enum]) -> Codec:
    # By name, because a member's value may be anything; a Flag's combinations have only values.
    check = _exactly(kind)
    if issubclass(kind, Flag):
        return Codec(check, lambda member: member.value, lambda value: kind(_check_int(value)))
    return Codec(check, lambda member: member.name, lambda value: kind[_exactly(str)(value)])


def _record(kind: type) -> Codec:
    codecs = fields_of(kind)

    def check(value: Any) -> Any:
        _exactly(kind)(value)
        changed = {}
        for name, codec in codecs.items():
            held = getattr(value, name)
            if (kept := codec.check(held)) is not held:
                changed[name] = kept
        return dataclasses.replace(value, **changed) if changed else value

    def encode(value: Any) -> dict[str, Any]:
        return {name: codec.encode(getattr(value, name)) for name, codec in codecs.items()}

    def decode(value: Any) -> Any:
        _exactly(dict)(value)
        if value.keys() != codecs.keys():
            raise ValueError(f"expected the fields {sorted(codecs)}, got {sorted(value)}")
        return kind(**{name: codec.decode(value[name]) for name, codec in codecs.items()})

    return Codec(check, encode, decode)


_FIELDS: dict[type, dict[str, Codec]] = {}


def fields_of(kind: type) -> dict[str, Codec]:
    """The codec of each field of a frozen dataclass, by name; worked out once a class.

    Raises:
        WireError: the class is no frozen dataclass that compares by value, or a field's type cannot cross a queue.
    """
    if kind in _FIELDS:
        return _FIELDS[kind]
    parameters = vars(kind).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        raise WireError(f"{kind.__qualname__} is mutable; decorate it with @dataclass(frozen=True)")
    if not parameters.eq:
        raise WireError(f"{kind.__qualname__} does not compare by value; leave eq=True in its @dataclass")
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, TypeError) as error:
        raise WireError(
            f"the annotations of {kind.__qualname__} cannot be resolved ({error}); define the types that it names at"
            " module level"
        ) from error
    codecs = {}
    for name, field in kind.__dataclass_fields__.items():  # type: ignore[attr-defined]  # a dataclass has it
        if typing.get_origin(hints[name]) is typing.ClassVar or hints[name] is typing.ClassVar:
            continue
        if isinstance(hints[name], dataclasses.InitVar) or not field.init:
            raise WireError(f"{kind.__qualname__}.{name} is not both given to and kept by the event; make it a field")
        try:
            codecs[name] = codec_for(hints[name])
        except WireError as error:
            raise WireError(f"{kind.__qualname__}.{name}: {error}") from None
        except TypeError as error:
            raise WireError(f"{kind.__qualname__}.{name}: {hints[name]!r} is no type ({error})") from error
    _FIELDS[kind] = codecs
    return codecs
