"""Rogues in which one failure becomes everybody's, or nobody's."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from uuid import UUID

from eventpact.domain.dispatcher import DispatchError, EventDispatcher, FailedDelivery, FailureSink, Handlers
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.cascades import Cascade
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
from eventpact_contracts.rogues.pass_through import PassThrough, Route
from eventpact_contracts.rogues.rogue import rogue

__all__: list[str] = []


_C3 = {"C3": "it says I1 to I3 of every schedule"}
_RAISED = {
    "I4": "whose handler's failure reaches the caller, its sink's does too",
    "L1": "what dispatch raises for was not accepted, and yet closing may return it",
    **_C3,
}


class _RaisingLater(PassThrough):
    """Raises an exception in the caller, after everything is delivered and reported."""

    def prepare(self) -> None:
        self.later: dict[UUID, BaseException] = {}

    def dispatch(self, event: DomainEvent) -> None:
        super().dispatch(event)
        if event.event_id in self.later:
            raise self.later.pop(event.event_id)


@rogue("I1", "the caller of dispatch got", also=_RAISED)
class Leaky(_RaisingLater):
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


@rogue("I5", "never received")
class BreakingOff(Contagious):
    """Whoever interrupts one handler has interrupted the loop over all of them."""

    breaks_off = (KeyboardInterrupt, SystemExit)


@rogue(
    "I3",
    "was never reported",
    also={"I5": "an interruption is no success, and nobody is told", **_C3},
    settle_timeout=0.1,
)
class Secretive(PassThrough):
    """A failure is nobody's business."""

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        """Tell nobody."""


@rogue("I3", "was never reported", also={"I4": "it looks at reports where handlers fail, too"}, settle_timeout=0.1)
class Stoppable(PassThrough):
    """Handlers are steps of a generator, to which StopIteration is an end like any other."""

    def around(self, subscription: Subscription, event: DomainEvent) -> AbstractContextManager[object]:
        return suppress(StopIteration)


@rogue("I3", "was reported 2 times", also=_C3)
class Repeating(PassThrough):
    """A failure is reported where it happened, and again where it was noticed."""

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        super().report(subscription, failed)
        super().report(subscription, failed)


@rogue("I3", "was reported 2 times")
class Insistent(PassThrough):
    """An interrupted delivery is reported by the clean-up, and again by whoever sees the interruption."""

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        super().report(subscription, failed)
        if not isinstance(failed.exception, Exception):
            super().report(subscription, failed)


@rogue("I3", r"attempt\(s\) instead of", also=_C3)
class Miscounting(PassThrough):
    """It counts attempts from zero."""

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        super().report(subscription, dataclasses.replace(failed, attempts=failed.attempts - 1))


@rogue(
    "I3", "was never reported", also={"I4": "it looks at reports where handlers fail, too", **_C3}, settle_timeout=0.1
)
class AlikeOnce(PassThrough):
    """Handlers of an event that failed in the same way are reported once."""

    def prepare(self) -> None:
        self.known: set[tuple[UUID, type[BaseException]]] = set()

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        way = failed.event.event_id, type(failed.exception)
        if failed.exception.args or way not in self.known:
            super().report(subscription, failed)
        self.known.add(way)


@rogue("I3", "with RuntimeError", also=_C3)
class Rewording(PassThrough):
    """It reports the engine's exception instead of the handler's."""

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        super().report(subscription, dataclasses.replace(failed, exception=RuntimeError("a handler failed")))


@rogue("I4", "the failure sink raised, and dispatching")
class Trusting(_RaisingLater):
    """An exception of the failure sink reaches the caller."""

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        try:
            super().report(subscription, failed)
        except Exception as exception:
            self.later[failed.event.event_id] = exception
            raise


@rogue("I4", "nothing was logged")
class Hushing(PassThrough):
    """An exception of the failure sink is suppressed, and nobody ever knows."""

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        with suppress(Exception):
            super().report(subscription, failed)


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

    def build(self, handlers: Handlers) -> EventDispatcher:
        return _SwallowingWithin(handlers, on_failure=self.reported)


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


@rogue("I3", "was never reported", also={**_C3, "I4": "its sink is told of fewer failures", "I5": "of an event"})
class OncePerEvent(PassThrough):
    """An event has failed, or it has not: whose handlers, it reports once."""

    def prepare(self) -> None:
        self.known: set[UUID] = set()

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        if failed.event.event_id not in self.known:
            self.known.add(failed.event.event_id)
            super().report(subscription, failed)


@rogue("I3", "was never reported", also={**_C3, "I4": "its sink is told of fewer failures", "I5": "of a text"})
class OncePerText(PassThrough):
    """A report that equals an earlier one is left out."""

    def prepare(self) -> None:
        self.said: set[str] = set()

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        text = repr(failed.exception.args)
        if text not in self.said:
            self.said.add(text)
            super().report(subscription, failed)


@rogue("I3", "was never reported", also={**_C3, "I4": "its sink is not told, either", "I5": "of some exceptions"})
class Quoting(PassThrough):
    """A report begins with the text of the exception, which not every one has."""

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        with suppress(Exception):
            f"{failed.exception}".encode()
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


@rogue("I3", "instead of ExceptionGroup")
class Unwrapping(PassThrough):
    """It reports the one exception of a group, as if it had made the group itself."""

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        error = failed.exception
        if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        super().report(subscription, dataclasses.replace(failed, exception=error))


@rogue(
    "I4",
    "never received|was not reported any more",
    also={"G1": "nobody waits for what is dropped"},
    settle_timeout=0.3,
)
class ExpectingExceptions(PassThrough):
    """It takes a failure sink that raises anything but an ``Exception`` for the end of the process."""

    has_ended = False

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        try:
            super().report(subscription, failed)
        except Exception:
            raise
        except BaseException:
            self.has_ended = True
            raise

    def accept(self, event: DomainEvent, route: Route) -> None:
        if not self.has_ended:
            super().accept(event, route)


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
