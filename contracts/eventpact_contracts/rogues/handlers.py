"""Rogues that serve the handlers that their authors thought of: distinct, true, uncallable, quick and well known.

Some accept a registration that is impossible, or refuse it badly.
"""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Awaitable
from typing import Any, ClassVar

from eventpact.domain.dispatcher import FailureSink, Handlers, RegistrationError
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact_contracts.rogues.rogue import rogue
from eventpact_contracts.rogues.sound.pass_through import PassedHandler, PassThrough, Route

__all__ = ["NEVER_HANDLED"]

NEVER_HANDLED = {
    "I2": "a lost delivery may have a neighbour that failed",
    "I4": "a lost delivery may have a neighbour whose report failed",
    "I5": "a lost delivery may have a neighbour that was interrupted",
    "C1": "it is lost as well where many dispatch",
    "C2": "it is lost as well deep in a cascade",
    "C3": "it says R1 of every schedule",
    "L1": "a delivery that was never made is not conserved",
    "L3": "a delivery that was never made is not conserved",
    "G1": "a delivery that was never made is not settled",
}


@rogue(
    "R1",
    "never received it",
    also={**NEVER_HANDLED, "R5": "a lost delivery may be the only one of its kind"},
    settle_timeout=0.2,
)
class Deduplicating(PassThrough):
    """Handlers that are equal are the same, it thinks."""

    def route_of(self, event_type: type[DomainEvent]) -> Route:
        kept: list[Subscription] = []
        for each in super().route_of(event_type):
            if not any(each.handler == other.handler for other in kept):
                kept.append(each)
        return tuple(kept)


@rogue("R1", "never received it", also=NEVER_HANDLED, settle_timeout=0.2)
class TruthTesting(PassThrough):
    """A handler that is false is none."""

    def route_of(self, event_type: type[DomainEvent]) -> Route:
        return tuple(each for each in super().route_of(event_type) if each.handler)


@rogue("R1", "it cannot be built with handlers that are", settle_timeout=0.2)
class Hashing(PassThrough):
    """Handlers are keys of a dict."""

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        super().__init__(handlers, on_failure)
        self.attempts = {each.handler: 0 for route in self.table.values() for each in route}


@rogue("R1", "never received it", also=NEVER_HANDLED, settle_timeout=0.2)
class Calling(PassThrough):
    """A handler that can be called is called, whatever its ``handle`` does."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        handler: Any = subscription.handler
        if callable(handler):
            handler(event)
            return None
        return super().deliver(subscription, event)


@rogue("R1", "never received it", also=NEVER_HANDLED, settle_timeout=0.2)
class OneTypeAHandler(PassThrough):
    """It remembers one event type for each handler: the last."""

    def route_of(self, event_type: type[DomainEvent]) -> Route:
        last = {id(each.handler): kind for kind, route in self.table.items() for each in route}
        return tuple(each for each in super().route_of(event_type) if last[id(each.handler)] is event_type)


class _Weak:
    """A subscription that does not keep its handler alive."""

    def __init__(self, subscription: Subscription) -> None:
        self._handler = weakref.ref(subscription.handler)

    @property
    def handler(self) -> Any:
        return self._handler()

    def handle(self, event: DomainEvent) -> Any:
        return None if self.handler is None else self.handler.handle(event)


@rogue("R1", "never received it", also=NEVER_HANDLED, settle_timeout=0.2)
class Forgetting(PassThrough):
    """It holds its handlers by weak references, and most programs hold them by no other."""

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        self.passed: list[PassedHandler] = []
        super().__init__(handlers, on_failure)
        for each in self.passed:
            each.subscription = _Weak(each.subscription)  # type: ignore[assignment]  # it has the same members
        del self.table

    def passed_handler(self, subscription: Subscription) -> PassedHandler:
        self.passed.append(super().passed_handler(subscription))
        return self.passed[-1]

    def dispatch(self, event: DomainEvent) -> None:
        self.inner.dispatch(event)


@rogue("R5", "a plain handle that returns an awaitable", also=NEVER_HANDLED, settle_timeout=0.2)
class OnlyCoroutineFunctions(PassThrough):
    """It awaits handlers that are coroutine functions; a decorated one is none."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        result: Any = super().deliver(subscription, event)
        if inspect.iscoroutine(result):
            result.close()
        return None


