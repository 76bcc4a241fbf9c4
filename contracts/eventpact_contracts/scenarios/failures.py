"""Exceptions that handlers and failure sinks raise, by name: usual ones, and those that careless code stumbles over."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from eventpact.domain.dispatcher import (
    DispatcherClosedError,
    DispatchError,
    DispatchUncertainError,
    PermanentFailureError,
    RegistrationError,
)

__all__ = ["FAILURES", "INTERRUPTIONS", "LOOK_ALIKES", "Failure", "text_of"]


class AwkwardError(Exception):
    """An exception that cannot be made again from its message, which is all that some engines keep."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnspeakableError(Exception):
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("this exception has no text")

    __repr__ = __str__


class UnpicklableError(Exception):
    """An exception that cannot cross processes."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class FalsyError(Exception):
    """An exception that is false."""

    def __bool__(self) -> bool:
        return False


class EqualError(Exception):
    """An exception that equals every other of its class."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EqualError)

    __hash__ = None  # type: ignore[assignment]  # as in every class that defines its own equality


class DepthError(RecursionError):
    """A handler's own complaint, which is none of the stack on which it was called."""


class NeverAgainError(PermanentFailureError):
    """A subclass of the error that says not to try again."""


class Abort(BaseException):
    """A library's own interruption."""


class FalsyAbort(BaseException):
    """An interruption that is false."""

    def __bool__(self) -> bool:
        return False


class Halt(KeyboardInterrupt):
    """A library's own interruption that is a ``KeyboardInterrupt``."""


_ALWAYS_THE_SAME: Final = ValueError("always the same exception")


@dataclass(frozen=True)
class Failure:
    """A kind of exception.

    Attributes:
        make: makes one with this message.
        awaited: whether an ``async def`` may raise it, too, and a future carry it.
        on_loop: whether that may happen on the suite's own loop, which asyncio would let it end.
    """

    make: Callable[[str], BaseException]
    awaited: bool = True
    on_loop: bool = True

    def may_be_awaited(self, *, on_loop: bool) -> bool:
        """Return whether an awaited handler may raise it, on the suite's own loop or on another."""
        return self.awaited and (self.on_loop or not on_loop)


FAILURES: Final[dict[str, Failure]] = {
    "ValueError": Failure(ValueError),
    "KeyError": Failure(KeyError),
    "Exception": Failure(Exception),
    "TimeoutError": Failure(TimeoutError),
    "TypeError": Failure(TypeError),
    "AttributeError": Failure(AttributeError),
    "AssertionError": Failure(AssertionError),
    "NotImplementedError": Failure(NotImplementedError),
    "RuntimeError": Failure(RuntimeError),
    "OSError": Failure(lambda message: OSError(5, message)),
    "ConnectionError": Failure(ConnectionResetError),
    "MemoryError": Failure(MemoryError),
    "RecursionError": Failure(DepthError),
    "Empty": Failure(queue.Empty),
    "CancelledError of futures": Failure(concurrent.futures.CancelledError),
    "Awkward": Failure(lambda message: AwkwardError(7, message)),
    "unpicklable": Failure(UnpicklableError),
    # ``concurrent.futures`` asks whether an exception is true, up to Python 3.13, and loses this one.
    "falsy": Failure(FalsyError, awaited=False),
    "equal": Failure(EqualError),
    "without a text": Failure(lambda _: ValueError()),
    "whose text raises": Failure(UnspeakableError),
    "the same object": Failure(lambda _: _ALWAYS_THE_SAME),
    "with odd text": Failure(lambda message: ValueError(f"{message} %s {{}} \0 \ud800 \U0001f600\r\n")),
    "group": Failure(lambda message: ExceptionGroup(message, [ValueError("one"), KeyError("two")])),
    "group of one": Failure(lambda message: ExceptionGroup(message, [ValueError("one")])),
    "with a cause": Failure(lambda message: _caused(ValueError(message), KeyError("the cause"))),
    "with a permanent cause": Failure(lambda message: _caused(ValueError(message), PermanentFailureError("the cause"))),
    "after a cancellation": Failure(lambda message: _caused(TimeoutError(message), asyncio.CancelledError())),
    "StopIteration": Failure(StopIteration, awaited=False),
    "StopAsyncIteration": Failure(StopAsyncIteration, awaited=False),
}
"""Exceptions that mean that an attempt failed."""

LOOK_ALIKES: Final[dict[str, Failure]] = {
    "DispatchError": Failure(DispatchError),
    "DispatcherClosedError": Failure(DispatcherClosedError),
    "DispatchUncertainError": Failure(DispatchUncertainError),
    "RegistrationError": Failure(RegistrationError),
}
"""Exceptions that look like the dispatcher's own."""

PERMANENT: Final[dict[str, Failure]] = {
    "PermanentFailureError": Failure(PermanentFailureError),
    "a permanent failure's subclass": Failure(NeverAgainError),
}
"""Exceptions after which a delivery is not tried again."""

INTERRUPTIONS: Final[dict[str, Failure]] = {
    "KeyboardInterrupt": Failure(KeyboardInterrupt, on_loop=False),
    "SystemExit": Failure(SystemExit, on_loop=False),
    "SystemExit of success": Failure(lambda _: SystemExit(0), on_loop=False),
    "falsy interruption": Failure(FalsyAbort, awaited=False),
    "Halt": Failure(Halt, awaited=False),
    "GeneratorExit": Failure(GeneratorExit, on_loop=False),
    "CancelledError": Failure(asyncio.CancelledError),
    "Abort": Failure(Abort),
    "group of interruptions": Failure(lambda message: BaseExceptionGroup(message, [Abort("one"), ValueError("two")])),
}
"""Exceptions that are no ``Exception``. On a loop, asyncio lets those of Python's own end the loop itself."""

EVERY: Final = {**FAILURES, **LOOK_ALIKES, **PERMANENT, **INTERRUPTIONS}


def _caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def text_of(exception: BaseException) -> str:
    """The exception's text, or a word on it where it has none to give."""
    try:
        return str(exception)
    except Exception as error:  # noqa: BLE001 - some exceptions are like that
        return f"(its text raises {type(error).__name__})"
