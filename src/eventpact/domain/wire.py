"""Fields of an event as JSON, and back, equal.

A field may be annotated ``str``, ``bool``, ``int``, ``float``, ``Decimal``, ``datetime``, ``date``, ``UUID``, an
``Enum``, a ``tuple`` of these, a frozen dataclass of these, or ``X | None`` of one of them. Everything else is refused
with :class:`WireError`, because it could not be rebuilt equal in another process, or could be changed on the way.
"""

import dataclasses
import inspect
import threading
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

from eventpact.domain.codecs import Codec, WireError, enum_codec, exactly, scalar_codec

__all__ = [
    "Json",
    "MalformedError",
    "WireError",
    "check_takes_fields",
    "codec_for",
    "decode_fields",
    "fields_of",
    "make",
]


class MalformedError(WireError):
    """A field of a message that cannot be decoded, by its path. The text quotes no value."""

    def __init__(self, path: str, cause: BaseException | None) -> None:
        super().__init__(f"{path} is malformed ({type(cause).__name__})")
        self.path = path


class _TooDeepError(WireError):
    """Records are nested too deep."""


Json: typing.TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_MAX_NESTED_RECORDS: Final = 50
"""Records inside one another. The depth of Python's stack, and of a JSON reader's, is limited."""


def codec_for(annotation: Any) -> Codec:
    """The codec of an annotated type; raises :class:`WireError` if its values cannot cross a queue."""
    if scalar := scalar_codec(annotation):
        return scalar
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        members = [argument for argument in arguments if argument is not type(None)]
        if len(members) == 1 and len(arguments) == 2:
            return _optional(codec_for(members[0]))
    elif origin is tuple and arguments:
        return _tuple(arguments)
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        return enum_codec(annotation)
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


def _tuple(arguments: tuple[Any, ...]) -> Codec:
    codecs = tuple(codec_for(argument) for argument in arguments if argument is not Ellipsis)

    def each(value: Any, step: str, *kinds: type) -> list[Any]:
        count = len(exactly(*kinds)(value))
        wanted = codecs * count if Ellipsis in arguments else codecs
        if count != len(wanted):
            raise WireError(f"expected {len(wanted)} items, got {count}")
        return [getattr(codec, step)(item) for codec, item in zip(wanted, value, strict=True)]

    return Codec(
        lambda value: tuple(each(value, "check", tuple)),
        lambda value: each(value, "encode", tuple),
        lambda value: tuple(each(value, "decode", list, tuple)),
    )


class _State(threading.local):
    """Per thread: how deep the records are nested that it treats, and the classes whose fields it works out."""

    def __init__(self) -> None:
        self.depth = 0
        self.unfinished: dict[type, dict[str, Codec]] = {}


_state = _State()


