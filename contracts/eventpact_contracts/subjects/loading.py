"""Targets of ``eventpact verify``: find them, build their dispatchers and close them."""

from __future__ import annotations

import asyncio
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from eventpact.domain.dispatcher import Delivery, EventDispatcher, FailureSink, Guarantees, Handlers, Ordering
from eventpact_contracts.driver.threads import in_thread
from eventpact_contracts.subjects.subject import (
    SETTLE_SECONDS,
    CouldNotRunError,
    check_dispatcher,
    flag_of,
    seconds_of,
)

__all__ = [
    "OURS",
    "Candidate",
    "CandidateError",
    "NoSuchTargetError",
    "find",
    "made",
    "parse_guarantees",
    "written",
]

OURS = {
    "sync": "eventpact.infrastructure.sync_dispatcher:SyncEventDispatcher",
    "asyncio": "eventpact.infrastructure.asyncio_dispatcher:AsyncioEventDispatcher",
    "celery": "eventpact_contracts.subjects.celery:celery",
    "outbox": "eventpact_contracts.subjects.outbox:outbox",
}
"""The dispatchers that come with eventpact, by short name; ``outbox`` is that over asyncio."""

_MORE_HOOKS = (
    "unavailable",
    "dispatch_bound",
    "async_handlers",
    "engine_outlives_dispatcher",
    "max_open",
    "known_violations",
)
"""Hooks of an :class:`EventDispatcherContract` that a factory may have, too."""

_CLOSE_SECONDS: Final = 1.5
_LOOK_SECONDS: Final = 20.0
"""Seconds in which a dispatcher has to be made, and closed again."""

_SHAPE = "module:factory, e.g. shop.events:ShopDispatcher"


class NoSuchTargetError(ValueError):
    """The command line names nothing that could be checked; one line says why."""


class CandidateError(CouldNotRunError):
    """The target was found, and no dispatcher can be had from it; one line says why.

    Attributes:
        contract_of: whose laws could not be checked: those of a "dispatcher" or of a "handler".
    """

    def __init__(self, reason: str, contract_of: str = "dispatcher") -> None:
        super().__init__(reason)
        self.contract_of = contract_of


@dataclass
class Candidate:
    """A dispatcher under the contract: the hooks that the laws are run through.

    Attributes:
        name: its name in reports.
        factory: a class or a callable that takes ``handlers`` and ``on_failure``, and returns a dispatcher or a
            context manager that yields one.
        guarantees: its declaration.
        needs_loop: whether it is to be built and driven inside a running event loop.
        settle_timeout: how many seconds to wait for accepted events.
        target: where a fresh process finds it, for the laws that kill processes.

    A factory may have further hooks of an :class:`EventDispatcherContract`, which are taken over: see
    :data:`_MORE_HOOKS`.
    """

    name: str
    factory: Callable[..., Any]
    guarantees: Guarantees
    needs_loop: bool = False
    settle_timeout: float = SETTLE_SECONDS
    target: str | None = None

    def __post_init__(self) -> None:
        for hook in _MORE_HOOKS:
            if hasattr(self.factory, hook):
                setattr(self, hook, getattr(self.factory, hook))

    def subject(self, handlers: Handlers, on_failure: FailureSink) -> AbstractContextManager[EventDispatcher]:
        return made(self.factory, handlers, on_failure)


@contextmanager
def made(factory: Callable[..., Any], handlers: Handlers, on_failure: FailureSink) -> Generator[EventDispatcher]:
    """A dispatcher that a factory makes, closed at the end unless a context manager made it."""
    found = factory(handlers, on_failure=on_failure)
    if isinstance(found, AbstractContextManager) and not hasattr(found, "dispatch"):
        with found as dispatcher:
            yield cast(EventDispatcher, dispatcher)
        return
    try:
        yield found
    finally:
        if hasattr(found, "aclose"):
            _close(found)


