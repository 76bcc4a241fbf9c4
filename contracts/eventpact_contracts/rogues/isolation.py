"""Rogues in which one failure becomes everybody's, or nobody's."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any
from uuid import UUID

from eventpact.domain.dispatcher import FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact_contracts.rogues.pass_through import Disguise, Mask
from eventpact_contracts.rogues.rogue import Rogue

__all__ = ["ISOLATION"]


class Leaky(Disguise):
    """Everything is delivered and reported, and then the first failure is raised in the caller."""

    def __init__(self, *given: Any) -> None:
        self.failures: dict[UUID, Exception] = {}
        super().__init__(*given)

    def dispatch(self, event: DomainEvent) -> None:
        super().dispatch(event)
        if event.event_id in self.failures:
            raise self.failures.pop(event.event_id)

    def report(self, failed: FailedDelivery) -> None:
        super().report(failed)
        if isinstance(failed.exception, Exception):
            self.failures.setdefault(failed.event.event_id, failed.exception)


class LeakyWhenPlain(Leaky):
    """An ``async def`` handler is isolated, a plain one is not."""

    def report(self, failed: FailedDelivery) -> None:
        assert isinstance(failed.handler, Mask)
        if failed.handler.subscription.is_async:
            Disguise.report(self, failed)
        else:
            super().report(failed)


class Contagious(Disguise):
    """One try around the loop over the handlers, instead of one in it."""

    def __init__(self, *given: Any) -> None:
        self.failing: set[UUID] = set()
        super().__init__(*given)

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        if event.event_id in self.failing:
            return None
        try:
            return super().deliver(subscription, event)
        except Exception:
            self.failing.add(event.event_id)
            raise

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        if event.event_id in self.failing:
            return
        try:
            await super().deliver_async(subscription, event)
        except Exception:
            self.failing.add(event.event_id)
            raise


class BreakingOff(Disguise):
    """Whoever interrupts one handler has interrupted the loop over all of them."""

    def __init__(self, *given: Any) -> None:
        self.broken_off: set[UUID] = set()
        super().__init__(*given)

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        if event.event_id in self.broken_off:
            return None
        try:
            return super().deliver(subscription, event)
        except (KeyboardInterrupt, SystemExit):
            self.broken_off.add(event.event_id)
            raise

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        if event.event_id in self.broken_off:
            return
        try:
            await super().deliver_async(subscription, event)
        except (KeyboardInterrupt, SystemExit):
            self.broken_off.add(event.event_id)
            raise


class Secretive(Disguise):
    """A failure is nobody's business."""

    def report(self, failed: FailedDelivery) -> None:
        """Tell nobody."""


class Stoppable(Disguise):
    """Handlers are steps of a generator, to which StopIteration is an end like any other."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        with suppress(StopIteration):
            return super().deliver(subscription, event)
        return None


class Repeating(Disguise):
    """A failure is reported where it happened, and again where it was noticed."""

    def report(self, failed: FailedDelivery) -> None:
        super().report(failed)
        super().report(failed)


class Insistent(Disguise):
    """What ends with an interruption is reported by the clean-up, and again by whoever sees the interruption."""

    def report(self, failed: FailedDelivery) -> None:
        super().report(failed)
        if not isinstance(failed.exception, Exception):
            super().report(failed)


class Miscounting(Disguise):
    """It counts attempts from zero."""

    def report(self, failed: FailedDelivery) -> None:
        super().report(dataclasses.replace(failed, attempts=failed.attempts - 1))


class Rewording(Disguise):
    """It reports the engine's exception instead of the handler's."""

    def report(self, failed: FailedDelivery) -> None:
        super().report(dataclasses.replace(failed, exception=RuntimeError("a handler failed")))


class Trusting(Disguise):
    """What the failure sink raises reaches the caller."""

    def __init__(self, *given: Any) -> None:
        self.raised: dict[UUID, Exception] = {}
        super().__init__(*given)

    def dispatch(self, event: DomainEvent) -> None:
        super().dispatch(event)
        if event.event_id in self.raised:
            raise self.raised.pop(event.event_id)

    def report(self, failed: FailedDelivery) -> None:
        try:
            super().report(failed)
        except Exception as exception:
            self.raised[failed.event.event_id] = exception
            raise


class Hushing(Disguise):
    """What the failure sink raises is suppressed, and nobody ever knows."""

    def report(self, failed: FailedDelivery) -> None:
        with suppress(Exception):
            super().report(failed)


class Oblivious(Disguise):
    """A handler that was cancelled has ended, and that is good enough."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        with suppress(asyncio.CancelledError):
            return super().deliver(subscription, event)
        return None

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        with suppress(asyncio.CancelledError):
            await super().deliver_async(subscription, event)


