"""The handlers of each event type, checked once when a dispatcher is built.

Public for authors of a dispatcher of their own::

    table = SubscriptionTable(handlers)                # raises RegistrationError (law A4)
    failures = FailureReporter(on_failure)
    for subscription in table.route(event):            # raises TypeError for anything else than an event (law A1)
        try:
            subscription.handle(event)
        except Exception as exception:
            failures.report(FailedDelivery(event, subscription.handler, exception, attempts=1))
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard, TypeVar

from eventpact.domain.dispatcher import Handler, Handlers, RegistrationError
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.registration import (
    attribute,
    check_event_type,
    former_names,
    handle_of,
    innermost,
    is_async,
    path,
)

__all__ = [
    "Handle",
    "Subscription",
    "SubscriptionTable",
    "check_event",
    "close_unawaited",
    "handler_name",
    "must_await",
]

T = TypeVar("T")

Handle = Callable[[DomainEvent], Awaitable[None] | None]
"""A handler's bound ``handle``, or a function around it."""


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """One (event type, handler) pair. It has ``handle``, so it is a handler, too.

    Attributes:
        event_type: the exact type of the events that the handler receives.
        handler: the handler as it was given.
        handle: its bound ``handle``, perhaps wrapped.
        key: names the handler among those of its event type, alike in every process that builds the same table.
        former_keys: its keys before its class was renamed, from ``former_names`` on the class.
    """

    event_type: type[DomainEvent]
    handler: Handler[Any]
    handle: Handle
    key: str
    former_keys: tuple[str, ...] = ()
    is_async: bool = field(init=False)
    """True if ``handle`` is an ``async def``. A plain ``handle`` may still return an awaitable."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_async", is_async(self.handle))


class SubscriptionTable(Mapping[type[DomainEvent], tuple[Subscription, ...]]):
    """A mapping from exact event types to their subscriptions, which never changes.

    Args:
        handlers: event types, each with a handler, or a list or tuple of handlers. Another table is taken as it is.

    Raises:
        RegistrationError: an impossible registration; the message names what is wrong and what to do (law A4).
    """

    def __init__(self, handlers: Handlers) -> None:
        self._routes: dict[type[DomainEvent], tuple[Subscription, ...]] = {}
        self._by_name: dict[str, type[DomainEvent]] = {}
        if isinstance(handlers, SubscriptionTable):
            self._routes, self._by_name = handlers._routes, handlers._by_name
            return
        if not isinstance(handlers, Mapping):
            raise RegistrationError(
                f"handlers must map event types to handlers, got {type(handlers).__name__}; write {{MyEvent: handler}}"
            )
        for event_type, given in handlers.items():
            check_event_type(event_type)
            for name in (event_type.__name__, *former_names(event_type)):
                if self._by_name.get(name) is event_type:
                    raise RegistrationError(
                        f"{path(event_type)}.former_names repeats {name}; let it name each earlier name once"
                    )
                if name in self._by_name:
                    raise RegistrationError(
                        f"{path(event_type)} and {path(self._by_name[name])} have one wire name, {name}; rename one"
                    )
                self._by_name[name] = event_type
            # A handler may be a sequence itself.
            several = given if isinstance(given, (list, tuple)) and attribute(given, "handle") is None else (given,)
            self._routes[event_type] = tuple(_subscriptions(event_type, several))

    def __getitem__(self, event_type: type[DomainEvent]) -> tuple[Subscription, ...]:
        return self._routes[event_type]

    def __iter__(self) -> Iterator[type[DomainEvent]]:
        return iter(self._routes)

    def __len__(self) -> int:
        return len(self._routes)

    def route(self, event: DomainEvent) -> tuple[Subscription, ...]:
        """The subscriptions of the event's exact type; none is no error (law R4).

        Raises:
            TypeError: it is not a :class:`DomainEvent` (law A1).
        """
        try:
            return self._routes[type(event)]
        except KeyError:
            check_event(event)
            return ()

    def named(self, wire_name: str) -> type[DomainEvent]:
        """The event type that crosses a queue under this name, or did before it was renamed.

        Raises:
            KeyError: no type of that name has a handler here.
        """
        return self._by_name[wire_name]

    @property
    def wire_names(self) -> Mapping[str, type[DomainEvent]]:
        """The event types by the names that cross a queue, those of before a renaming among them."""
        return self._by_name

    def keyed(self, event_type: type[DomainEvent], key: str) -> Subscription:
        """The subscription of the handler that has this key, or had it before it was renamed.

        Raises:
            KeyError: there is no such handler of that type here.
        """
        route = self._routes[event_type]
        for subscription in route:
            if key == subscription.key:
                return subscription
        for subscription in route:
            if key in subscription.former_keys:
                return subscription
        raise KeyError(key)

    def key_of(self, event: DomainEvent, handler: Handler[Any]) -> str | None:
        """The key of a handler of this event; None if it has no such handler."""
        return next((each.key for each in self.route(event) if each.handler is handler), None)

    def around(self, wrap: Callable[[Subscription], Handle]) -> SubscriptionTable:
        """The same table with each ``handle`` replaced by the result of ``wrap(subscription)``.

        Handlers, keys and names stay as they were given, so that failures are reported with the original handler. A
        dispatcher that is given the table instead of handlers calls the wrapped functions. Where ``is_async`` is set,
        ``wrap`` returns an ``async def``.
        """
        table = copy.copy(self)
        table._routes = {
            event_type: tuple(replace(subscription, handle=wrap(subscription)) for subscription in route)
            for event_type, route in self.items()
        }
        return table


def recorded(
    subscription: Subscription,
    *,
    succeeded: Callable[[DomainEvent], None],
    begin: Callable[[DomainEvent], bool] = lambda _: True,
    failed: Callable[[DomainEvent], None] = lambda _: None,
    blocks: bool = False,
) -> Handle:
    """Return a ``handle``, for :meth:`SubscriptionTable.around`, that calls these functions beside the subscription's.

    Args:
        succeeded: called when the handler has returned.
        begin: called first; where it returns False, the handler is not called.
        failed: called when the handler has raised.
        blocks: the functions ask the database, so an ``async def`` calls them in a thread.
    """

    def handle(event: DomainEvent) -> Awaitable[None] | None:
        if not begin(event):
            return None
        try:
            result = subscription.handle(event)
            if must_await(result):
                return _Finishing(finish(event, result), result)
        except BaseException:
            failed(event)
            raise
        succeeded(event)
        return None

    async def handle_async(event: DomainEvent) -> None:
        if await call(begin, event):
            await finish(event, subscription.handle(event))

    async def finish(event: DomainEvent, result: Any) -> None:
        try:
            await result
        except BaseException:
            failed(event)
            raise
        await call(succeeded, event)

    async def call(function: Callable[[DomainEvent], T], event: DomainEvent) -> T:
        return await asyncio.to_thread(function, event) if blocks else function(event)

    return handle_async if subscription.is_async else handle


class _Finishing(Awaitable[None]):
    """A coroutine around a result. A coroutine that never began would not close what it was to await."""

    def __init__(self, finish: Coroutine[Any, Any, None], result: object) -> None:
        self._finish, self._result = finish, result

    def __await__(self) -> Generator[Any, Any, None]:
        return self._finish.__await__()

    def close(self) -> None:
        self._finish.close()
        close_unawaited(self._result)


def check_event(event: object) -> None:
    """Raise ``TypeError`` unless ``event`` is a :class:`DomainEvent` (law A1)."""
    if not isinstance(event, DomainEvent):
        hint = "; dispatch an instance, not the class" if isinstance(event, type) else ""
        raise TypeError(f"only a DomainEvent can be dispatched, got {path(type(event))}{hint}")


def must_await(result: object) -> TypeGuard[Awaitable[None]]:
    """Return whether a handler's result is to be awaited; anything else that a handler returns means nothing.

    Raises:
        TypeError: it is a generator: the handler has not run.
    """
    if inspect.isawaitable(result):
        return True
    if isinstance(result, (Generator, AsyncGenerator)):
        raise TypeError("handle returned a generator, which nobody runs; take the yield out of it")
    return False


def close_unawaited(result: object) -> None:
    """Close a handler's result that nobody is left to await; one that has ended is not changed."""
    if inspect.isawaitable(result) and callable(close := getattr(result, "close", None)):
        close()


def _subscriptions(event_type: type[DomainEvent], handlers: Sequence[Any]) -> Iterator[Subscription]:
    names, names_before = Counter[str](), Counter[str]()

    def key(name: str, seen: Counter[str]) -> str:
        seen[name] += 1
        return name if seen[name] == 1 else f"{name}#{seen[name]}"

    for position, handler in enumerate(handlers):
        handle = handle_of(event_type, handler)
        if any(handler is earlier for earlier in handlers[:position]):
            raise RegistrationError(f"a {path(type(handler))} is given twice for {event_type.__name__}; give it once")
        kind = innermost(handler)
        yield Subscription(
            event_type=event_type,
            handler=handler,
            handle=handle,
            key=key(path(kind), names),
            former_keys=tuple(key(name, names_before) for name in former_names(kind)),
        )


def handler_name(handler: Handler[Any]) -> str:
    """The module and class of a handler, the innermost where it is decorated."""
    try:
        return path(innermost(handler))
    except RegistrationError:  # it was not so when the dispatcher was built, and failures are reported with this name
        return path(type(handler))
