"""Rogues in which one failure becomes everybody's, or an interruption nobody's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from uuid import UUID

from eventpact.domain.dispatcher import DispatchError, FailedDelivery, FailureSink, Handlers
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.cascades import Cascade
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
from eventpact_contracts.rogues.rogue import rogue
from eventpact_contracts.rogues.sound.pass_through import LoopPassThrough, PassThrough, Route

__all__ = ["RaisingLater"]

_C3 = {"C3": "it says I1 to I3 of every schedule"}
_RAISED = {
    "I4": "whose handler's failure reaches the caller, its sink's does too",
    "L1": "what dispatch raises for was not accepted, and yet closing may return it",
    **_C3,
}


class RaisingLater(PassThrough):
    """Raises an exception in the caller, after everything is delivered and reported."""

    def prepare(self) -> None:
        self.later: dict[UUID, BaseException] = {}

    def dispatch(self, event: DomainEvent) -> None:
        super().dispatch(event)
        if event.event_id in self.later:
            raise self.later.pop(event.event_id)


@rogue("I1", "the caller of dispatch got", also=_RAISED)
class Leaky(RaisingLater):
    """Everything is delivered and reported, and then the first failure is raised in the caller."""

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        super().report(subscription, failed)
        if isinstance(failed.exception, Exception) and self.leaks(subscription, failed):
            self.later.setdefault(failed.event.event_id, failed.exception)

    def leaks(self, subscription: Subscription, failed: FailedDelivery) -> bool:
        return True


@rogue(
    "I1",
    "the caller of dispatch got",
    also=_RAISED,
    defect="a sync handler's error reaches the caller, an async one's does not",
)
class LeakyWhenPlain(Leaky):
    """An ``async def`` handler is isolated, a plain one is not."""

    def leaks(self, subscription: Subscription, failed: FailedDelivery) -> bool:
        return not subscription.is_async


@rogue("I1", "the caller of dispatch got", also={**_RAISED, **_C3, "A3": "closed, it may raise another's error"})
class LettingThrough(Leaky):
    """An error that looks like its own is its own, it thinks."""

    def leaks(self, subscription: Subscription, failed: FailedDelivery) -> bool:
        return isinstance(failed.exception, DispatchError)


@rogue("I1", "the caller of dispatch got", also={**_RAISED, **_C3})
class Alarmed(Leaky):
    """A failure that says something of the process is not the handler's alone, it thinks."""

    def leaks(self, subscription: Subscription, failed: FailedDelivery) -> bool:
        return isinstance(failed.exception, MemoryError | RecursionError)


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

    breaks_off: tuple[type[BaseException], ...] = (Exception,)

    def prepare(self) -> None:
        self.broken_off: set[UUID] = set()

    def received(self, subscription: Subscription, event: DomainEvent) -> Sequence[DomainEvent]:
        return () if event.event_id in self.broken_off else (event,)

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        try:
            yield
        except self.breaks_off:
            self.broken_off.add(event.event_id)
            raise


@rogue(
    "I5",
    "neither reported, nor tried again, nor returned",
    also={"I3": "a failure is not reported", "L1": "it is not returned, either", "C3": "it says L1 of every schedule"},
)
class Presumptuous(LoopPassThrough):
    """A handler that was cancelled while it closes was cancelled by closing, it thinks, and on purpose."""

    closing = False

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        if not (self.closing and isinstance(failed.exception, asyncio.CancelledError)):
            super().report(subscription, failed)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        self.closing = True
        return await super().aclose(timeout)


@rogue("I5", "never received")
class BreakingOff(Contagious):
    """Whoever interrupts one handler has interrupted the loop over all of them."""

    breaks_off = (KeyboardInterrupt, SystemExit)


@rogue(
    "I5",
    "neither reported, nor tried again, nor returned",
    also={"L1": "a handler that closing cancelled counts as done, too", "C3": "it says L1 of every schedule"},
)
class Oblivious(PassThrough):
    """A handler that was cancelled has ended, and that is good enough."""

    def around(self, subscription: Subscription, event: DomainEvent) -> AbstractContextManager[object]:
        return suppress(asyncio.CancelledError)


@rogue(
    "I5",
    "neither reported, nor tried again, nor returned",
    also={"I3": "an interruption is a failure that is reported", "L1": "it counts as done", **_C3},
)
class Successful(PassThrough):
    """An exit without an error is no failure."""

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        try:
            yield
        except SystemExit as end:
            if end.code:
                raise


@rogue(
    "I5",
    "neither reported, nor tried again, nor returned",
    also={"I3": "an interruption is a failure that is reported", "L1": "it counts as done", **_C3},
)
class EndingEarly(PassThrough):
    """A handler that was a generator's, and is closed, has done its work."""

    def around(self, subscription: Subscription, event: DomainEvent) -> AbstractContextManager[object]:
        return suppress(GeneratorExit)


@rogue("I5", "who waits, never saw it")
class Unstoppable(PassThrough):
    """A bare except, and nobody can interrupt the program any more."""

    def dispatch(self, event: DomainEvent) -> None:
        with suppress(KeyboardInterrupt, SystemExit):
            super().dispatch(event)


class _SwallowingWithin(SyncEventDispatcher):
    def _deliver(self, cascade: Cascade, event: DomainEvent) -> None:
        before = cascade.interruption
        super()._deliver(cascade, event)
        cascade.interruption = before


@rogue("I5", "who waits, never saw it")
class UnstoppableWithin(PassThrough):
    """It raises the interruption of a handler, but not that of one whose event a handler dispatched."""

    within = _SwallowingWithin


@rogue(
    "I2",
    "though nothing was pending",
    also={"I4": "its sink is told of failures, too", "C1": "where many dispatch, too"},
)
class CircuitBreaking(PassThrough):
    """After some failures in a row, it takes no more events."""

    in_a_row = 0

    def accept(self, event: DomainEvent, route: Route) -> None:
        if route and self.in_a_row >= 5:
            raise DispatchError("too many failures; try again later")
        super().accept(event, route)

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        result = super().deliver(subscription, event)
        self.in_a_row = 0
        return result

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        self.in_a_row += 1
        super().report(subscription, failed)


@rogue(
    "I5",
    "neither reported, nor tried again, nor returned",
    also={"L1": "an attempt that closing broke off counts as done, too", **_C3},
)
class KnowingOnlyPythons(PassThrough):
    """It knows the interruptions of Python; any other that is no Exception passes for an end."""

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        try:
            yield
        except BaseException as error:
            known = (Exception, KeyboardInterrupt, SystemExit, asyncio.CancelledError)
            if subscription.is_async or isinstance(error, known):
                raise


@rogue("I5", "never received", settle_timeout=0.3)
class StoppingShort(SyncEventDispatcher):
    """It drops what a handler had dispatched before it was interrupted."""

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        super().__init__(handlers, on_failure=on_failure)

    def _drain(self, cascade: Cascade) -> None:
        if cascade.interruption is not None:
            with self._cascades.lock:
                cascade.queue.clear()
        super()._drain(cascade)


@rogue("I2", "was broken off", also={"R5": "who is broken off is not served for as long as it takes"})
class OneForAll(LoopPassThrough):
    """The handlers of an event are one group, of which the first failure cancels the others."""

    def prepare(self) -> None:
        self.groups: dict[UUID, set[asyncio.Task[None] | None]] = {}

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        task, group = asyncio.current_task(), self.groups.setdefault(event.event_id, set())
        group.add(task)
        try:
            await super().deliver_async(subscription, event)
        except Exception:
            for other in group - {task}:
                if other is not None:
                    other.cancel()
            raise
        finally:
            group.discard(task)
