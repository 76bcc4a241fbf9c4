"""A subject: a dispatcher under the contract, with its hooks and the facts that the suite has learned about it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from eventpact.domain.dispatcher import Delivery, EventDispatcher, FailureSink, Guarantees
from eventpact_contracts.scenarios.scenario import Traits

__all__ = [
    "SETTLE_SECONDS",
    "CouldNotRunError",
    "Subject",
    "check_dispatcher",
    "check_method",
    "flag_of",
    "name_of",
    "seconds_of",
]

_QUICK_SECONDS: Final = 0.003
"""A dispatcher that settles an event in less time is one in this process."""

_MAX_OPENING_SECONDS: Final = 0.25
"""A dispatcher that takes longer to open and close has no time for scenarios that want many of its kind."""

_MAX_DEPTH: Final = 1_200
_CASCADE_SECONDS: Final = 1.0
"""A cascade is as deep as it can be in about this time."""

SETTLE_SECONDS: Final = 5.0
"""The usual wait for accepted events, or for calls of a handler."""

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
        empty_lists: whether it takes an event type with an empty list of handlers, which it may refuse.
        usual_handlers: whether it cannot be built with unusual handlers, so that it is judged with the others.
        schedulable: whether it runs on an event loop whose schedule can be chosen.
        has_schedulable_tasks: whether it does so at least with handlers that are coroutines.
        only_from_loop: whether it takes events on its event loop alone, and none of another thread.
        slow: whether it is slow to open, so that those for scenarios which do not close are kept open.
        hangs: whether closing it has been waited for in vain.
        opening: how many seconds it takes to open and close one, where that is not for the loop to do.
        pace: how many seconds it takes to settle an event.
        kept: those that are kept open, and have nothing to do.
        keeper: closes them.
    """

    hooks: Any
    guarantees: Guarantees
    needs_loop: bool = False
    settle_timeout: float = SETTLE_SECONDS
    dispatch_bound: float = _BOUND_SECONDS
    async_handlers: bool = True
    outlives: bool = False
    max_open: int = 1
    target: str | None = None
    empty_lists: bool = True
    usual_handlers: bool = False
    schedulable: bool = False
    has_schedulable_tasks: bool = False
    only_from_loop: bool = False
    slow: bool = False
    hangs: bool = False
    opening: float = 0.0
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
        check_method(hooks, "subject", "handlers", "on_failure")
        if hasattr(hooks, "unavailable"):
            check_method(hooks, "unavailable")
        target = getattr(hooks, "target", None)
        if target is not None and not (isinstance(target, str) and all(target.partition(":"))):
            raise CouldNotRunError(
                f'target is {target!r}; write target = "module:factory", importable in a fresh process'
            )
        return cls(
            hooks,
            guarantees,
            flag_of(hooks, "needs_loop"),
            seconds_of(hooks, "settle_timeout", SETTLE_SECONDS),
            seconds_of(hooks, "dispatch_bound", _BOUND_SECONDS),
            flag_of(hooks, "async_handlers", usual=True),
            flag_of(hooks, "engine_outlives_dispatcher"),
            _count(hooks, "max_open"),
            target,
        )

    @property
    def traits(self) -> Traits:
        """Return the facts that the strategies need."""
        opens_quickly = self.max_open == 1 and self.opening < _MAX_OPENING_SECONDS
        quick = self.needs_loop or (opens_quickly and not self.seems_slow(self.pace))
        # Where the caller waits, events take as long as calls do; and on his stack they may be.
        deep = self.needs_loop or self.guarantees.blocks_caller or not self.pace
        depth = _MAX_DEPTH if deep else min(_MAX_DEPTH, max(10, int(_CASCADE_SECONDS / self.pace)))
        return Traits(
            self.guarantees,
            needs_loop=self.needs_loop,
            depth=depth,
            quick=quick,
            async_handlers=self.async_handlers,
            schedulable=self.schedulable,
            has_schedulable_tasks=self.has_schedulable_tasks,
            empty_lists=self.empty_lists,
            in_memory=opens_quickly and not self.outlives and self.guarantees.delivery is Delivery.AT_MOST_ONCE,
        )

    @staticmethod
    def seems_slow(pace: float) -> bool:
        """Return whether a dispatcher that settles an event in so many seconds seems to be one of other processes."""
        return pace >= _QUICK_SECONDS

    @property
    def can_be_unavailable(self) -> bool:
        return hasattr(self.hooks, "unavailable")

    def open(self, handlers: Mapping[Any, Any], on_failure: FailureSink) -> AbstractContextManager[EventDispatcher]:
        """A context manager that yields a fresh dispatcher."""
        made = self.hooks.subject(handlers, on_failure)
        if not isinstance(made, AbstractContextManager):
            usual = "decorate it with @contextlib.contextmanager and yield the dispatcher"
            raise CouldNotRunError(
                f"subject() returned a {type(made).__name__}, no context manager; {_instead(made) or usual}"
            )
        return _Opening(made)


