"""Rogues that are right for the events that their authors tried: small numbers, plain text, names of one meaning."""

from __future__ import annotations

import dataclasses
import struct
import unicodedata
from collections.abc import Awaitable
from typing import Any

from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact_contracts.rogues.handlers import _NEVER_HANDLED
from eventpact_contracts.rogues.pass_through import PassThrough
from eventpact_contracts.rogues.rogue import rogue

__all__: list[str] = []


@rogue("R1", "never received it", also=_NEVER_HANDLED, settle_timeout=0.2)
class LosingByContent(PassThrough):
    """An event that has a price goes to a queue that nobody reads."""

    def dispatch(self, event: DomainEvent) -> None:
        self.table.route(event)
        if not getattr(event, "price", 0):
            super().dispatch(event)


@rogue("R1", "never received it", also=_NEVER_HANDLED, settle_timeout=0.2)
class DeduplicatingByContent(PassThrough):
    """Two events that say the same are one."""

    def __init__(self, *given: Any) -> None:
        self.seen: set[str] = set()
        super().__init__(*given)

    def dispatch(self, event: DomainEvent) -> None:
        said = {**event.to_dict(), "event_id": "", "occurred_at": ""}
        key = f"{type(event)} {said}"
        if self.table.route(event) and key in self.seen and said.get("number"):
            return
        self.seen.add(key)
        super().dispatch(event)


@rogue("R2", "which is not subscribed to it", also={"R4": "it has no handler, yet one has it"})
class ByName(PassThrough):
    """It looks up handlers by the name of the event type."""

    def dispatch(self, event: DomainEvent) -> None:
        super().dispatch(event)
        if not self.table.route(event):
            for kind, route in self.table.items():
                if kind.__name__ == type(event).__name__:
                    for each in route:
                        self.deliver(each, event)


class _Rewriting(PassThrough):
    """Handlers receive what ``rewritten`` makes of the event."""

    def rewritten(self, event: DomainEvent) -> DomainEvent:
        return event

    def deliver(self, subscription: Subscription, event: DomainEvent) -> Awaitable[None] | None:
        return super().deliver(subscription, self.rewritten(event))

    async def deliver_async(self, subscription: Subscription, event: DomainEvent) -> None:
        await super().deliver_async(subscription, self.rewritten(event))


def _changed(event: Any, **fields: object) -> DomainEvent:
    changed: DomainEvent = dataclasses.replace(event, **{k: v for k, v in fields.items() if hasattr(event, k)})
    return changed


@rogue("R6", "received another", also={"C3": "it says I3 of every schedule"})
class Normalising(_Rewriting):
    """Text is normalised, as databases and keyboards do."""

    def rewritten(self, event: DomainEvent) -> DomainEvent:
        return _changed(event, text=unicodedata.normalize("NFC", getattr(event, "text", "")))


@rogue("R6", "received another", also={"C3": "it says I3 of every schedule"})
class Trimming(_Rewriting):
    """Text loses what nobody sees."""

    def rewritten(self, event: DomainEvent) -> DomainEvent:
        return _changed(event, text=getattr(event, "text", "").rstrip("\r\n"))


@rogue("R6", "received another", also={"C3": "it says I3 of every schedule"})
class Rounding(_Rewriting):
    """Numbers go through a float, which has 53 bits."""

    def rewritten(self, event: DomainEvent) -> DomainEvent:
        number = getattr(event, "number", 0)
        return _changed(event, number=int(float(number)) if abs(number) < 2**100 else number)


_REFUSED_BY_CONTENT = {
    "C1": "where many dispatch, it raises as well",
    "C2": "where a handler dispatches, it raises as well",
    "L3": "while it closes, it raises as well",
    "I2": "which field it cannot write has nothing to do with who failed",
    "I4": "which field it cannot write has nothing to do with a sink",
    "I1": "an error of its own may look like a handler's",
    "R4": "an event that has no handler is written, too",
    "A3": "closed, it writes first",
}


@rogue("A5", "instead of a DispatchError", also=_REFUSED_BY_CONTENT)
class Packing(PassThrough):
    """Numbers are written in eight bytes, and a larger one raises the writer's own error."""

    def dispatch(self, event: DomainEvent) -> None:
        self.table.route(event)
        struct.pack("q", getattr(event, "number", 0))
        super().dispatch(event)
