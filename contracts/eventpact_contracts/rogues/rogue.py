"""A rogue: a dispatcher that is broken on purpose, and the law that must convict it."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from eventpact.domain.dispatcher import EventDispatcher, FailureSink, Guarantees, Handlers
from eventpact_contracts.checking.outcomes import Outcome

__all__ = ["Rogue", "registered", "rogue"]

C = TypeVar("C", bound=type[Any])


@dataclass(frozen=True)
class Rogue:
    """A dispatcher that is known to be bad, and the law that must say so.

    It has the hooks of a contract class, and can be called as a factory, so that
    ``eventpact verify eventpact_contracts.rogues:forgetful`` shows a verdict on it.

    Attributes:
        name: its name.
        factory: builds it.
        guarantees: its declaration.
        convicted_by: the law that must convict it.
        message: a part of that law's message, as a regular expression.
        also: the laws that may convict it too, each with the reason: in their words, they say the same.
        defect: the defect of well-known event buses that it reproduces, if it does one.
        expected: the outcome of its law. A dispatcher that promises less than it keeps violates nothing; the law still
            has to notice.
        needs_loop: whether it runs on an event loop.
        settle_timeout: how many seconds the laws wait for accepted events: few, since many never arrive.
        target: where a fresh process finds it, for the laws that kill processes.
    """

    name: str
    factory: Callable[[Handlers, FailureSink], EventDispatcher]
    guarantees: Guarantees
    convicted_by: str
    message: str
    also: Mapping[str, str] = field(default_factory=dict)
    defect: str = ""
    expected: Outcome = Outcome.VIOLATED
    needs_loop: bool = False
    settle_timeout: float = 1.0
    target: str | None = None

    def __call__(self, handlers: Handlers, on_failure: FailureSink) -> EventDispatcher:
        return self.factory(handlers, on_failure)

    @contextmanager
    def subject(self, handlers: Handlers, on_failure: FailureSink) -> Generator[EventDispatcher]:
        yield self.factory(handlers, on_failure)

    def __str__(self) -> str:
        return self.name


_REGISTERED: Final[list[Rogue]] = []


def rogue(convicted_by: str, message: str, *, name: str = "", **given: Any) -> Callable[[C], C]:
    """Register the decorated dispatcher as a rogue; see :class:`Rogue`. Its docstring names the defect."""

    def register(factory: C) -> C:
        known = name or re.sub(r"(?<!^)(?=[A-Z])", "_", factory.__name__).lower()
        needs_loop = bool(getattr(factory, "needs_loop", False))
        _REGISTERED.append(
            Rogue(known, factory, factory.guarantees, convicted_by, message, needs_loop=needs_loop, **given)
        )
        return factory

    return register


def registered() -> tuple[Rogue, ...]:
    """The rogues whose chapters have been imported."""
    return tuple(_REGISTERED)
