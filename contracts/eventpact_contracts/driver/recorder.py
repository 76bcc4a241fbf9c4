"""The record of a run: its entries, the events and exceptions in them as text, and the trace that they make."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from hashlib import sha256
from typing import Any, Final

from eventpact.domain.dispatcher import Guarantees
from eventpact.domain.events import DomainEvent
from eventpact_contracts.driver.conditions import Conditions
from eventpact_contracts.driver.trace import Entry, Kind, Trace
from eventpact_contracts.scenarios.failures import text_of

__all__ = ["LogWatcher", "Recorder", "as_raised", "fingerprint", "id_of", "logging_to", "names_of", "raised"]

_MAX_FINGERPRINT_LENGTH: Final = 200
_CALLS: Final = (Kind.DISPATCHED, Kind.ACCEPTED, Kind.REFUSED, Kind.RAISED)


def id_of(event: object) -> str:
    """The event's ID, or a label of an object that is no event."""
    return str(getattr(event, "event_id", f"not an event: {type(event).__name__}"))


class Recorder:
    """Records entries, on any thread.

    Attributes:
        clock: tells the time.
        entries: everything recorded so far.
        conditions: the state that the entries come to.
        over: whether the run is over, and nothing more is recorded.
        cut_short: whether the suite closes a dispatcher that has not settled everything. What handlers dispatch from
            then on is refused for that, and is not recorded.
    """

    def __init__(
        self,
        subscriptions: tuple[tuple[str, str], ...],
        guarantees: Guarantees,
        *,
        clock: Callable[[], float] = time.monotonic,
        **about: Any,
    ) -> None:
        self.clock = clock
        self.entries: list[Entry] = []
        self.conditions = Conditions(subscriptions)
        self.over = self.cut_short = False
        self._in_vain: set[str] = set()
        self._about = {"subscriptions": subscriptions, "guarantees": guarantees, **about}

    def write(self, kind: Kind, **fields: Any) -> None:
        with self.conditions.lock:
            entry = Entry(kind=kind, time=self.clock(), **fields)
            if self.cut_short and kind is Kind.DISPATCHED:
                self._in_vain.add(entry.event)
            if not self.over and not (kind in _CALLS and entry.event in self._in_vain):
                self.entries.append(entry)
            self.conditions.observe(entry)

    def describe(self, **about: Any) -> None:
        """Say more about the run than its entries do."""
        self._about.update(about)

    def trace(self) -> Trace:
        with self.conditions.lock:
            return Trace(tuple(self.entries), **self._about)


@contextmanager
def logging_to(handler: logging.Handler, *loggers: str) -> Generator[None]:
    """Have these loggers, or the root of all, log to a handler. One that has any does not turn to stderr."""
    with ExitStack() as stack:
        for logger in map(logging.getLogger, loggers or ("",)):
            logger.addHandler(handler)
            stack.callback(logger.removeHandler, handler)
        yield


class LogWatcher(logging.Handler):
    """Records that something was logged, and keeps provoked records from the screen, if nobody else listens."""

    def __init__(self, recorder: Recorder | None) -> None:
        super().__init__(logging.WARNING)
        self._recorder = recorder

    def emit(self, record: logging.LogRecord) -> None:
        if self._recorder is not None:
            self._recorder.write(Kind.LOGGED, note=f"{record.name} {record.levelname}")


def raised(error: BaseException) -> dict[str, Any]:
    """The fields of an entry that tell of an exception."""
    return {
        "exception": names_of(error),
        "note": text_of(error),
        "interruption": not isinstance(error, Exception),
    }


def as_raised(exception: object) -> object:
    """The exception itself, or that which Python turns into another one where a coroutine raises it (PEP 479)."""
    cause = getattr(exception, "__cause__", None)
    return (
        cause
        if type(exception) is RuntimeError and isinstance(cause, StopIteration | StopAsyncIteration)
        else exception
    )


def names_of(exception: BaseException) -> tuple[str, ...]:
    """The names of the exception's class and of its bases."""
    return tuple(kind.__name__ for kind in type(exception).__mro__[:-1])


def fingerprint(event: object) -> str:
    """Type and values, as ASCII: two events are equal if and only if their fingerprints are."""
    text = f"{type(event).__qualname__}({_values(event)})" if isinstance(event, DomainEvent) else ascii(event)
    if len(text) > _MAX_FINGERPRINT_LENGTH:
        return f"{text[:_MAX_FINGERPRINT_LENGTH]}... sha256 {sha256(text.encode()).hexdigest()[:16]}"
    return text


def _values(record: Any) -> str:
    kind: Any = type(record)
    return ", ".join(f"{name}={_value(getattr(record, name, '(missing)'))}" for name in _field_names(kind))


@cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind))


def _value(value: Any) -> str:
    if value is None or isinstance(value, (bool, str)):
        return ascii(value)
    if isinstance(value, int):
        return hex(value) if abs(value) >= 1 << 64 else str(value)
    if isinstance(value, float):
        return repr(value + 0.0)  # -0.0 equals 0.0
    if isinstance(value, Decimal):
        sign, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int) or not any(digits):
            return "Decimal 0" if isinstance(exponent, int) else f"Decimal {value}"
        shown = "".join(map(str, digits)).rstrip("0")
        return f"Decimal {'-' * sign}{shown}e{exponent + len(digits) - len(shown)}"
    if isinstance(value, datetime):
        offset = value.utcoffset()
        if offset is None:
            return f"naive {value!r}"
        # The moment, also where it is out of range in UTC.
        return f"{value.replace(tzinfo=UTC).isoformat()} minus {offset}" if value.year in (1, 9999) else _moment(value)
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))})"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__qualname__}({_values(value)})"
    return f"{type(value).__name__} {str(value)!a}"


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat()