class _Opening(AbstractContextManager[EventDispatcher]):
    """An opening that yields a dispatcher and nothing else. It does not hold it, for law L4 looks for whoever does."""

    def __init__(self, made: AbstractContextManager[EventDispatcher]) -> None:
        self._made = made

    def __enter__(self) -> EventDispatcher:
        with ExitStack() as stack:
            dispatcher = stack.enter_context(self._made)
            check_dispatcher(dispatcher)
            stack.pop_all()
            return dispatcher

    def __exit__(self, *raised: Any) -> bool | None:
        return self._made.__exit__(*raised)


def check_dispatcher(made: object) -> None:
    """Check that this is a dispatcher, at a glance.

    Raises:
        TypeError: says what it lacks, and what to write.
    """
    if isinstance(made, type):
        raise TypeError(f"it makes no dispatcher: {made!r} is a class; call it")
    for name in ("dispatch", "aclose"):
        if not callable(getattr(made, name, None)):
            advice = _instead(made)
            raise TypeError(f"it makes no dispatcher: {made!r} has no {name}" + (advice and f"; {advice}"))
    for name, signature in (("dispatch", "dispatch(self, event)"), ("aclose", "aclose(self, timeout=10.0)")):
        if not _takes_one(getattr(made, name)):
            raise TypeError(f"{name} of {type(made).__name__} cannot be called as it is; write {signature}")


def _takes_one(method: object) -> bool:
    try:
        inspect.signature(method).bind(None)  # type: ignore[arg-type]  # it is callable
    except TypeError:
        return False
    except ValueError:
        pass  # nobody knows the arguments of some builtins
    return True


def _instead(made: object) -> str:
    """Advice on the factory that made this object, or nothing."""
    if inspect.isgenerator(made):
        return "decorate it with @contextlib.contextmanager"
    if inspect.iscoroutine(made):
        made.close()  # lest Python warn that nobody awaited it
    is_async = inspect.isawaitable(made) or inspect.isasyncgen(made) or isinstance(made, AbstractAsyncContextManager)
    if is_async and not hasattr(made, "dispatch"):
        return "make it a plain def; with needs_loop = True it is called inside a running event loop"
    return ""


def check_method(hooks: Any, name: str, *parameters: str) -> None:
    """Check that a hook can be called with so many arguments.

    Raises:
        CouldNotRunError: names the hook, its value and what to write.
    """
    method, how = getattr(hooks, name), f"write def {name}({', '.join(('self', *parameters))})"
    if not callable(method):
        raise CouldNotRunError(f"{name} is {method!r}; {how}")
    with suppress(ValueError):  # of some that are written in C nobody knows the parameters
        signature = inspect.signature(method)
        try:
            signature.bind(*parameters)
        except TypeError:
            taken = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
            raise CouldNotRunError(f"{name} takes {inspect.Signature(taken)}; {how}") from None


def flag_of(hooks: Any, name: str, *, usual: bool = False) -> bool:
    """A hook that is True or False.

    Raises:
        CouldNotRunError: it is something else.
    """
    given = getattr(hooks, name, usual)
    if not isinstance(given, bool):
        raise CouldNotRunError(f"{name} is {given!r}; give it True or False")
    return given


def seconds_of(hooks: Any, name: str, usual: float) -> float:
    """A hook that is a number of seconds.

    Raises:
        CouldNotRunError: it is something else.
    """
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
