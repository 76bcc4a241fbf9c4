"""What every dispatcher shares: the subscription table, checked once when it is built, and the failure sink.

Public for authors of a dispatcher of their own::

    table = SubscriptionTable(handlers)                # raises RegistrationError (law A4)
    for subscription in table.route(event):            # raises TypeError for what is no event (law A1)
        try:
            subscription.handle(event)
        except Exception as exception:
            report(on_failure, FailedDelivery(event, subscription.handler, exception, attempts=1))
"""

from __future__ import annotations

import inspect
import logging
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eventpact.domain.dispatcher import FailedDelivery, FailureSink, Handler, Handlers, RegistrationError
from eventpact.domain.events import DomainEvent
from eventpact.domain.wire import WireError, fields_of
from eventpact.infrastructure.monitoring.logs import about

__all__ = ["Subscription", "SubscriptionTable", "check_event", "log_failure", "report", "undelivered"]

_log = logging.getLogger("eventpact")


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """One (event type, handler) pair.

    Attributes:
        event_type: the exact type of the events that the handler receives.
        handler: the handler as it was given.
        handle: its bound ``handle``.
        is_async: whether ``handle`` is an ``async def``. A plain ``handle`` may still return an awaitable.
        key: names the handler among those of its event type, alike in every process that builds the same table.
    """

    event_type: type[DomainEvent]
    handler: Handler[Any]
    handle: Callable[[DomainEvent], Awaitable[None] | None]
    is_async: bool
    key: str


class SubscriptionTable(Mapping[type[DomainEvent], tuple[Subscription, ...]]):
    """The handlers of each event type: a mapping from exact types to subscriptions, which never changes.

    Raises:
        RegistrationError: an impossible registration; the message names what is wrong and what to do (law A4).
    """

    def __init__(self, handlers: Handlers) -> None:
        if not isinstance(handlers, Mapping):
            raise RegistrationError(
                f"handlers must map event types to handlers, got {type(handlers).__name__}; write {{MyEvent: handler}}"
            )
        self._routes: dict[type[DomainEvent], tuple[Subscription, ...]] = {}
        self._by_name: dict[str, type[DomainEvent]] = {}
        for event_type, given in handlers.items():
            _check_event_type(event_type)
            name = event_type.__name__
            if name in self._by_name:
                raise RegistrationError(
                    f"{_path(event_type)} and {_path(self._by_name[name])} have one wire name, {name}; rename one"
                )
            self._by_name[name] = event_type
            several = given if isinstance(given, Sequence) else (given,)
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
        """The event type that crosses a queue under this name.

        Raises:
            KeyError: no type of that name has a handler here.
        """
        return self._by_name[wire_name]


def check_event(event: object) -> None:
    """Raise ``TypeError`` unless ``event`` is a :class:`DomainEvent` (law A1)."""
    if not isinstance(event, DomainEvent):
        hint = "; dispatch an instance, not the class" if isinstance(event, type) else ""
        raise TypeError(f"only a DomainEvent can be dispatched, got {_path(type(event))}{hint}")


def _subscriptions(event_type: type[DomainEvent], handlers: Sequence[Any]) -> Iterator[Subscription]:
    seen: Counter[str] = Counter()
    for position, handler in enumerate(handlers):
        _check_handler(event_type, handler)
        if any(handler is earlier for earlier in handlers[:position]):
            raise RegistrationError(f"{handler!r} is given twice for {event_type.__name__}; give it once")
        name = handler_name(handler)
        seen[name] += 1
        yield Subscription(
            event_type=event_type,
            handler=handler,
            handle=handler.handle,
            is_async=inspect.iscoroutinefunction(handler.handle),
            key=name if seen[name] == 1 else f"{name}#{seen[name]}",
        )


def _check_event_type(event_type: object) -> None:
    if not isinstance(event_type, type) or not issubclass(event_type, DomainEvent):
        raise RegistrationError(f"{event_type!r} is no event type; a key must be a subclass of DomainEvent")
    try:
        fields_of(event_type)
    except WireError as error:
        raise RegistrationError(str(error)) from error


def _check_handler(event_type: type[DomainEvent], handler: object) -> None:
    wanted = f"the handler of {event_type.__name__}"
    if isinstance(handler, type):
        raise RegistrationError(f"{wanted} is the class {_path(handler)}; give an instance of it")
    handle = getattr(handler, "handle", None)
    if not callable(handle):
        raise RegistrationError(f"{wanted}, {handler!r}, has no handle method; give it handle(event)")
    try:
        signature = inspect.signature(handle)
    except ValueError:  # some built-in callables do not tell
        return
    try:
        signature.bind(object())
    except TypeError as error:
        raise RegistrationError(
            f"{wanted}, {_path(type(handler))}, has handle{signature}, which does not take one event ({error})"
        ) from error


def handler_name(handler: Handler[Any]) -> str:
    """The module and class of a handler; those of the innermost where it is decorated (``__wrapped__``)."""
    return _path(type(inspect.unwrap(handler)))  # type: ignore[arg-type]  # what it unwraps need not be a function


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def log_failure(failed: FailedDelivery) -> None:
    """The failure sink of those who give none: one ERROR record, with where it was raised.

    The exception's own text is left out, because it may quote an address or a code.
    """
    name, event_id, handler = type(failed.event).__name__, failed.event.event_id, handler_name(failed.handler)
    _log.error(
        "delivery of %s %s to %s failed after %d attempt(s): %s\n%s",
        name,
        event_id,
        handler,
        failed.attempts,
        type(failed.exception).__name__,
        "".join(traceback.format_tb(failed.exception.__traceback__)),
        extra=about(name, event_id, handler, failed.attempts),
    )


def report(on_failure: FailureSink | None, failed: FailedDelivery) -> bool:
    """Hand ``failed`` to the failure sink, or to the log where there is none. A sink that raises is logged (law I4).

    Returns:
        Whether the sink took it.
    """
    try:
        (log_failure if on_failure is None else on_failure)(failed)
    except Exception as exception:  # noqa: BLE001 - the sink is not trusted (law I4)
        _log.error(
            "the failure sink raised %s for %s %s\n%s",
            type(exception).__name__,
            type(failed.event).__name__,
            failed.event.event_id,
            "".join(traceback.format_tb(exception.__traceback__)),
            extra=about(type(failed.event).__name__, failed.event.event_id, handler_name(failed.handler)),
        )
        log_failure(failed)
        return False
    return True


def undelivered(events: Iterable[DomainEvent]) -> tuple[DomainEvent, ...]:
    """What a closing dispatcher returns: each event once, by identity, and logged in case the caller drops them."""
    once = tuple({id(event): event for event in events}.values())
    for event in once:
        _log.error(
            "%s %s is undelivered: the dispatcher closed before it was settled",
            type(event).__name__,
            event.event_id,
            extra=about(type(event).__name__, event.event_id),
        )
    return once