def _close(dispatcher: Any) -> None:
    """Close it again, which does nothing more (law L2), lest a law that stopped half-way leaves it open."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with suppress(Exception):  # how it closes is for scenarios to see
            asyncio.run(asyncio.wait_for(dispatcher.aclose(1.0), _CLOSE_SECONDS))


def find(
    target: str,
    *,
    guarantees: Guarantees | None = None,
    needs_loop: bool | None = None,
    settle_timeout: float | None = None,
) -> Any:
    """Find the target of a command line, ready to be checked.

    Raises:
        NoSuchTargetError: there is no such module or attribute, or nothing of the sort that can be checked.
        CandidateError: importing it or building a dispatcher from it raised, or it declares no guarantees.
        CouldNotRunError: a hook of it makes no sense.
    """
    path = OURS.get(target, target)
    found = _import(path, shown=target)
    factory = found if callable(found) else getattr(found, "factory", None)  # as a rogue of the gallery has
    if not callable(factory):
        raise NoSuchTargetError(f"{target} is {_a(found)}; give a class or a callable that makes a dispatcher")
    if isinstance(found, type) and hasattr(found, "contract_of"):
        return _instance(found, target, guarantees=guarantees, needs_loop=needs_loop, settle_timeout=settle_timeout)
    may_need_loop = needs_loop is None and not hasattr(found, "needs_loop")
    needs_loop = flag_of(found, "needs_loop") if needs_loop is None else needs_loop
    settle_timeout = settle_timeout or seconds_of(found, "settle_timeout", SETTLE_SECONDS)
    try:
        declared = _declared(factory, target, guarantees, needs_loop=needs_loop)
    except CandidateError as error:
        if not (may_need_loop and isinstance(error.__cause__, RuntimeError)):  # as no running event loop is
            raise
        try:
            declared = _declared(factory, target, guarantees, needs_loop=True)
        except CandidateError:
            raise error from error.__cause__
    return Candidate(
        name=_name(found, target),
        factory=factory,
        guarantees=declared,
        needs_loop=needs_loop,
        settle_timeout=settle_timeout,
        target=getattr(found, "target", None) or path,
    )


def _import(path: str, *, shown: str) -> Any:
    module_name, colon, attribute = path.partition(":")
    if not colon or not module_name or not attribute:
        close = difflib.get_close_matches(path, OURS, 1)
        hint = f"did you mean {close[0]}?" if close else f"or give one of ours: {', '.join(OURS)}"
        raise NoSuchTargetError(f"{shown!r} is no target; write {_SHAPE}; {hint}")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    _check_found(module_name, shown)
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise CandidateError(f"importing {module_name} raised {type(error).__name__}: {error}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            close = difflib.get_close_matches(name, dir(found), 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise NoSuchTargetError(f"{shown}: {module_name} has no {attribute}{hint}")
        found = getattr(found, name)
    return found


def _check_found(module_name: str, shown: str) -> None:
    parts = module_name.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        try:
            spec = importlib.util.find_spec(name)
        except Exception as error:
            # find_spec imports the parents: their errors are their own affair, not a wrong name.
            if not (isinstance(error, ModuleNotFoundError) and error.name == name):  # its parent is no package
                raise CandidateError(f"importing {module_name} raised {type(error).__name__}: {error}") from error
            spec = None
        if spec is None:
            raise NoSuchTargetError(f"{shown}: there is no module {name}; {_instead(module_name, shown)}")


def _instead(module_name: str, shown: str) -> str:
    """The module that was meant where a file is named; else where modules are looked for."""
    file = Path(module_name)
    if file.suffix == ".py":
        return f"did you mean {'.'.join(file.with_suffix('').parts)}:{shown.partition(':')[2]}?"
    return f"it is looked for in {Path.cwd()} and sys.path"


def _instance(contract: type[Any], target: str, **given: Any) -> Any:
    """An instance of a contract class, with the hooks that the command line gives."""
    if missing := sorted(getattr(contract, "__abstractmethods__", ())):
        raise CandidateError(
            f"{target} does not say {' and '.join(missing)}; every hook is needed", contract.contract_of
        )
    try:
        instance = contract()
    except Exception as error:
        raise CandidateError(f"{target} raised {type(error).__name__}: {error}", contract.contract_of) from error
    for hook, value in given.items():
        if value is not None:
            setattr(instance, hook, value)
    if contract.contract_of == "dispatcher" and not isinstance(getattr(instance, "guarantees", None), Guarantees):
        raise CandidateError(f"{target} declares no guarantees; give it guarantees = Guarantees(...)")
    return instance


def _declared(found: Any, target: str, given: Guarantees | None, *, needs_loop: bool) -> Guarantees:
    """The declaration of a dispatcher that it makes; one is made in any case, to see that it can be."""
    asked: Future[object] = Future()
    looking = in_thread(lambda: asyncio.run(_ask_inside(found, asked)) if needs_loop else _ask(found, asked))
    either: list[Future[Any]] = [looking, asked]
    wait(either, _LOOK_SECONDS, FIRST_COMPLETED)
    wait([looking], _CLOSE_SECONDS)
    if not looking.done() and not asked.done():
        raise CandidateError(f"{target} did not return a dispatcher in {_LOOK_SECONDS:g} s")
    error = looking.exception() if looking.done() else None  # if it never closes, that is for scenarios to see
    if error is not None:
        raise CandidateError(f"{target} raised {type(error).__name__}: {error}") from error
    for declared in (given, asked.result(0), getattr(found, "guarantees", None)):
        if isinstance(declared, Guarantees):
            return declared
    raise CandidateError(
        f"{target} makes a dispatcher that declares no guarantees; give it a guarantees attribute, or pass"
        " --guarantees blocks_caller=yes,retries=0,delivery=at_most_once,ordering=fifo"
    )


def _ask(factory: Callable[..., Any], answer: Future[object]) -> None:
    with made(factory, {}, _ignore) as dispatcher:
        check_dispatcher(dispatcher)
        answer.set_result(getattr(dispatcher, "guarantees", None))


async def _ask_inside(factory: Callable[..., Any], answer: Future[object]) -> None:
    with made(factory, {}, _ignore) as dispatcher:
        check_dispatcher(dispatcher)
        answer.set_result(getattr(dispatcher, "guarantees", None))
        await dispatcher.aclose(1.0)


def _ignore(failed: object) -> None:
    """A failure sink for a dispatcher that is given no handlers."""


def _name(found: Any, target: str) -> str:
    if target in OURS:
        return target
    return f"{found.__module__}.{found.__qualname__}" if inspect.isclass(found) else target


def _a(found: object) -> str:
    return f"the {type(found).__name__} {found!r}"


def parse_guarantees(text: str) -> Guarantees:
    """Guarantees as they are written on a command line.

    Raises:
        ValueError: a part is missing, unknown or has no such value; the message says which.
    """
    given = dict(part.partition("=")[::2] for part in text.replace(" ", "").split(",") if part)
    readers: dict[str, tuple[Callable[[str], Any], str]] = {
        "blocks_caller": (_yes_or_no, "yes or no"),
        "retries": (_count, "a number from 0"),
        "delivery": (lambda value: Delivery[value.upper()], "at_most_once or at_least_once"),
        "ordering": (lambda value: Ordering[value.upper()], "none or fifo"),
    }
    if unknown := given.keys() - readers.keys():
        raise ValueError(f"there is no guarantee {', '.join(sorted(unknown))}; there are {', '.join(readers)}")
    values = {}
    for name, (read, allowed) in readers.items():
        if name not in given:
            raise ValueError(f"{name} is missing: {name}= {allowed}")
        try:
            values[name] = read(given[name])
        except (KeyError, ValueError):
            raise ValueError(f"{name}={given[name]} is not {allowed}") from None
    return Guarantees(**values)


def written(guarantees: Guarantees) -> str:
    """Guarantees as :func:`parse_guarantees` reads them."""
    return (
        f"blocks_caller={'yes' if guarantees.blocks_caller else 'no'},retries={guarantees.retries},"
        f"delivery={guarantees.delivery.name.lower()},ordering={guarantees.ordering.name.lower()}"
    )


def _yes_or_no(value: str) -> bool:
    return {"yes": True, "true": True, "no": False, "false": False}[value.lower()]


def _count(value: str) -> int:
    if (number := int(value)) < 0:
        raise ValueError(value)
    return number
