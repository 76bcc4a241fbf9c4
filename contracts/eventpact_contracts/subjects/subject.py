"""A subject: a dispatcher under the contract, with its hooks and the facts that the suite has learned about it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from eventpact.domain.dispatcher import EventDispatcher, FailureSink, Guarantees
from eventpact_contracts.scenarios.scenario import Traits

__all__ = ["CouldNotRunError", "Subject", "name_of"]

_QUICK_SECONDS: Final = 0.003
"""A dispatcher that settles an event in less time is one in this process."""

_MAX_DEPTH: Final = 1_200
_CASCADE_SECONDS: Final = 1.0
"""A cascade is as deep as it can be in about this time."""

_SETTLE_SECONDS: Final = 5.0
_BOUND_SECONDS: Final = 2.0
_MAX_SECONDS: Final = 3600.0


class CouldNotRunError(Exception):
    """A prerequisite is missing; the text says which."""


@dataclass
class Subject:
    """A dispatcher under the contract.

    Attributes:
        hooks: opens it.
        guarantees: its declaration.
        needs_loop: whether it is opened and driven inside a running event loop.
        settle_timeout: how many seconds to wait for accepted events.
        dispatch_bound: within how many seconds ``dispatch`` must refuse.
        async_handlers: whether it has a notion of async handlers.
        outlives: whether its engine outlives the dispatcher.
        max_open: how many may be open at the same time in one process, where opening one is slow.
        target: where a fresh process finds it, for the law that kills processes.
        usual_handlers: whether it cannot be built with unusual handlers, so that it is judged with the others.
        schedulable: whether it runs on an event loop whose schedule can be chosen.
        slow: whether it is slow to open, so that those for scenarios which do not close are kept open.
        hangs: whether closing it has been waited for in vain.
        pace: how many seconds it takes to settle an event.
        kept: those that are kept open, and have nothing to do.
        keeper: closes them.
    """

    hooks: Any
    guarantees: Guarantees
    needs_loop: bool = False
    settle_timeout: float = _SETTLE_SECONDS
    dispatch_bound: float = _BOUND_SECONDS
    async_handlers: bool = True
    outlives: bool = False
    max_open: int = 1
    target: str | None = None
    usual_handlers: bool = False
    schedulable: bool = False
    slow: bool = False
    hangs: bool = False
    pace: float = 0.0
    longest: float = 0.0
    kept: list[tuple[EventDispatcher, ExitStack]] = field(default_factory=list)
    keeper: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def of(cls, hooks: Any) -> Subject:
        """Read the hooks.

        Raises:
            CouldNotRunError: one that is needed is missing.
        """
        guarantees = getattr(hooks, "guarantees", None)
        if not isinstance(guarantees, Guarantees):
            raise CouldNotRunError(
                f"{name_of(hooks)} declares no guarantees; add guarantees = Guarantees(blocks_caller=..., retries=...,"
                " delivery=..., ordering=...)"
            )
        if not callable(getattr(hooks, "subject", None)):
            raise CouldNotRunError(f"{name_of(hooks)} has no subject(handlers, on_failure), which opens a dispatcher")
        target = getattr(hooks, "target", None)
        if target is not None and not (isinstance(target, str) and all(target.partition(":"))):
            raise CouldNotRunError(
                f'target is {target!r}; write target = "module:factory", importable in a fresh process'
            )
        return cls(
            hooks,
            guarantees,
            bool(getattr(hooks, "needs_loop", False)),
            _seconds(hooks, "settle_timeout", _SETTLE_SECONDS),
            _seconds(hooks, "dispatch_bound", _BOUND_SECONDS),
            bool(getattr(hooks, "async_handlers", True)),
            bool(getattr(hooks, "engine_outlives_dispatcher", False)),
            _count(hooks, "max_open"),
            target,
        )

    @property
    def traits(self) -> Traits:
        """Return the facts that the strategies need."""
        quick = self.needs_loop or (self.pace < _QUICK_SECONDS and not self.slow)
        # Where the caller waits, events take as long as calls do; and on his stack they may be.
        deep = self.needs_loop or self.guarantees.blocks_caller or not self.pace
        depth = _MAX_DEPTH if deep else min(_MAX_DEPTH, max(10, int(_CASCADE_SECONDS / self.pace)))
        return Traits(self.guarantees, self.needs_loop, depth, quick, self.async_handlers, self.schedulable)

    @property
    def can_be_unavailable(self) -> bool:
        return hasattr(self.hooks, "unavailable")

    def open(self, handlers: Mapping[Any, Any], on_failure: FailureSink) -> AbstractContextManager[EventDispatcher]:
        """A context manager that yields a fresh dispatcher."""
        made = self.hooks.subject(handlers, on_failure)
        if not isinstance(made, AbstractContextManager):
            raise CouldNotRunError(
                f"subject() returned a {type(made).__name__}, no context manager; decorate it with"
                " @contextlib.contextmanager and yield the dispatcher"
            )
        return made


def _seconds(hooks: Any, name: str, usual: float) -> float:
    given = getattr(hooks, name, usual)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < _MAX_SECONDS:
        raise CouldNotRunError(f"{name} is {given!r}; give it seconds, more than 0 and fewer than {_MAX_SECONDS:,.0f}")
    return float(given)


def _count(hooks: Any, name: str) -> int:
    given = getattr(hooks, name, 1)
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise CouldNotRunError(f"{name} is {given!r}; give it a number, from 1")
    return given


def name_of(hooks: Any) -> str:
    """The name of a subject in reports."""
    return str(getattr(hooks, "name", type(hooks).__qualname__))
