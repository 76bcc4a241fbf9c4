"""Rogues that deliver to the wrong handlers, too often, not at all, or something else."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable
from typing import Any

from eventpact.domain.dispatcher import DispatchError
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact_contracts.rogues.pass_through import PassThrough
from eventpact_contracts.rogues.rogue import rogue

__all__: list[str] = []


@rogue("R1", "never received it", also={"I2": "a lost event may have a neighbour that failed"}, settle_timeout=0.2)
class Forgetful(PassThrough):
    """It looks along the bases first, and whom it finds there stands for the subclass."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        return None if self._shadowed(event) else super().deliver(subscription, event)

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        if not self._shadowed(event):
            await super().deliver_async(subscription, event)

    def _shadowed(self, event: DomainEvent) -> bool:
        return any(base in self.table for base in type(event).__mro__[1:])


@rogue("R2", "which is not subscribed to it")
class Inheriting(PassThrough):
    """A subscription to a base class is taken to mean its subclasses too."""

    def route_of(self, event_type: type[DomainEvent]) -> tuple[Subscription, ...]:
        return tuple(each for base in event_type.__mro__ if base in self.table for each in self.table[base])


@rogue(
    "R3",
    "times, though nothing failed",
    also={
        "C1": "it says of many threads what R3 says of one caller",
        "C3": "it says R3 of every schedule",
        "G2": "trying again what succeeded is no retry",
    },
)
class Stuttering(PassThrough):
    """If a type has several handlers, each but the first is a message of its own, of which there are two."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        if subscription is not self.table.route(event)[0]:
            super().deliver(subscription, event)
        return super().deliver(subscription, event)

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        if subscription is not self.table.route(event)[0]:
            await super().deliver_async(subscription, event)
        await super().deliver_async(subscription, event)


@rogue("R4", "was not accepted")
class Demanding(PassThrough):
    """Dispatching an event without a handler is taken for a mistake."""

    def dispatch(self, event: DomainEvent) -> None:
        if not self.table.route(event):
            raise DispatchError(f"nobody handles {type(event).__name__}")
        super().dispatch(event)


@rogue(
    "R5",
    "an async def handle",
    also={
        "L1": "a handler that was broken off has not settled",
        "L3": "a handler that was broken off has not settled",
        "C3": "a handler that was broken off, and not reported",
    },
    settle_timeout=0.1,
)
class Unawaiting(PassThrough):
    """It drives a coroutine to its first await, and takes that for its end."""

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        coroutine: Any = subscription.handle(event)
        try:
            coroutine.send(None)
        except StopIteration:
            return
        coroutine.close()


@rogue("R6", "received another")
class Restamping(PassThrough):
    """It makes the event anew from its payload, and that has no microseconds."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        return super().deliver(subscription, _restamped(event))

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        await super().deliver_async(subscription, _restamped(event))


def _restamped(event: DomainEvent) -> DomainEvent:
    return dataclasses.replace(event, occurred_at=event.occurred_at.replace(microsecond=0))


@rogue(
    "R6",
    "received another",
    also={
        "I3": "the failure is reported with the event as it was changed",
        "C3": "it says I3 of every schedule",
    },
    defect="a mutated event is seen mutated by later handlers",
)
class Mutating(PassThrough):
    """It marks the event itself when a handler has had it."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        result = super().deliver(subscription, event)
        object.__setattr__(event, "occurred_at", event.occurred_at.replace(year=2000, day=1))
        return result


@rogue("R7", "instead of None")
class Chatty(PassThrough):
    """It returns something, and callers come to rely on it."""

    def dispatch(self, event: DomainEvent) -> None:
        super().dispatch(event)
        return event  # type: ignore[return-value]  # that is what is wrong with it


@rogue("R4", "aclose returned it as undelivered", also={"L1": "what is returned must have been pending"})
class KeepingTheLonely(PassThrough):
    """An event that has no handler waits for one."""

    def __init__(self, *given: Any) -> None:
        self.lonely: list[DomainEvent] = []
        super().__init__(*given)

    def dispatch(self, event: DomainEvent) -> None:
        super().dispatch(event)
        if not self.table.route(event):
            self.lonely.append(event)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        lonely, self.lonely = self.lonely, []
        return (*await super().aclose(timeout), *lonely)
