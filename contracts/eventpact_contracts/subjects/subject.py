"""A dispatcher under the contract: its hooks, and one that is kept open where opening takes long."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from eventpact.domain.dispatcher import EventDispatcher, FailureSink, Guarantees, Handlers
from eventpact_contracts.driver.probes import STAGE
from eventpact_contracts.scenarios.scenario import Setting

__all__ = ["CouldNotRunError", "Hooks", "Subject", "called", "hooks_of", "is_opened", "opened"]

_QUICK: Final = 0.003
"""A dispatcher that settles an event in less seconds is one in this process."""

_DEEPEST: Final = 2_000
_SECONDS_OF_CASCADE: Final = 1.0
"""A cascade is as deep as it can be in about this time."""


class Subject(Protocol):
    """The hooks of a contract class, or of anything that has the same."""

    @property
    def guarantees(self) -> Guarantees: ...

    def subject(self, handlers: Handlers, on_failure: FailureSink) -> AbstractContextManager[EventDispatcher]: ...


class CouldNotRunError(Exception):
    """A prerequisite is missing; the text says which."""


@dataclass
class Hooks:
    """What the suite knows about a subject."""

    subject: Any
    guarantees: Guarantees
    needs_loop: bool
    settle_timeout: float
    slow: bool = False
    pace: float = 0.0
    kept: tuple[EventDispatcher, ExitStack] | None = None
    keeper: ExitStack | None = None
    longest: float = 0.0

    @property
    def setting(self) -> Setting:
        quick = self.needs_loop or self.pace < _QUICK
        # Where the caller waits, events take as long as calls do; and on his stack they may be.
        deep = self.needs_loop or self.guarantees.blocks_caller or not self.pace
        depth = _DEEPEST if deep else min(_DEEPEST, max(10, int(_SECONDS_OF_CASCADE / self.pace)))
        return Setting(self.guarantees, self.needs_loop, depth, quick)

    def open(self) -> AbstractContextManager[EventDispatcher]:
        made = self.subject.subject(STAGE.handlers, STAGE.on_failure)
        if not isinstance(made, AbstractContextManager):
            raise CouldNotRunError(
                f"subject() returned a {type(made).__name__}, no context manager; decorate it with"
                " @contextlib.contextmanager and yield the dispatcher"
            )
        return made


_OPENED: Final[dict[object, Hooks]] = {}


def _key(subject: Any) -> object:
    """A contract class has an instance for each test, and they share what is open."""
    return getattr(subject, "contract_class", id(subject))


@contextmanager
def opened(subject: Any) -> Generator[None]:
    """Within it, a subject that is slow to open is opened once for all laws that are checked."""
    with ExitStack() as keeper:
        hooks = hooks_of(subject)
        hooks.keeper = keeper
        _OPENED[_key(subject)] = hooks
        try:
            yield
        finally:
            del _OPENED[_key(subject)]


def is_opened(subject: Any) -> bool:
    """Whether it is within :func:`opened`."""
    return _key(subject) in _OPENED


def hooks_of(subject: Any) -> Hooks:
    if (hooks := _OPENED.get(_key(subject))) is not None:
        hooks.subject = subject
        return hooks
    guarantees = getattr(subject, "guarantees", None)
    if not isinstance(guarantees, Guarantees):
        raise CouldNotRunError(
            f"{called(subject)} declares no guarantees; add guarantees = Guarantees(blocks_caller=..., retries=...,"
            " delivery=..., ordering=...)"
        )
    if not callable(getattr(subject, "subject", None)):
        raise CouldNotRunError(f"{called(subject)} has no subject(handlers, on_failure), which opens a dispatcher")
    return Hooks(
        subject,
        guarantees,
        bool(getattr(subject, "needs_loop", False)),
        float(getattr(subject, "settle_timeout", 5.0)),
    )


def called(subject: Any) -> str:
    return str(getattr(subject, "name", type(subject).__qualname__))
