"""Ports of a handler: stand-ins that report each call to the attempt that makes it.

A port is an attribute of the handler that is neither plain data nor a lock or a logger: a repository, a mailer, a
database, a dictionary. Objects that a port returns as context managers are ports too, for example a connection.
"""

from __future__ import annotations

import gc
import inspect
import logging
import warnings
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from enum import Enum
from typing import Any, Final, Protocol

__all__ = ["CURRENT", "Attempt", "Stepped", "with_ports"]

_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes, type, Enum, logging.Logger)
_PLAIN_MODULES: Final = ("_thread", "threading", "asyncio", "datetime", "uuid", "decimal", "pathlib", "types")
_PASSED: Final = (
    "__enter__",
    "__exit__",
    "__aenter__",
    "__aexit__",
    "__iter__",
    "__len__",
    "__bool__",
    "close",
    "aclose",
)
"""Methods that are called without an interruption: leaving a block must be possible."""

_KEPT: Final = frozenset(dir(object)) | {"__getattr__", "__class_getitem__", "__del__"}


class Reaction(Protocol):
    """The reaction of the suite to one point of an attempt."""

    def at_call(self, point: str) -> None:
        """React before or after a call to a port, on the thread of the call."""

    def at_suspension(self, point: str) -> Generator[Any, Any, None]:
        """React while the attempt awaits something."""


class Attempt:
    """One call of a handler, with the points that it passed.

    Attributes:
        points: the calls to ports and the suspensions, in order. Each call is two points: before and after it.
        reached: whether it came to the point that the suite waits for.
    """

    def __init__(self, place: int | None = None, reaction: Reaction | None = None) -> None:
        self.points: list[str] = []
        self.reached = False
        self._place = place
        self._reaction = reaction

    def call(self, point: str) -> None:
        if self._is_due(point) and self._reaction:
            self._reaction.at_call(point)

    def suspension(self) -> Generator[Any, Any, None]:
        point = f"at await {1 + sum(point.startswith('at await') for point in self.points)}"
        if self._is_due(point) and self._reaction:
            yield from self._reaction.at_suspension(point)

    def _is_due(self, point: str) -> bool:
        self.points.append(point)
        due = len(self.points) - 1 == self._place
        self.reached = self.reached or due
        return due


CURRENT: Final[ContextVar[Attempt | None]] = ContextVar("eventpact_attempt", default=None)
"""The attempt that the code at hand belongs to; threads of ``asyncio.to_thread`` inherit it."""


class Stepped:
    """An awaitable that reports each suspension of another to an attempt."""

    def __init__(self, awaitable: Awaitable[Any], attempt: Attempt) -> None:
        self._awaitable = awaitable
        self._attempt = attempt

    def __await__(self) -> Generator[Any, Any, Any]:
        steps: Any = self._awaitable.__await__()
        value, error = None, None
        while True:
            try:
                awaited = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            value, error = None, None
            yield from self._attempt.suspension()
            try:
                value = yield awaited
            except BaseException as raised:  # noqa: BLE001 - thrown into the handler at once
                error = raised


def with_ports(handler: Any) -> Any:
    """Replace the ports among the handler's attributes by stand-ins, and return the handler."""
    slots = [name for kind in type(handler).__mro__ for name in getattr(kind, "__slots__", ())]
    for name in [*getattr(handler, "__dict__", {}), *slots]:
        value = getattr(handler, name, None)
        if _is_port(value):
            object.__setattr__(handler, name, _stand_in(value, name.lstrip("_")))
    return handler


def _is_port(value: object) -> bool:
    kind = type(value)
    return not isinstance(value, _PLAIN) and kind.__module__ not in _PLAIN_MODULES and kind is not tuple


class _StandIn:
    """A stand-in for a port. It is indistinguishable from the port by ``isinstance``."""

    def __init__(self, port: Any, name: str) -> None:
        object.__setattr__(self, "_eventpact_port", port)
        object.__setattr__(self, "_eventpact_name", name)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_eventpact_"):
            return object.__getattribute__(self, name)
        value = getattr(self._eventpact_port, name)
        called = f"{self._eventpact_name}.{name}"
        uninterrupted = name in _PASSED or not callable(value) or isinstance(value, type)
        return value if uninterrupted else _reporting(value, called)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._eventpact_port, name, value)


def _stand_in(port: Any, name: str) -> Any:
    special = {
        method: _forward(method)
        for method in dir(type(port))
        if method.startswith("__") and method.endswith("__") and method not in _KEPT
        # A class may have less than it lists: of a function, for one, each has its own __annotations__.
        if callable(getattr(type(port), method, None))
    }
    # Special methods are looked up on the type, so each port has a stand-in type of its own.
    return type("StandIn", (_StandIn,), {"__hash__": None, **special, **_COMPARED})(port, name)


def _forward(method: str) -> Callable[..., Any]:
    def forward(self: _StandIn, *args: Any, **options: Any) -> Any:
        function = getattr(self._eventpact_port, method)
        if method in _PASSED:
            result = _returned(function(*map(_port_of, args), **options), self._eventpact_name, entered=True)
            if method == "__exit__" and args[0] is None and (attempt := CURRENT.get()):
                attempt.call(f"after the block of {self._eventpact_name}")  # which may have committed
            return result
        name = self._eventpact_name if method == "__call__" else f"{self._eventpact_name}.{method}"
        return _reporting(function, name)(*args, **options)

    return forward


_COMPARED: Final[dict[str, Callable[..., Any]]] = {
    "__eq__": lambda self, other: self._eventpact_port == _port_of(other),
    "__hash__": lambda self: hash(self._eventpact_port),
    "__repr__": lambda self: repr(self._eventpact_port),
    "__str__": lambda self: str(self._eventpact_port),
}


def _port_of(value: Any) -> Any:
    return value._eventpact_port if isinstance(type(value), type) and issubclass(type(value), _StandIn) else value


def _reporting(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function, with a report before and after each call."""

    def call(*args: Any, **options: Any) -> Any:
        attempt = CURRENT.get()
        given = [_port_of(arg) for arg in args], {key: _port_of(value) for key, value in options.items()}
        if attempt is None:
            return function(*given[0], **given[1])
        attempt.call(f"before {name}")
        result = function(*given[0], **given[1])
        if inspect.isawaitable(result) and not _is_context(result):
            return _awaited(result, name, attempt)
        try:
            attempt.call(f"after {name}")
        except BaseException:
            with warnings.catch_warnings(action="ignore", category=ResourceWarning):
                del result  # a connection, say, that nobody can close: as when a process ends
                gc.collect(1)  # it may refer to itself
            raise
        return _returned(result, name)

    return call


async def _awaited(result: Awaitable[Any], name: str, attempt: Attempt) -> Any:
    value = await result
    attempt.call(f"after {name}")
    return _returned(value, name)


def _returned(value: Any, name: str, *, entered: bool = False) -> Any:
    """The value that a port returned: a context manager and the object that it yields are ports in turn."""
    if inspect.iscoroutine(value):
        return _entered(value, name) if entered else value
    if _is_context(value) or (entered and _is_port(value) and hasattr(value, "__dict__")):
        return _stand_in(value, name) if _is_port(value) else value
    return value


async def _entered(value: Awaitable[Any], name: str) -> Any:
    return _returned(await value, name, entered=True)


def _is_context(value: object) -> bool:
    return hasattr(type(value), "__enter__") or hasattr(type(value), "__aenter__")
