"""Rogues in which one failure becomes everybody's, or nobody's."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any
from uuid import UUID

from eventpact.domain.dispatcher import DispatchError, FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact_contracts.rogues.pass_through import PassedHandler, PassThrough
from eventpact_contracts.rogues.rogue import rogue

__all__: list[str] = []


_C3 = {"C3": "it says I1 to I3 of every schedule"}
_RAISED = {
    "I4": "whose handler's failure reaches the caller, its sink's does too",
    "L1": "what dispatch raises for was not accepted, and yet closing may return it",
    **_C3,
}


@rogue("I1", "the caller of dispatch got", also=_RAISED)
class Leaky(PassThrough):
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


@rogue(
    "I1",
    "the caller of dispatch got",
    also=_RAISED,
    defect="a sync handler's error reaches the caller, an async one's does not",
)
class LeakyWhenPlain(Leaky):
    """An ``async def`` handler is isolated, a plain one is not."""

    def report(self, failed: FailedDelivery) -> None:
        assert isinstance(failed.handler, PassedHandler)
        if failed.handler.subscription.is_async:
            PassThrough.report(self, failed)
        else:
            super().report(failed)


@rogue(
    "I2",
    "never received",
    also={
        "I4": "it looks at neighbours where handlers fail, too",
        "L1": "what a neighbour's failure keeps from delivery is not conserved",
        **_C3,
    },
    defect="the first failing handler keeps the next from running",
    settle_timeout=0.2,
)
class Contagious(PassThrough):
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


@rogue("I5", "never received")
class BreakingOff(PassThrough):
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


@rogue(
    "I3",
    "was never reported",
    also={"I5": "an interruption is no success, and nobody is told", **_C3},
    settle_timeout=0.1,
)
class Secretive(PassThrough):
    """A failure is nobody's business."""

    def report(self, failed: FailedDelivery) -> None:
        """Tell nobody."""


@rogue("I3", "was never reported", also={"I4": "it looks at reports where handlers fail, too"}, settle_timeout=0.1)
class Stoppable(PassThrough):
    """Handlers are steps of a generator, to which StopIteration is an end like any other."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        with suppress(StopIteration):
            return super().deliver(subscription, event)
        return None


@rogue("I3", "was reported 2 times", also=_C3)
class Repeating(PassThrough):
    """A failure is reported where it happened, and again where it was noticed."""

    def report(self, failed: FailedDelivery) -> None:
        super().report(failed)
        super().report(failed)


@rogue("I3", "was reported 2 times")
class Insistent(PassThrough):
    """An interrupted delivery is reported by the clean-up, and again by whoever sees the interruption."""

    def report(self, failed: FailedDelivery) -> None:
        super().report(failed)
        if not isinstance(failed.exception, Exception):
            super().report(failed)


@rogue("I3", "attempt(s) instead of", also=_C3)
class Miscounting(PassThrough):
    """It counts attempts from zero."""

    def report(self, failed: FailedDelivery) -> None:
        super().report(dataclasses.replace(failed, attempts=failed.attempts - 1))


@rogue("I3", "with RuntimeError", also=_C3)
class Rewording(PassThrough):
    """It reports the engine's exception instead of the handler's."""

    def report(self, failed: FailedDelivery) -> None:
        super().report(dataclasses.replace(failed, exception=RuntimeError("a handler failed")))


@rogue("I4", "the failure sink raised, and dispatching")
class Trusting(PassThrough):
    """An exception of the failure sink reaches the caller."""

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


@rogue("I4", "nothing was logged")
class Hushing(PassThrough):
    """An exception of the failure sink is suppressed, and nobody ever knows."""

    def report(self, failed: FailedDelivery) -> None:
        with suppress(Exception):
            super().report(failed)


@rogue(
    "I5",
    "neither reported, nor tried again, nor returned",
    also={"L1": "a handler that closing cancelled counts as done, too", "C3": "it says L1 of every schedule"},
)
class Oblivious(PassThrough):
    """A handler that was cancelled has ended, and that is good enough."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        with suppress(asyncio.CancelledError):
            return super().deliver(subscription, event)
        return None

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        with suppress(asyncio.CancelledError):
            await super().deliver_async(subscription, event)


@rogue("I5", "who waits, never saw it")
class Unstoppable(PassThrough):
    """A bare except, and nobody can interrupt the program any more."""

    def dispatch(self, event: DomainEvent) -> None:
        with suppress(KeyboardInterrupt, SystemExit):
            super().dispatch(event)


@rogue("I1", "the caller of dispatch got", also={**_RAISED, **_C3, "A3": "closed, it may raise another's error"})
class LettingThrough(Leaky):
    """An error that looks like its own is its own, it thinks."""

    def report(self, failed: FailedDelivery) -> None:
        if isinstance(failed.exception, DispatchError):
            super().report(failed)
        else:
            PassThrough.report(self, failed)


@rogue(
    "I2",
    "though nothing was pending",
    also={"I4": "its sink is told of failures, too", "C1": "where many dispatch, too"},
)
class CircuitBreaking(PassThrough):
    """After some failures in a row, it takes no more events."""

    in_a_row = 0

    def dispatch(self, event: DomainEvent) -> None:
        if self.table.route(event) and self.in_a_row >= 5:
            raise DispatchError("too many failures; try again later")
        super().dispatch(event)

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        result = super().deliver(subscription, event)
        self.in_a_row = 0
        return result

    def report(self, failed: FailedDelivery) -> None:
        self.in_a_row += 1
        super().report(failed)


@rogue("I3", "was never reported", also={**_C3, "I4": "its sink is told of fewer failures", "I5": "of an event"})
class OncePerEvent(PassThrough):
    """An event has failed, or it has not: whose handlers, it reports once."""

    def __init__(self, *given: Any) -> None:
        self.reported: set[UUID] = set()
        super().__init__(*given)

    def report(self, failed: FailedDelivery) -> None:
        if failed.event.event_id not in self.reported:
            self.reported.add(failed.event.event_id)
            super().report(failed)


@rogue("I3", "was never reported", also={**_C3, "I4": "its sink is told of fewer failures", "I5": "of a text"})
class OncePerText(PassThrough):
    """A report that equals an earlier one is left out."""

    def __init__(self, *given: Any) -> None:
        self.said: set[str] = set()
        super().__init__(*given)

    def report(self, failed: FailedDelivery) -> None:
        text = repr(failed.exception.args)
        if text not in self.said:
            self.said.add(text)
            super().report(failed)


@rogue("I3", "was never reported", also={**_C3, "I4": "its sink is not told, either", "I5": "of some exceptions"})
class Quoting(PassThrough):
    """A report begins with the text of the exception, which not every one has."""

    def report(self, failed: FailedDelivery) -> None:
        with suppress(Exception):
            f"{failed.exception}".encode()
            super().report(failed)


@rogue(
    "I5",
    "neither reported, nor tried again, nor returned",
    also={"L1": "an attempt that closing broke off counts as done, too", **_C3},
)
class KnowingOnlyPythons(PassThrough):
    """It knows the interruptions of Python; what else is no Exception passes for an end."""

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        try:
            return super().deliver(subscription, event)
        except (Exception, KeyboardInterrupt, SystemExit, asyncio.CancelledError):
            raise
        except BaseException:  # noqa: BLE001 - that is the mistake
            return None