@rogue(
    "R5",
    "a plain handle that returns an awaitable",
    also={**NEVER_HANDLED, "L4": "an unawaited coroutine is left behind"},
    settle_timeout=0.2,
)
class TruthTestingResults(PassThrough):
    """It awaits a result that is true; an awaitable with a length of 0 is not."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        return super().deliver(subscription, event) or None


@rogue("R5", "was broken off after", also={"R3": "it says so of how long an attempt may take"})
class TimingOut(PassThrough):
    """Nobody takes longer than half a second, it thinks."""

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        await asyncio.wait_for(super().deliver_async(subscription, event), 0.5)


@rogue(
    "R3",
    "times, though nothing failed",
    also={"G2": "trying again what has not failed is no retry", "C1": "it is doubled as well where many dispatch"},
)
class Leasing(PassThrough):
    """A handler that is silent for a while is taken for dead."""

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        first = asyncio.ensure_future(super().deliver_async(subscription, event))
        await asyncio.wait({first}, timeout=0.5)
        if not first.done():
            await super().deliver_async(subscription, event)
        await first


@rogue("R2", "which is not subscribed to it", also={**NEVER_HANDLED, "R1": "those that are subscribed never have it"})
class RememberingForAll(PassThrough):
    """The handlers that an event type had once are remembered on the class, where every dispatcher looks."""

    remembered: ClassVar[dict[type[DomainEvent], Route]] = {}

    def route_of(self, event_type: type[DomainEvent]) -> Route:
        return self.remembered.setdefault(event_type, super().route_of(event_type))


@rogue("R2", "ShippedToNobody", also={"R4": "what has no handler is delivered", "L1": "a handler may fail with it"})
class FillingTheEmpty(PassThrough):
    """An event type that is registered without handlers has those of its nearest base that has some."""

    def route_of(self, event_type: type[DomainEvent]) -> Route:
        return next((self.table[base] for base in event_type.__mro__ if self.table.get(base)), ())


@rogue("A4", "a dispatcher was built with", defect="a misconfigured backend is replaced by a silent no-op")
class Careless(PassThrough):
    """A configuration that makes no sense is replaced by none."""

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        try:
            super().__init__(handlers, on_failure)
        except RegistrationError:
            super().__init__({}, on_failure)


@rogue("A4", "does not name what is wrong")
class Curt(PassThrough):
    """It refuses to be built, and does not say why."""

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        try:
            super().__init__(handlers, on_failure)
        except RegistrationError:
            raise RegistrationError("invalid configuration") from None


@rogue("A4", "a dispatcher was built with a handle that is a")
class Lenient(PassThrough):
    """A generator can be called, too."""

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        several = {key: given if isinstance(given, list | tuple) else [given] for key, given in handlers.items()}
        kept = {key: [each for each in given if not _is_generator(each)] for key, given in several.items()}
        super().__init__(kept, on_failure)


@rogue("A4", "a dispatcher was built with two types of one wire name, in different classes")
class ByQualifiedName(PassThrough):
    """It looks for types of one name among their qualified names, which no wire has."""

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        try:
            super().__init__(handlers, on_failure)
        except RegistrationError as error:
            if "one wire name" not in str(error) or len({key.__qualname__ for key in handlers}) < len(handlers):
                raise
            super().__init__(dict(list(handlers.items())[:-1]), on_failure)


@rogue("A4", "a dispatcher was built with a mutable event type that is called like another")
class RememberingNames(PassThrough):
    """An event type that was found to be fine is known by its name from then on, to every dispatcher."""

    fine: ClassVar[dict[str, type[DomainEvent]]] = {}

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        known = {self.fine.get(str(key), key): given for key, given in handlers.items()}
        super().__init__(known if len(known) == len(handlers) else handlers, on_failure)
        self.fine.update({**{str(key): key for key in handlers}, **self.fine})


@rogue("A4", "without handlers")
class LookingAtHandlers(PassThrough):
    """An event type is looked at when a handler of it is."""

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        taken = {key: given for key, given in handlers.items() if given or not isinstance(given, list)}
        super().__init__(taken, on_failure)


def _is_generator(handler: Any) -> bool:
    handle = getattr(handler, "handle", None)
    return inspect.isgeneratorfunction(handle) or inspect.isasyncgenfunction(handle)
