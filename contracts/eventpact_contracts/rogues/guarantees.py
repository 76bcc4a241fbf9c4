"""Rogues that promise more than they keep, and some that keep more than they promise."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, ClassVar, Final
from uuid import UUID

from eventpact.domain.dispatcher import FailedDelivery, Ordering, PermanentFailureError
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact_contracts.checking.outcomes import Outcome
from eventpact_contracts.rogues.pass_through import Disguise, LoopDisguise, Mask
from eventpact_contracts.rogues.rogue import Rogue

__all__ = ["GUARANTEES", "Retrying"]

_WAITS: Final = (0.001, 0.004)


class Retrying(Disguise):
    """A good one that tries twice again, in the process."""

    guarantees = dataclasses.replace(Disguise.guarantees, retries=len(_WAITS))
    waits: ClassVar[tuple[float, ...]] = _WAITS
    deadline = float("inf")
    """Past it, a plain handler, which nobody can cancel, is not tried again."""

    def __init__(self, *given: Any) -> None:
        self.attempts: dict[tuple[UUID, Subscription], int] = {}
        super().__init__(*given)

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        waits = self.waits_of(subscription)
        for number, wait in enumerate(waits):
            try:
                result = self.attempt(subscription, event)
            except PermanentFailureError:
                raise
            except Exception:  # noqa: BLE001 - tried again
                time.sleep(wait)  # the back-off, in the caller's time
            else:
                return self._finish(subscription, event, result, waits[number:]) if isawaitable(result) else None
            if time.monotonic() > self.deadline:
                raise asyncio.CancelledError("closing gives it up")
        return self.attempt(subscription, event)

    async def _finish(
        self, subscription: Subscription, event: DomainEvent, result: Awaitable[None] | None, waits: tuple[float, ...]
    ) -> None:
        """Await what a plain handler returned, and call the handler again where that fails."""
        for wait in waits:
            try:
                await _done(result)
            except PermanentFailureError:
                raise
            except Exception:  # noqa: BLE001 - tried again
                await asyncio.sleep(wait)
            else:
                return
            result = self.attempt(subscription, event)
        await _done(result)

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        for wait in self.waits_of(subscription):
            try:
                await self.attempt_async(subscription, event)
            except PermanentFailureError:
                raise
            except Exception:  # noqa: BLE001 - tried again
                await asyncio.sleep(wait)
            else:
                return
        await self.attempt_async(subscription, event)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        self.deadline = min(self.deadline, time.monotonic() + timeout)
        return await super().aclose(timeout)

    def waits_of(self, subscription: Subscription) -> tuple[float, ...]:  # noqa: ARG002 - for those who differ
        """How long to wait before each time that it tries again."""
        return self.waits

    def attempt(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        self._count(subscription, event)
        return super().deliver(subscription, event)

    async def attempt_async(self, subscription: Subscription, event: DomainEvent) -> None:
        self._count(subscription, event)
        await super().deliver_async(subscription, event)

    def _count(self, subscription: Subscription, event: DomainEvent) -> None:
        delivery = event.event_id, subscription
        self.attempts[delivery] = self.attempts.get(delivery, 0) + 1

    def report(self, failed: FailedDelivery) -> None:
        assert isinstance(failed.handler, Mask)
        attempts = self.attempts.get((failed.event.event_id, failed.handler.subscription), failed.attempts)
        super().report(dataclasses.replace(failed, attempts=attempts))


async def _done(result: Awaitable[None] | None) -> None:
    if isawaitable(result):
        await result


class Hasty(LoopDisguise):
    """It declares that callers wait, and they do not."""

    guarantees = dataclasses.replace(LoopDisguise.guarantees, blocks_caller=True)


class Unhurried(Disguise):
    """It declares that callers do not wait, and they do."""

    guarantees = dataclasses.replace(Disguise.guarantees, blocks_caller=False)


class Impatient(Retrying):
    """It tries again, and at once, each time."""

    waits: ClassVar[tuple[float, ...]] = (0.004, 0.001)


class Thorough(Retrying):
    """It tries the whole event again, with the handlers that had succeeded."""

    def __init__(self, *given: Any) -> None:
        self.succeeded: dict[UUID, list[Callable[[], object]]] = {}
        super().__init__(*given)

    def attempt(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        again = self._again(subscription, event)
        result = super().attempt(subscription, event)
        again.append(lambda: super(Thorough, self).attempt(subscription, event))
        return result

    async def attempt_async(self, subscription: Subscription, event: DomainEvent) -> None:
        self._again(subscription, event)
        await super().attempt_async(subscription, event)

    def _again(self, subscription: Subscription, event: DomainEvent) -> list[Callable[[], object]]:
        had = self.succeeded.setdefault(event.event_id, [])
        if self.attempts.get((event.event_id, subscription)):
            for handle in had:
                handle()
        return had


class AcknowledgesAnyway(Retrying):
    """It acknowledges in a finally, so what failed is not tried again."""

    waits: ClassVar[tuple[float, ...]] = ()


class Uneven(Retrying):
    """It tries ``async def`` handlers again, and plain ones not, which no caller can know."""

    def waits_of(self, subscription: Subscription) -> tuple[float, ...]:
        return self.waits if subscription.is_async else ()


class Secondguessing(Retrying):
    """It tries again, and does not say so."""

    guarantees = Disguise.guarantees


class Shuffling(LoopDisguise):
    """It declares an order, and has threads and tasks that know none."""

    guarantees = dataclasses.replace(LoopDisguise.guarantees, ordering=Ordering.FIFO)


class Orderly(Disguise):
    """It declares no order, and keeps it."""

    guarantees = dataclasses.replace(Disguise.guarantees, ordering=Ordering.NONE)


GUARANTEES = (
    Rogue(
        "hasty",
        Hasty,
        Hasty.guarantees,
        "G1",
        "returned while",
        "it declares that callers wait, and they do not",
        {"I5": "whoever says that the caller waits owes it the interruption"},
        needs_loop=True,
    ),
    Rogue(
        "unhurried",
        Unhurried,
        Unhurried.guarantees,
        "G1",
        "never seen to fail",
        "it declares that callers do not wait, and they do",
        expected=Outcome.UNCLAIMED,
        settle_timeout=0.5,
    ),
    Rogue(
        "impatient",
        Impatient,
        Impatient.guarantees,
        "G2",
        "do not grow",
        "the waits between attempts shrink",
    ),
    Rogue(
        "thorough",
        Thorough,
        Thorough.guarantees,
        "G2",
        "had succeeded",
        "a retry repeats the handlers that had succeeded",
        {"I3": "attempts that were none of the delivery's own are counted"},
    ),
    Rogue(
        "acknowledges_anyway",
        AcknowledgesAnyway,
        AcknowledgesAnyway.guarantees,
        "G2",
        "attempt(s) that failed",
        "an event is acknowledged in a finally, so that what failed is never tried again",
        {
            "I2": "what failed once, and was not tried again, is missing",
            "L1": "what failed before its last attempt has not settled",
        },
        "a failed event is acknowledged in a `finally`",
    ),
    Rogue(
        "uneven",
        Uneven,
        Uneven.guarantees,
        "G2",
        "attempt(s) that failed",
        "only async def handlers are tried again",
        defect="retry behaves differently in the in-process engine",
    ),
    Rogue(
        "secondguessing",
        Secondguessing,
        Secondguessing.guarantees,
        "G2",
        "and 1 are allowed",
        "it declares no retries, and tries again",
    ),
    Rogue(
        "shuffling",
        Shuffling,
        Shuffling.guarantees,
        "G4",
        "dispatched first",
        "it declares an order, and keeps none",
        needs_loop=True,
    ),
    Rogue(
        "orderly",
        Orderly,
        Orderly.guarantees,
        "G4",
        "never seen to fail",
        "it declares no order, and keeps it",
        expected=Outcome.UNCLAIMED,
    ),
)