def _record(kind: type) -> Codec:
    codecs = fields_of(kind)
    check_takes_fields(kind)

    def check(value: Any) -> Any:
        exactly(kind)(value)
        changed = {}
        for name, codec in codecs.items():
            held = getattr(value, name)
            if (kept := codec.check(held)) is not held:
                changed[name] = kept
        return make(kind, {name: changed.get(name, getattr(value, name)) for name in codecs}) if changed else value

    def encode(value: Any) -> dict[str, Any]:
        return {name: codec.encode(getattr(value, name)) for name, codec in codecs.items()}

    def decode(value: Any) -> Any:
        return make(kind, decode_fields(kind, value))

    def nested(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(value: Any) -> Any:
            if _state.depth >= _MAX_NESTED_RECORDS:
                raise _TooDeepError(f"{kind.__name__} is nested more than {_MAX_NESTED_RECORDS} deep")
            _state.depth += 1
            try:
                return step(value)
            finally:
                _state.depth -= 1

        return call

    return Codec(nested(check), nested(encode), nested(decode))


def check_takes_fields(kind: type[Any]) -> None:
    """Raise :class:`WireError` if a dataclass with an ``__init__`` of its own cannot be made from its fields."""
    try:
        signature = inspect.signature(kind)
    except ValueError:  # some classes do not tell
        return
    try:
        signature.bind(**{field.name: field for field in dataclasses.fields(kind)})
    except TypeError as error:
        raise WireError(
            f"{kind.__qualname__} does not take its own fields ({error}); leave its __init__ to @dataclass, or let it"
            " take each field by its name"
        ) from None


def make(kind: type[Any], fields: Mapping[str, Any]) -> Any:
    """Make a dataclass that has these fields.

    Its own ``__post_init__`` may judge them, and derive attributes that are no fields. A field that it changes was
    changed when the sender made the original, and is put back: the change must not be made twice.
    """
    try:
        made = kind(**fields)
        for name, value in fields.items():
            if getattr(made, name) != value:
                object.__setattr__(made, name, value)
    except Exception as error:
        raise WireError(f"{kind.__name__} does not take these values ({type(error).__name__})") from error
    return made


def decode_fields(kind: type, data: Any, *required: str) -> dict[str, Any]:
    """Return the fields of a message, by name, less those that it lacks and that have a default.

    Raises:
        MalformedError: a field cannot be decoded.
        WireError: as :func:`_fields_in`.
    """
    codecs = fields_of(kind)
    fields = {}
    for name, held in _fields_in(kind, data, required).items():
        try:
            fields[name] = codecs[name].decode(held)
        except _TooDeepError as error:
            if _state.depth:
                raise  # so long a path would say nothing
            raise MalformedError(name, error) from error
        except MalformedError as error:
            raise MalformedError(f"{name}.{error.path}", error.__cause__) from error.__cause__
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
            raise MalformedError(name, error) from error
    return fields


def _fields_in(kind: type, data: Any, required: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a message as they came, by name.

    A deploy meets messages of the version before, which lack the newest fields. Raise :class:`WireError` where another
    field is lacking, or one of those ``required`` in any case; or where there is an unknown one, which would be lost.
    """
    codecs = fields_of(kind)
    if not isinstance(data, Mapping):
        raise WireError(f"{kind.__name__} has the fields {sorted(codecs)}, got {type(data).__name__}")
    if data.keys() == codecs.keys():
        return dict(data)
    if unknown := sorted(map(str, data.keys() - codecs.keys())):
        raise WireError(f"{kind.__name__} has no field {', '.join(unknown)}; is the message of a newer version?")
    missing = dataclasses.MISSING
    absent = [field for field in dataclasses.fields(kind) if field.name not in data]
    lacking = [f.name for f in absent if f.name in required or f.default is missing is f.default_factory]
    if lacking:
        raise WireError(f"{kind.__name__} needs {', '.join(lacking)}, which the message lacks; give a default")
    return dict(data)


_FIELDS: dict[type, dict[str, Codec]] = {}


def fields_of(kind: type) -> dict[str, Codec]:
    """The codec of each field of a frozen dataclass, by name, worked out once; :class:`WireError` if there is none."""
    if kind in _FIELDS:
        return _FIELDS[kind]
    if kind in _state.unfinished:
        return _state.unfinished[kind]  # a record that holds others of its type: filled by the time that it is used
    outermost = not _state.unfinished
    codecs = _state.unfinished[kind] = {}
    try:
        _fill(codecs, kind)
        if outermost:
            _FIELDS.update(_state.unfinished)
    finally:
        if outermost:
            _state.unfinished.clear()
    return codecs


def _fill(codecs: dict[str, Codec], kind: type) -> None:
    parameters: Any = vars(kind).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        raise WireError(f"{kind.__qualname__} is mutable; decorate it with @dataclass(frozen=True)")
    if not parameters.eq:
        raise WireError(f"{kind.__qualname__} does not compare by value; leave eq=True in its @dataclass")
    try:
        hints = typing.get_type_hints(kind)
    except Exception as error:  # an annotation in quotes is code, which may raise anything
        unresolved = f"the annotations of {kind.__qualname__} cannot be resolved ({error})"
        raise WireError(f"{unresolved}; define the types that it names at module level") from error
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
