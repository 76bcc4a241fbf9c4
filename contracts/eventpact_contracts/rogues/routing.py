"""Rogues that deliver to the wrong handlers, too often, not at all, or something else."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable
from typing import Any

from eventpact.domain.dispatcher import DispatchError
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact_contracts.rogues.pass_through import Disguise
from eventpact_contracts.rogues.rogue import Rogue

__all__ = ["ROUTING"]


class Forgetful(Disguise):
    """It looks along the bases first, and whom it finds there stands for the subclass."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        return None if self._shadowed(event) else super().deliver(subscription, event)

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        if not self._shadowed(event):
            await super().deliver_async(subscription, event)

    def _shadowed(self, event: DomainEvent) -> bool:
        return any(base in self.table for base in type(event).__mro__[1:])


class Inheriting(Disguise):
    """A subscription to a base class is taken to mean its subclasses too."""

    def route_of(self, event_type: type[DomainEvent]) -> tuple[Subscription, ...]:
        return tuple(each for base in event_type.__mro__ if base in self.table for each in self.table[base])


class Stuttering(Disguise):
    """Where a type has several handlers, each but the first is a message of its own, of which there are two."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        if subscription is not self.table.route(event)[0]:
            super().deliver(subscription, event)
        return super().deliver(subscription, event)

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        if subscription is not self.table.route(event)[0]:
            await super().deliver_async(subscription, event)
        await super().deliver_async(subscription, event)


class Demanding(Disguise):
    """Who dispatches what nobody handles has made a mistake, it thinks."""

    def dispatch(self, event: DomainEvent) -> None:
        if not self.table.route(event):
            raise DispatchError(f"nobody handles {type(event).__name__}")
        super().dispatch(event)


class Unawaiting(Disguise):
    """It drives a coroutine to its first await, and takes that for its end."""

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        coroutine: Any = subscription.handle(event)
        try:
            coroutine.send(None)
        except StopIteration:
            return
        coroutine.close()


class Restamping(Disguise):
    """It makes the event anew from its payload, and that has no microseconds."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        return super().deliver(subscription, _restamped(event))

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        await super().deliver_async(subscription, _restamped(event))


def _restamped(event: DomainEvent) -> DomainEvent:
    return dataclasses.replace(event, occurred_at=event.occurred_at.replace(microsecond=0))


class Mutating(Disguise):
    """It marks the event itself when a handler has had it."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        result = super().deliver(subscription, event)
        object.__setattr__(event, "occurred_at", event.occurred_at.replace(year=2000, day=1))
        return result


class Chatty(Disguise):
    """It returns something, and callers come to rely on it."""

    def dispatch(self, event: DomainEvent) -> None:
        super().dispatch(event)
        return event  # type: ignore[return-value]  # that is what is wrong with it


ROUTING = (
    Rogue(
        "forgetful",
        Forgetful,
        Forgetful.guarantees,
        "R1",
        "never received it",
        "the handlers of an event type are forgotten as soon as a base class has some",
        {"I2": "a lost event may have a neighbour that failed"},
        settle_timeout=0.2,
    ),
    Rogue(
        "inheriting",
        Inheriting,
        Inheriting.guarantees,
        "R2",
        "which is not subscribed to it",
        "handlers of a base class receive the events of its subclasses too",
    ),
    Rogue(
        "stuttering",
        Stuttering,
        Stuttering.guarantees,
        "R3",
        "times, though nothing failed",
        "an event that has several handlers is delivered twice to all but the first",
        {
            "C1": "it says of many threads what R3 says of one caller",
            "C3": "it says R3 of every schedule",
            "G2": "trying again what succeeded is no retry",
        },
    ),
    Rogue(
        "demanding",
        Demanding,
        Demanding.guarantees,
        "R4",
        "was not accepted",
        "an event that nobody handles is taken for an error",
    ),
    Rogue(
        "unawaiting",
        Unawaiting,
        Unawaiting.guarantees,
        "R5",
        "an async def handle",
        "a coroutine is driven without an event loop, and ends at its first await",
        {
            "L1": "a handler that was broken off has not settled",
            "L3": "a handler that was broken off has not settled",
            "C3": "a handler that was broken off, and not reported",
        },
        settle_timeout=0.1,
    ),
    Rogue(
        "restamping",
        Restamping,
        Restamping.guarantees,
        "R6",
        "received another",
        "the microseconds of occurred_at get lost, as in a careless codec",
    ),
    Rogue(
        "mutating",
        Mutating,
        Mutating.guarantees,
        "R6",
        "received another",
        "the event is changed between two handlers",
        {
            "I3": "the failure is reported with the event as it was changed",
            "C3": "it says I3 of every schedule",
        },
        "a mutated event is seen mutated by later handlers",
    ),
    Rogue(
        "chatty",
        Chatty,
        Chatty.guarantees,
        "R7",
        "instead of None",
        "dispatch returns what was dispatched",
    ),
)