class Unstoppable(Disguise):
    """A bare except, and nobody can interrupt the program any more."""

    def dispatch(self, event: DomainEvent) -> None:
        with suppress(KeyboardInterrupt, SystemExit):
            super().dispatch(event)


_C3 = {"C3": "it says I1 to I3 of every schedule"}
_RAISED = {
    "I4": "whose handler's failure reaches the caller, its sink's does too",
    "L1": "what dispatch raises for was not accepted, and yet closing may return it",
    **_C3,
}

ISOLATION = (
    Rogue(
        "leaky",
        Leaky,
        Leaky.guarantees,
        "I1",
        "the caller of dispatch got",
        "a handler's exception is raised by dispatch",
        _RAISED,
    ),
    Rogue(
        "leaky_when_plain",
        LeakyWhenPlain,
        LeakyWhenPlain.guarantees,
        "I1",
        "the caller of dispatch got",
        "only async def handlers are isolated",
        _RAISED,
        "a sync handler's error reaches the caller, an async one's does not",
    ),
    Rogue(
        "contagious",
        Contagious,
        Contagious.guarantees,
        "I2",
        "never received",
        "a handler that fails keeps the next from running",
        {
            "I4": "it looks at neighbours where handlers fail, too",
            "L1": "what a neighbour's failure keeps from delivery is not conserved",
            **_C3,
        },
        "the first failing handler keeps the next from running",
        settle_timeout=0.2,
    ),
    Rogue(
        "breaking_off",
        BreakingOff,
        BreakingOff.guarantees,
        "I5",
        "never received",
        "a handler that is interrupted keeps the next from running",
    ),
    Rogue(
        "secretive",
        Secretive,
        Secretive.guarantees,
        "I3",
        "was never reported",
        "a failure is swallowed",
        {"I5": "an interruption is no success, and nobody is told", **_C3},
        settle_timeout=0.1,
    ),
    Rogue(
        "stoppable",
        Stoppable,
        Stoppable.guarantees,
        "I3",
        "was never reported",
        "a handler that raises StopIteration counts as done",
        {"I4": "it looks at reports where handlers fail, too"},
        settle_timeout=0.1,
    ),
    Rogue(
        "repeating",
        Repeating,
        Repeating.guarantees,
        "I3",
        "was reported 2 times",
        "a failure is reported twice",
        _C3,
    ),
    Rogue(
        "insistent",
        Insistent,
        Insistent.guarantees,
        "I3",
        "was reported 2 times",
        "an interruption is reported twice",
    ),
    Rogue(
        "miscounting",
        Miscounting,
        Miscounting.guarantees,
        "I3",
        "attempt(s) instead of",
        "attempts are counted from zero",
        _C3,
    ),
    Rogue(
        "rewording",
        Rewording,
        Rewording.guarantees,
        "I3",
        "with RuntimeError",
        "the engine's exception is reported instead of the handler's",
        _C3,
    ),
    Rogue(
        "trusting",
        Trusting,
        Trusting.guarantees,
        "I4",
        "the failure sink raised, and dispatching",
        "what the failure sink raises reaches the caller",
    ),
    Rogue(
        "hushing",
        Hushing,
        Hushing.guarantees,
        "I4",
        "nothing was logged",
        "what the failure sink raises is suppressed without a word",
    ),
    Rogue(
        "oblivious",
        Oblivious,
        Oblivious.guarantees,
        "I5",
        "neither reported, nor tried again, nor returned",
        "a handler that was cancelled counts as done",
        {"L1": "a handler that closing cancelled counts as done, too", "C3": "it says L1 of every schedule"},
    ),
    Rogue(
        "unstoppable",
        Unstoppable,
        Unstoppable.guarantees,
        "I5",
        "who waits, never saw it",
        "KeyboardInterrupt and SystemExit are swallowed",
    ),
)
