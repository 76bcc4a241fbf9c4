"""Rogues that promise more than they keep, and some that keep more than they promise."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Awaitable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from uuid import UUID

from eventpact.domain.dispatcher import FailedDelivery, Ordering, PermanentFailureError
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.cascades import Cascade
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
from eventpact_contracts.checking.outcomes import Outcome
from eventpact_contracts.rogues.rogue import rogue
from eventpact_contracts.rogues.sound.pass_through import Journaling, LoopPassThrough, PassThrough, Retrying, Route

__all__: list[str] = []


@rogue("G1", "returned while", also={"I5": "whoever says that the caller waits owes it the interruption"})
class Hasty(LoopPassThrough):
    """It declares that callers wait, and they do not."""

    guarantees = dataclasses.replace(LoopPassThrough.guarantees, blocks_caller=True)


@rogue(
    "G1",
    "never seen to fail",
    also=dict.fromkeys(("A5", "L1", "L3"), "a caller who is kept waiting has no answer when others close"),
    expected=Outcome.UNCLAIMED,
    settle_timeout=0.5,
)
class Unhurried(PassThrough):
    """It declares that callers do not wait, and they do."""

    guarantees = dataclasses.replace(PassThrough.guarantees, blocks_caller=False)


@rogue("G2", "do not grow")
class Impatient(Retrying):
    """It tries again, and at once, each time."""

    waits: ClassVar[tuple[float, ...]] = (0.004, 0.001)


@rogue("G2", "do not grow")
class Punctual(Retrying):
    """The time that an attempt has taken is part of the wait for the next, so that a slow one leaves none."""

    took = 0.0

    def attempt(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        began = time.monotonic()
        try:
            return super().attempt(subscription, event)
        finally:
            self.took = time.monotonic() - began

    def rest(self, seconds: float) -> None:
        super().rest(max(0.0, seconds - self.took))


@rogue("G2", "and 1 are allowed", also={"I3": "attempts are counted that it does not own up to"})
class Reconnecting(PassThrough):
    """A connection that broke is nobody's failure, it thinks: the handler is called once more."""

    def attempt(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        try:
            return super().attempt(subscription, event)
        except ConnectionError:
            return super().attempt(subscription, event)


@rogue("G2", "are promised")
class LookingForTheCause(Retrying):
    """It looks for a permanent failure among the causes, too: one that a handler has dealt with ends the retries."""

    def is_final(self, error: Exception) -> bool:
        return super().is_final(error) or isinstance(error.__cause__, PermanentFailureError)


@rogue("G2", "had succeeded", also={"I3": "attempts that were none of the delivery's own are counted"})
class Thorough(Retrying):
    """It tries the whole event again, with the handlers that had succeeded."""

    def prepare(self) -> None:
        super().prepare()
        self.succeeded: dict[UUID, list[Subscription]] = {}

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        had = self.succeeded.setdefault(event.event_id, [])
        for each in had if self.attempts.get((event.event_id, subscription)) else ():
            with super().around(each, event):
                each.handle(event)
        with super().around(subscription, event):
            yield

    def attempt(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        result = super().attempt(subscription, event)
        if result is None:
            self.succeeded[event.event_id].append(subscription)
        return result


@rogue(
    "G2",
    r"attempt\(s\) that failed",
    also={
        "I2": "what failed once, and was not tried again, is missing",
        "L1": "what failed before its last attempt has not settled",
    },
    defect="a failed event is acknowledged in a `finally`",
)
class AcknowledgesAnyway(Retrying):
    """It acknowledges in a finally, so that a failed delivery is not tried again."""

    waits: ClassVar[tuple[float, ...]] = ()


@rogue("G2", r"attempt\(s\) that failed", defect="retry behaves differently in the in-process engine")
class Uneven(Retrying):
    """It tries ``async def`` handlers again, and plain ones not, which no caller can know."""

    def waits_of(self, subscription: Subscription) -> tuple[float, ...]:
        return self.waits if subscription.is_async else ()


@rogue("G2", "and 1 are allowed")
class Secondguessing(Retrying):
    """It tries again, and does not say so."""

    guarantees = PassThrough.guarantees


@rogue("G4", "dispatched first")
class Shuffling(LoopPassThrough):
    """It declares an order, and has threads and tasks that know none."""

    guarantees = dataclasses.replace(LoopPassThrough.guarantees, ordering=Ordering.FIFO)


class _CascadesFirst(SyncEventDispatcher):
    def _enqueue(self, cascade: Cascade | None, event: DomainEvent) -> None:
        super()._enqueue(cascade, event)
        if cascade is not None:
            cascade.queue.rotate(1)


@rogue("G4", "dispatched first")
class JumpingTheQueue(PassThrough):
    """An event of a handler goes to the head of the queue: of two, the second comes first."""

    within = _CascadesFirst


@rogue("G4", "never seen to fail", expected=Outcome.UNCLAIMED)
class Orderly(PassThrough):
    """It declares no order, and keeps it."""

    guarantees = dataclasses.replace(PassThrough.guarantees, ordering=Ordering.NONE)


@rogue(
    "G1",
    "returned while",
    also={
        "C1": "its queue is one for all",
        "A2": "it refuses to one caller an event of another that it delivered in part",
        "I5": "who leaves an event to others never sees the interruption",
    },
)
class SharingBacklog(PassThrough):
    """One queue for all threads: who finds another at work leaves the event to it, and returns."""

    busy = False

    def prepare(self) -> None:
        self.backlog: deque[DomainEvent] = deque()
        self.lock = threading.Lock()

    def accept(self, event: DomainEvent, route: Route) -> None:
        with self.lock:
            self.backlog.append(event)
            if self.busy:
                return
            self.busy = True
        try:
            while self.backlog:
                super().accept(self.backlog.popleft(), route)
        finally:
            self.busy = False


@rogue("G2", "had failed for good", also={"I3": "it counts attempts that should not have been"})
class OnlyExactlyPermanent(Retrying):
    """Of permanent failures it knows the class, and not its subclasses."""

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        with super().around(subscription, event):
            try:
                yield
            except PermanentFailureError as error:
                if type(error) is not PermanentFailureError:
                    raise _AnotherError(error) from error
                raise

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        exception = failed.exception
        original = exception.args[0] if isinstance(exception, _AnotherError) else exception
        super().report(subscription, dataclasses.replace(failed, exception=original))


class _AnotherError(Exception):
    """A failure that is not known to be permanent."""


@rogue("I3", r"attempt\(s\) instead of", also={"G2": "the number of attempts is its, too"})
class FinalIsFirst(Retrying):
    """A failure for good is not tried again, so there was one attempt."""

    def counted(self, failed: FailedDelivery, attempts: int) -> int:
        return 1 if isinstance(failed.exception, PermanentFailureError) else attempts


@rogue(
    "G3",
    "was accepted, and lost",
    defect="a message acknowledged before the handler ran, or when its worker died",
    target=f"{__name__}:AcknowledgesEarly",
)
class AcknowledgesEarly(Journaling):
    """It takes a message from the queue when it has it, not when it has handled it."""

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        self.settle(subscription, event)
        yield


@rogue("G3", "was accepted, and lost", target=f"{__name__}:ForgetsOnCrash")
class ForgetsOnCrash(LoopPassThrough):
    """It keeps events in memory, and declares that they survive a crash."""

    guarantees = Journaling.guarantees


@rogue("G3", "was accepted, and lost", target=f"{__name__}:SettlingTogether")
class SettlingTogether(Journaling):
    """The first handler that is done is done for all."""

    def settle(self, subscription: Subscription, event: DomainEvent) -> None:
        for each in self.table[type(event)]:
            super().settle(each, event)


@rogue("G3", "was accepted, and lost", target=f"{__name__}:TakingUpTheRecent")
class TakingUpTheRecent(Journaling):
    """An event of more than a week ago is nobody's concern any more, it thinks when it starts."""

    def left(self) -> list[DomainEvent]:
        return [event for event in super().left() if datetime.now(UTC) - event.occurred_at < timedelta(days=7)]


@rogue("G3", "was accepted, and lost", target=f"{__name__}:ForgettingWhatItRead")
class ForgettingWhatItRead(Journaling):
    """It has read what was left when it starts, and needs no file for that any more."""

    read: Sequence[DomainEvent] = ()

    def left(self) -> list[DomainEvent]:
        self.read = found = super().left()
        return found

    def accept(self, event: DomainEvent, route: Route) -> None:
        super().accept(event, route)
        for each in route if event in self.read else ():
            self.settle(each, event)

    def received(self, subscription: Subscription, event: DomainEvent) -> Sequence[DomainEvent]:
        return (event,) if event in self.read else super().received(subscription, event)


@rogue("G3", "before the crash, and again after it", target=f"{__name__}:Remembering")
class Remembering(Journaling):
    """It declares that nothing is attempted again after a crash, and attempts it."""

    guarantees = LoopPassThrough.guarantees
