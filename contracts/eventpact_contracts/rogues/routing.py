"""Rogues that deliver to the wrong handlers, too often, not at all, or something else.

Some are right for the events that their authors tried: small numbers, plain text, names of one meaning.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Awaitable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from inspect import isawaitable
from typing import Any

from eventpact.domain.dispatcher import DispatchError
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Subscription, close_unawaited
from eventpact_contracts.rogues.handlers import NEVER_HANDLED
from eventpact_contracts.rogues.rogue import rogue
from eventpact_contracts.rogues.sound.pass_through import PassThrough, Route

__all__: list[str] = []

_C3 = {"C3": "it says I3 of every schedule"}


@rogue(
    "R1",
    "never received it",
    also={
        "I2": "a lost event may have a neighbour that failed",
        "R5": "a lost event may have the only handler of its kind",
        "G1": "what is lost has not settled when dispatch returns",
    },
    settle_timeout=0.2,
)
class Forgetful(PassThrough):
    """It looks along the bases first, and whom it finds there stands for the subclass."""

    def received(self, subscription: Subscription, event: DomainEvent) -> Sequence[DomainEvent]:
        return () if any(base in self.table for base in type(event).__mro__[1:]) else (event,)


@rogue("R1", "never received it", also=NEVER_HANDLED, settle_timeout=0.2)
class LosingByContent(PassThrough):
    """An event that has a price goes to a queue that nobody reads."""

    def accept(self, event: DomainEvent, route: Route) -> None:
        if not getattr(event, "price", 0):
            super().accept(event, route)


@rogue("R1", "never received it", also=NEVER_HANDLED, settle_timeout=0.2)
class DeduplicatingByContent(PassThrough):
    """Two events that say the same are one."""

    def prepare(self) -> None:
        self.seen: set[str] = set()

    def accept(self, event: DomainEvent, route: Route) -> None:
        said = {**event.to_dict(), "event_id": "", "occurred_at": ""}
        key = f"{type(event)} {said}"
        if not (route and key in self.seen and said.get("number")):
            self.seen.add(key)
            super().accept(event, route)


@rogue(
    "R1",
    "never received it",
    also={**NEVER_HANDLED, "A3": "what it has seen, it takes when closed"},
    settle_timeout=0.2,
)
class OfOneMoment(PassThrough):
    """Two events of one type and one moment are one."""

    def prepare(self) -> None:
        self.seen: set[tuple[type, datetime]] = set()

    def accept(self, event: DomainEvent, route: Route) -> None:
        moment = type(event), event.occurred_at
        if moment not in self.seen:
            self.seen.add(moment)
            super().accept(event, route)


@rogue("R1", "never received it", also=NEVER_HANDLED, settle_timeout=0.2)
class Enveloping(PassThrough):
    """An event travels as its fields beside its type, and nobody reads what has another type."""

    def accept(self, event: DomainEvent, route: Route) -> None:
        envelope = {"type": type(event).__name__, **event.to_dict()}
        if envelope["type"] == type(event).__name__:
            super().accept(event, route)


@rogue("R6", "received another")
class OmittingNone(PassThrough):
    """A field without a value is left out of the message, and the reader puts the default there."""

    def received(self, subscription: Subscription, event: DomainEvent) -> Sequence[DomainEvent]:
        absent = [field for field in dataclasses.fields(event) if getattr(event, field.name) is None]
        defaults = {field.name: field.default for field in absent if field.default is not dataclasses.MISSING}
        return (dataclasses.replace(event, **defaults),)


@rogue("R2", "which is not subscribed to it", also={"L1": "a handler that is not subscribed may fail with it"})
class Inheriting(PassThrough):
    """A subscription to a base class is taken to mean its subclasses too."""

    def route_of(self, event_type: type[DomainEvent]) -> Route:
        return tuple(each for base in event_type.__mro__ if base in self.table for each in self.table[base])


@rogue("R2", "which is not subscribed to it", also={"R4": "it has no handler, yet one has it"})
class ByName(PassThrough):
    """It looks up handlers by the name of the event type."""

    def accept(self, event: DomainEvent, route: Route) -> None:
        super().accept(event, route)
        for kind, others in self.table.items():
            if not route and kind.__name__ == type(event).__name__:
                for each in others:
                    self.deliver(each, event)


@rogue(
    "R3",
    "times, though nothing failed",
    also={
        "C1": "it says of many threads what R3 says of one caller",
        "C3": "it says R3 of every schedule",
        "G1": "of the two attempts it waits for the second",
        "G2": "trying again what succeeded is no retry",
    },
)
class Stuttering(PassThrough):
    """If a type has several handlers, each but the first is a message of its own, of which there are two."""

    def received(self, subscription: Subscription, event: DomainEvent) -> Sequence[DomainEvent]:
        return (event,) if subscription is self.table.route(event)[0] else (event, event)


@rogue(
    "R5", "was not awaited to its end", also={"R1": "what is never awaited is never delivered", "G1": "nor waited for"}
)
class JudgingByClass(PassThrough):
    """It learns from the first result of each class of handlers if there is something to await."""

    def prepare(self) -> None:
        self.awaits: dict[type[object], bool] = {}

    def attempt(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        result = super().attempt(subscription, event)
        if self.awaits.setdefault(type(subscription.handler), isawaitable(result)):
            return result
        close_unawaited(result)
        return None


@rogue(
    "R1",
    "Emptied.*never received",
    also=dict.fromkeys(
        ("A3", "C1", "C2", "C3", "G1", "G4", "I2", "I4", "L1", "L3", "R3", "R5"), "it is dropped whatever else happens"
    ),
)
class TruthTestingEvents(PassThrough):
    """An event that is false is taken for none."""

    def dispatch(self, event: DomainEvent) -> None:
        if event or not isinstance(event, DomainEvent):
            super().dispatch(event)


@rogue("R4", "was not accepted")
class Demanding(PassThrough):
    """Dispatching an event without a handler is taken for a mistake."""

    def accept(self, event: DomainEvent, route: Route) -> None:
        if not route:
            raise DispatchError(f"nobody handles {type(event).__name__}")
        super().accept(event, route)


@rogue("R4", "was not accepted")
class GivingRoomBack(PassThrough):
    """Each event takes a place, which the last of its handlers gives back."""

    room = 200

    def accept(self, event: DomainEvent, route: Route) -> None:
        if self.room == 0:
            raise DispatchError("it is full")
        self.room -= not route
        super().accept(event, route)


@rogue("R4", "aclose returned it as undelivered", also={"L1": "what is returned must have been pending"})
class KeepingTheLonely(PassThrough):
    """An event that has no handler waits for one."""

    def prepare(self) -> None:
        self.lonely: list[DomainEvent] = []

    def accept(self, event: DomainEvent, route: Route) -> None:
        super().accept(event, route)
        if not route:
            self.lonely.append(event)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        lonely, self.lonely = self.lonely, []
        return (*await super().aclose(timeout), *lonely)


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

    def received(self, subscription: Subscription, event: DomainEvent) -> Sequence[DomainEvent]:
        return (dataclasses.replace(event, occurred_at=event.occurred_at.replace(microsecond=0)),)


@rogue(
    "R6",
    "received another",
    also={"I3": "the failure is reported with the event as it was changed", **_C3},
    defect="a mutated event is seen mutated by later handlers",
)
class Mutating(PassThrough):
    """It marks the event itself when a plain handler has had it."""

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        yield
        if not subscription.is_async:
            object.__setattr__(event, "occurred_at", event.occurred_at.replace(year=2000, day=1))


class _Rewriting(PassThrough):
    """Handlers receive an event whose fields ``changes`` has changed."""

    def changes(self, event: Any) -> dict[str, object]:
        raise NotImplementedError

    def received(self, subscription: Subscription, event: Any) -> Sequence[DomainEvent]:
        changes = {name: value for name, value in self.changes(event).items() if hasattr(event, name)}
        return (dataclasses.replace(event, **changes),)


@rogue("R6", "received another", also=_C3)
class Normalising(_Rewriting):
    """Text is normalised, as databases and keyboards do."""

    def changes(self, event: Any) -> dict[str, object]:
        return {"text": unicodedata.normalize("NFC", getattr(event, "text", ""))}


@rogue("R6", "received another", also=_C3)
class Trimming(_Rewriting):
    """Text loses its invisible end."""

    def changes(self, event: Any) -> dict[str, object]:
        return {"text": getattr(event, "text", "").rstrip("\r\n")}


@rogue("R6", "received another", also=_C3)
class Rounding(_Rewriting):
    """Numbers go through a float, which has 53 bits."""

    def changes(self, event: Any) -> dict[str, object]:
        number = getattr(event, "number", 0)
        return {"number": int(float(number)) if abs(number) < 2**1000 else number}


@rogue("R6", "received another", also=_C3)
class ToTheMinute(_Rewriting):
    """Offsets from UTC have hours and minutes, it thinks."""

    def changes(self, event: Any) -> dict[str, object]:
        at: datetime = getattr(event, "at", event.occurred_at)
        minutes = (at.utcoffset() or timedelta()) // timedelta(minutes=1)
        return {"at": at.replace(tzinfo=timezone(timedelta(minutes=minutes)))}


@rogue("R7", "instead of None")
class Chatty(PassThrough):
    """It returns something, and callers come to rely on it."""

    def dispatch(self, event: DomainEvent) -> None:
        super().dispatch(event)
        return event  # type: ignore[return-value]  # that is the defect


@rogue("R2", "AnotherPlaced", also={"R4": "what has no handler is delivered"})
class Reloading(PassThrough):
    """A type that it does not know is looked up by module and name, as one that was loaded again."""

    def prepare(self) -> None:
        self.names = {(each.__module__, each.__qualname__): each for each in self.table}

    def dispatch(self, event: DomainEvent) -> None:
        kind = type(event)
        known = self.names.get((kind.__module__, kind.__qualname__), kind)
        if known is not kind:
            event = known.from_dict(event.to_dict())
        super().dispatch(event)
