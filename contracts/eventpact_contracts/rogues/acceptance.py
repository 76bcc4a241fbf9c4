"""Rogues that take what they should refuse, or refuse badly."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from eventpact.domain.dispatcher import (
    DispatcherClosedError,
    DispatchError,
    EventDispatcher,
    FailureSink,
    Handlers,
    RegistrationError,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact_contracts.rogues.pass_through import Disguise, LoopDisguise
from eventpact_contracts.rogues.rogue import Rogue

__all__ = ["ACCEPTANCE"]


class Omnivorous(Disguise):
    """What is no event has no handlers either, so nothing happens."""

    def dispatch(self, event: DomainEvent) -> None:
        if isinstance(event, DomainEvent):
            super().dispatch(event)


class DuckTyping(Disguise):
    """It relies on what an event ought to have, and fails where that is missing."""

    def dispatch(self, event: DomainEvent) -> None:
        if not isinstance(event, DomainEvent):
            raise AttributeError("it has no event_id")
        super().dispatch(event)


class Halfhearted(LoopDisguise):
    """It starts one handler after the other, and notices in the middle that there is no room."""

    def __init__(self, *given: Any) -> None:
        self.started: set[asyncio.Task[None]] = set()
        super().__init__(*given)

    def build(self, handlers: Handlers) -> EventDispatcher:
        return AsyncioEventDispatcher(handlers, on_failure=self.report, max_pending=500)

    def dispatch(self, event: DomainEvent) -> None:
        try:
            super().dispatch(event)
        except DispatcherClosedError:
            raise
        except DispatchError as full:
            if "pending" in str(full):
                first = next(each for each in self.table.route(event) if each.is_async)
                self.started.add(asyncio.ensure_future(self.deliver_async(first, event)))
            raise


class RunsAnyway(Disguise):
    """Handlers are called first; whether the event may be taken is asked afterwards."""

    def dispatch(self, event: DomainEvent) -> None:
        try:
            super().dispatch(event)
        except DispatcherClosedError:
            for subscription in self.table.route(event):
                if not subscription.is_async:
                    self.deliver(subscription, event)
            raise


class Undead(Disguise):
    """Closed, it takes events, and does nothing with them."""

    def dispatch(self, event: DomainEvent) -> None:
        try:
            super().dispatch(event)
        except DispatcherClosedError:
            return


class Brusque(Disguise):
    """Closed, it fails as it happens."""

    def dispatch(self, event: DomainEvent) -> None:
        try:
            super().dispatch(event)
        except DispatcherClosedError as error:
            raise DispatchError("something is wrong") from error


class Careless(Disguise):
    """Where the configuration makes no sense, it does without one."""

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        try:
            super().__init__(handlers, on_failure)
        except RegistrationError:
            super().__init__({}, on_failure)


class Curt(Disguise):
    """It refuses to be built, and does not say why."""

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        try:
            super().__init__(handlers, on_failure)
        except RegistrationError:
            raise RegistrationError("invalid configuration") from None


class Patient(LoopDisguise):
    """It hopes that there will be a loop. Once; so that checking it takes no longer than it must."""

    def __init__(self, *given: Any) -> None:
        self.hopes = True
        super().__init__(*given)

    def dispatch(self, event: DomainEvent) -> None:
        try:
            super().dispatch(event)
        except DispatcherClosedError:
            raise
        except DispatchError as refused:
            if self.hopes and "loop" in str(refused):
                self.hopes = False
                time.sleep(2.2)  # longer than anybody may be kept waiting
            raise


class Wasteful(LoopDisguise):
    """It makes the coroutine, and then looks for a loop that could run it."""

    def dispatch(self, event: DomainEvent) -> None:
        made: list[Any] = [each.handle(event) for each in self.table.route(event) if each.is_async]
        closed = True
        try:
            super().dispatch(event)
        except DispatcherClosedError:
            raise
        except DispatchError:
            closed = False
            raise
        finally:
            for coroutine in made if closed else ():
                coroutine.close()


class Unwrapped(LoopDisguise):
    """The error of the event loop reaches the caller as it is."""

    def dispatch(self, event: DomainEvent) -> None:
        try:
            super().dispatch(event)
        except DispatcherClosedError:
            raise
        except DispatchError:
            raise RuntimeError("no running event loop") from None


_LOST = {
    "L1": "what it took after closing had begun is not conserved",
    "L3": "what it took while it closed is lost",
    "C3": "it says L1 and L3 of every schedule",
}

ACCEPTANCE = (
    Rogue(
        "omnivorous",
        Omnivorous,
        Omnivorous.guarantees,
        "A1",
        "dispatch accepted it",
        "what is no event is dropped, and nobody is told",
    ),
    Rogue(
        "duck_typing",
        DuckTyping,
        DuckTyping.guarantees,
        "A1",
        "instead of TypeError",
        "what is no event fails somewhere inside",
    ),
    Rogue(
        "halfhearted",
        Halfhearted,
        Halfhearted.guarantees,
        "A2",
        "was refused, and delivered to",
        "some handlers have been started when it notices that it is full",
        needs_loop=True,
        settle_timeout=0.5,
    ),
    Rogue(
        "runs_anyway",
        RunsAnyway,
        RunsAnyway.guarantees,
        "A2",
        "was refused, and delivered to",
        "handlers are called although the event is refused",
        {"A3": "nothing is delivered, it says of what was refused because of closing"},
        "handlers run although the sender's request failed",
    ),
    Rogue(
        "undead",
        Undead,
        Undead.guarantees,
        "A3",
        "was accepted",
        "closed, it is a silent no-op",
        _LOST,
    ),
    Rogue(
        "brusque",
        Brusque,
        Brusque.guarantees,
        "A3",
        "instead of DispatcherClosedError",
        "closed, it refuses without saying that it is closed",
    ),
    Rogue(
        "careless",
        Careless,
        Careless.guarantees,
        "A4",
        "a dispatcher was built with",
        "with an impossible registration it is built, and does nothing",
        defect="a misconfigured backend is replaced by a silent no-op",
    ),
    Rogue(
        "curt",
        Curt,
        Curt.guarantees,
        "A4",
        "does not name what is wrong",
        "it refuses to be built without saying what is wrong",
    ),
    Rogue(
        "patient",
        Patient,
        Patient.guarantees,
        "A5",
        "and 2 s are allowed",
        "it keeps the caller waiting before it refuses",
        needs_loop=True,
    ),
    Rogue(
        "wasteful",
        Wasteful,
        Wasteful.guarantees,
        "A5",
        "never awaited",
        "a refused event leaves a coroutine unawaited",
        {"L4": "an unawaited coroutine is left behind"},
        needs_loop=True,
    ),
    Rogue(
        "unwrapped",
        Unwrapped,
        Unwrapped.guarantees,
        "A5",
        "instead of a DispatchError",
        "the loop's own error reaches the caller",
        needs_loop=True,
    ),
)
