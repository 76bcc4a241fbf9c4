"""Checks of what a dispatcher is given, when it is built (law A4): event types, handlers, a failure sink, numbers."""

import dataclasses
import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, Final
from weakref import WeakSet

from eventpact.domain.dispatcher import RegistrationError
from eventpact.domain.events import DomainEvent
from eventpact.domain.wire import WireError, check_takes_fields, fields_of

_fitting: Final = WeakSet[FunctionType]()
"""Functions of methods that take one event. To look at a signature takes most of the time of building a table, and an
application's tests build one after the other."""

_sound: Final = WeakSet[type[DomainEvent]]()
"""Event types that were looked at and can cross a queue, likewise."""

_MAX_DECORATORS: Final = 1000
"""As deep as Python calls functions."""


def path(kind: type) -> str:
    """Name a class with its module."""
    return f"{kind.__module__}.{kind.__qualname__}"


def check_event_type(event_type: object) -> None:
    """Raise :class:`RegistrationError` unless it is a type of events that can cross a queue."""
    if not isinstance(event_type, type) or not issubclass(event_type, DomainEvent):
        raise RegistrationError(f"{event_type!r} is no event type; a key must be a subclass of DomainEvent")
    if event_type in _sound:
        return
    try:
        fields, own = fields_of(event_type), fields_of(DomainEvent)
        check_takes_fields(event_type)
    except WireError as error:
        raise RegistrationError(str(error)) from error
    for name in fields:
        if hasattr(DomainEvent, name):
            raise RegistrationError(f"{path(event_type)}.{name} hides a method of DomainEvent; rename the field")
    for name, codec in own.items():
        if fields.get(name) is not codec:
            raise RegistrationError(f"{path(event_type)}.{name} is every event's own; leave its type as it is")
    _sound.add(event_type)


def check_sink(sink: object, what: str = "the failure sink", wanted: str = "FailedDelivery") -> None:
    """Raise :class:`RegistrationError` unless it is a plain function of one failed delivery, or whatever is wanted."""
    if not callable(sink):
        raise RegistrationError(f"{what} is no function, but {type(sink).__name__}; give a callable")
    if _is_generator(sink) or is_async(sink) or is_async(type(sink).__call__):
        raise RegistrationError(f"{what} is async or a generator, and would never run; make it a function")
    if fault := _misfit(sink, wanted):
        name = getattr(sink, "__qualname__", type(sink).__qualname__)
        raise RegistrationError(f"{what} is {name}{fault}; give one that does")


def check_range(name: str, value: Any, kinds: tuple[type, ...], least: Any, most: Any = None) -> None:
    """Raise :class:`RegistrationError` unless an argument is of one of these types, and between these two."""
    if type(value) not in kinds or not least <= value or not (most is None or value <= most):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise RegistrationError(
            f"{name} is {value!r:.100}; give {wanted}, {f'at least {least}' if most is None else f'{least} to {most}'}"
        )


def handle_of(event_type: type[DomainEvent], handler: object) -> Any:
    """Return the ``handle`` of a handler; raise :class:`RegistrationError` unless it takes one event."""
    wanted = f"the handler of {event_type.__name__}"
    if isinstance(handler, type):
        raise RegistrationError(f"{wanted} is the class {path(handler)}; give an instance of it")
    handle = attribute(handler, "handle")
    if not callable(handle):
        raise RegistrationError(
            f"{wanted} is a {path(type(handler))}, which has no handle method; give it handle(event), and give several"
            " handlers as a list or tuple"
        )
    function: object = handle.__func__ if isinstance(handle, MethodType) else None
    if not isinstance(function, FunctionType):  # anything else may be unhashable
        _check_handle(wanted, handler, handle)
    elif function not in _fitting:
        _check_handle(wanted, handler, handle)
        _fitting.add(function)
    return handle


def attribute(handler: object, name: str) -> Any:
    """Return an attribute of a handler, None where it has none; :class:`RegistrationError` where it raises."""
    try:
        return getattr(handler, name, None)
    except Exception as error:
        raise RegistrationError(
            f"a {path(type(handler))} raises {type(error).__name__} when it is asked for its {name}; let it have one"
            " when the dispatcher is built"
        ) from error


def former_names(kind: type) -> tuple[str, ...]:
    """Return the names that a class had before, from its own body: a subclass is another class."""
    names = vars(kind).get("former_names", ())
    if dataclasses.is_dataclass(kind) and any(field.name == "former_names" for field in dataclasses.fields(kind)):
        return ()
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise RegistrationError(f'{path(kind)}.former_names is no tuple of names; write former_names = ("Old",)')
    return names


def innermost(handler: object) -> type:
    """Return the class of a handler; that of the innermost handler where it is decorated (``__wrapped__``).

    A function or a class that is wrapped is no handler; an attribute that a ``__getattr__`` makes up wraps nothing.
    """
    inner = handler
    for _ in range(_MAX_DECORATORS):
        outer, inner = inner, attribute(inner, "__wrapped__")
        if inner is None or isinstance(inner, type) or not callable(attribute(inner, "handle")):
            return type(outer)
        if inspect.getattr_static(outer, "__wrapped__", None) is None:
            return type(outer)
    raise RegistrationError(
        f"the __wrapped__ of a {path(type(handler))} leads back to itself; let it name the handler inside"
    )


def _check_handle(wanted: str, handler: object, handle: Any) -> None:
    if _is_generator(handle):
        raise RegistrationError(
            f"{wanted}, {path(type(handler))}, has a handle that is a generator, and would never run; take the yield"
            " out of it"
        )
    # A handle that is bound without being a method, as of a singledispatchmethod, may wrap one that takes self, too.
    if fault := _misfit(handle, "event", follow_wrapped=not isinstance(handle, FunctionType)):
        raise RegistrationError(f"{wanted}, {path(type(handler))}, has handle{fault}")


def _is_generator(function: object) -> bool:
    """Return whether calling it would run nothing, because it is a generator, async or not."""
    return any(
        _is(each, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        for each in (function, type(function).__call__)
    )


def is_async(function: object) -> bool:
    """Return whether it is an ``async def``."""
    return _is(function, inspect.iscoroutinefunction)


def _is(function: object, *kinds: Callable[[object], bool]) -> bool:
    """Return whether a function is of one of these kinds, by its flags; those of a mock of a function are all true."""
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return type(flags) is int and any(is_one(function) for is_one in kinds)


def _misfit(function: Callable[..., Any], wanted: str, *, follow_wrapped: bool = True) -> str | None:
    """Return the signature of a function that does not take one argument, and why it does not; else None."""
    try:
        signature = inspect.signature(function, follow_wrapped=follow_wrapped)
    except Exception:  # noqa: BLE001 - some callables do not tell
        return None
    try:
        signature.bind(object())
    except TypeError as error:
        return f"{signature}, which does not take one {wanted} ({error})"
    return None
