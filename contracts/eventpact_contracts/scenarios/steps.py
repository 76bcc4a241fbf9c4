"""Steps: the things that a caller of a scenario does, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "AwaitBegun",
    "AwaitClosed",
    "AwaitEnded",
    "AwaitPaused",
    "AwaitReturned",
    "AwaitStarted",
    "Close",
    "CollectGarbage",
    "Dispatch",
    "DispatchNonEvent",
    "DispatchPaused",
    "Flood",
    "Release",
    "Rest",
    "Resume",
    "Step",
]


@dataclass(frozen=True)
class Dispatch:
    """Dispatch event number ``event`` of the scenario."""

    event: int


@dataclass(frozen=True)
class DispatchPaused:
    """Dispatch event number ``event``, and pause on the way until another caller takes :class:`Resume`.

    Attributes:
        place: where it pauses: after so many lines, modulo those of the call before it. The first call does not pause.
    """

    event: int
    place: int = 0


@dataclass(frozen=True)
class AwaitPaused:
    """Wait until something pauses, or has ended without: the dispatching, or an attempt with event number ``event``."""

    event: int | None = None


@dataclass(frozen=True)
class Resume:
    """Let what pauses go on. It does so by itself after a moment, lest it keep all others waiting."""


@dataclass(frozen=True)
class DispatchNonEvent:
    """Dispatch an object that is no event: one of :data:`eventpact_contracts.scenarios.invalid.NON_EVENTS`."""

    number: int


@dataclass(frozen=True)
class Flood:
    """Dispatch copies of event number ``event`` until some are refused, ``limit`` at most."""

    event: int
    limit: int


@dataclass(frozen=True)
class AwaitStarted:
    """Wait until a held handler, or a held failure sink, has received event number ``event``."""

    event: int


@dataclass(frozen=True)
class AwaitEnded:
    """Wait until an attempt with event number ``event`` has ended, ``seconds`` at most."""

    event: int
    seconds: float | None = None


@dataclass(frozen=True)
class AwaitReturned:
    """Wait until dispatching event number ``event`` has returned, ``seconds`` at most; either is fine."""

    event: int
    seconds: float | None = None


@dataclass(frozen=True)
class AwaitBegun:
    """Wait until closing has begun."""


@dataclass(frozen=True)
class AwaitClosed:
    """Wait until closing has ended."""


@dataclass(frozen=True)
class Release:
    """Let the held handlers, and the held failure sink, of event number ``event`` go on."""

    event: int


@dataclass(frozen=True)
class Rest:
    """Do nothing for so many seconds, and leave the dispatcher idle."""

    seconds: float


@dataclass(frozen=True)
class CollectGarbage:
    """Let the interpreter free whatever nothing refers to."""


@dataclass(frozen=True)
class Close:
    """``aclose(timeout)``; where ``event`` is given, it is dispatched before, and nothing comes between.

    Attributes:
        by_thread: whether a thread dispatches it, while the caller's event loop is kept busy.
        cancelled: whether closing is cancelled after a moment, if it has not ended by then.
    """

    timeout: float
    event: int | None = None
    by_thread: bool = False
    cancelled: bool = False


Step = (
    Dispatch
    | DispatchNonEvent
    | DispatchPaused
    | Flood
    | AwaitStarted
    | AwaitEnded
    | AwaitPaused
    | AwaitReturned
    | AwaitBegun
    | AwaitClosed
    | CollectGarbage
    | Release
    | Rest
    | Resume
    | Close
)
