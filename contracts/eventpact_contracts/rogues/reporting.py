"""Rogues that report a failure wrongly, twice or never, or take a failure sink at its word."""

from __future__ import annotations

import dataclasses
from collections import Counter
from contextlib import AbstractContextManager, suppress
from uuid import UUID

from eventpact.domain.dispatcher import FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import undelivered
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact_contracts.rogues.isolation import RaisingLater
from eventpact_contracts.rogues.rogue import rogue
from eventpact_contracts.rogues.sound.pass_through import PassThrough

__all__: list[str] = []

_INBOX = 50

_C3 = {"C3": "it says I3 of every schedule"}


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


@rogue("I3", "was never reported", settle_timeout=0.1)
class SparingAnInbox(PassThrough):
    """Of one handler it reports no more than fifty failures, lest somebody's inbox fill."""

    def prepare(self) -> None:
        self.reports: Counter[Subscription] = Counter()

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        self.reports[subscription] += 1
        if self.reports[subscription] <= _INBOX:
            super().report(subscription, failed)


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


@rogue(
    "I4",
    "the failure sink raised, and dispatching",
    also={
        "I1": "the exception of a sink comes with that of a handler",
        "A2": "a sink may raise what says that an event was refused",
    },
)
class Trusting(RaisingLater):
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


@rogue("I3", "was never reported", also={**_C3, "I4": "its sink is told of fewer failures", "I5": "of an event"})
class OncePerEvent(PassThrough):
    """An event has failed, or it has not: whose handlers, it reports once."""

    def prepare(self) -> None:
        self.known: set[object] = set()

    def likeness(self, failed: FailedDelivery) -> object:
        return failed.event.event_id

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        if (likeness := self.likeness(failed)) not in self.known:
            self.known.add(likeness)
            super().report(subscription, failed)


@rogue("I3", "was never reported", also={**_C3, "I4": "its sink is told of fewer failures", "I5": "of a text"})
class OncePerText(OncePerEvent):
    """A report that equals an earlier one is left out."""

    def likeness(self, failed: FailedDelivery) -> object:
        return repr(failed.exception.args)


@rogue("I3", "was never reported", also={**_C3, "I4": "its sink is not told, either", "I5": "of some exceptions"})
class Quoting(PassThrough):
    """A report begins with the text of the exception, which not every one has."""

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        with suppress(Exception):
            f"{failed.exception}".encode()
            super().report(subscription, failed)


@rogue("I3", "instead of ExceptionGroup")
class Unwrapping(PassThrough):
    """It reports the one exception of a group, as if it had made the group itself."""

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        error = failed.exception
        if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        super().report(subscription, dataclasses.replace(failed, exception=error))


@rogue("L1", "as undelivered, though")
class KeepingInTheBooks(PassThrough):
    """A failed delivery leaves its books behind the call of the failure sink, and not in a ``finally``."""

    def prepare(self) -> None:
        self.books: list[DomainEvent] = []

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        self.books.append(failed.event)
        super().report(subscription, failed)
        self.books.remove(failed.event)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        left = await super().aclose(timeout)
        return undelivered((*self.books, *left))


@rogue("I3", "with another handler")
class NamingTheOwner(PassThrough):
    """A failure is that of the object whose method was called."""

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        owner = getattr(subscription.handle, "__self__", failed.handler)
        super().report(subscription, dataclasses.replace(failed, handler=owner))
