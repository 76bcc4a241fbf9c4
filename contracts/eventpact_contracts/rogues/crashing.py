"""Rogues whose process is killed: accepted events are gone, or come back although they deny it."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from eventpact.domain.dispatcher import Delivery, FailedDelivery, FailureSink, Handlers
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact_contracts.rogues.pass_through import LoopPassThrough, Route
from eventpact_contracts.rogues.rogue import rogue

__all__ = ["Journaling"]

_FOLDER: Final = "EVENTPACT_ROGUE_JOURNAL"


class Journaling(LoopPassThrough):
    """A good one that survives crashes: a file for each delivery, written before it is accepted, removed when settled.

    The files are in a folder that the environment names; without one there is nothing to survive, and none is written.
    """

    guarantees = dataclasses.replace(LoopPassThrough.guarantees, delivery=Delivery.AT_LEAST_ONCE)

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        super().__init__(handlers, on_failure)
        self.folder = Path(os.environ[_FOLDER]) if _FOLDER in os.environ else None
        for event in self._left():
            super().dispatch(event)

    @staticmethod
    @contextmanager
    def engine() -> Generator[None]:
        """Give the processes that are started a folder to share."""
        with tempfile.TemporaryDirectory(prefix="eventpact-rogue-") as folder:
            os.environ[_FOLDER] = folder
            try:
                yield
            finally:
                del os.environ[_FOLDER]

    def accept(self, event: DomainEvent, route: Route) -> None:
        for subscription in route:
            if (file := self._file(subscription, event)) is not None:
                half = file.with_suffix(".half")
                half.write_text(json.dumps(event.to_dict()), encoding="utf-8")
                half.rename(file)
        super().accept(event, route)

    def received(self, subscription: Subscription, event: DomainEvent) -> Sequence[DomainEvent]:
        settled = (file := self._file(subscription, event)) is not None and not file.exists()
        return () if settled else (event,)

    @contextmanager
    def around(self, subscription: Subscription, event: DomainEvent) -> Generator[None]:
        yield
        self.settle(subscription, event)

    def report(self, subscription: Subscription, failed: FailedDelivery) -> None:
        super().report(subscription, failed)
        self.settle(subscription, failed.event)

    def settle(self, subscription: Subscription, event: DomainEvent) -> None:
        """Nothing more is to be done."""
        if (file := self._file(subscription, event)) is not None:
            file.unlink(missing_ok=True)

    def _file(self, subscription: Subscription, event: DomainEvent) -> Path | None:
        if self.folder is None:
            return None
        kind = type(event)
        return self.folder / f"{kind.__name__} {event.event_id} {self.table[kind].index(subscription)}.json"

    def _left(self) -> list[DomainEvent]:
        """Events that a process before this one had accepted, and not settled."""
        files = sorted(self.folder.glob("*.json")) if self.folder is not None else []
        found = {
            file.name.split()[1]: self.table.named(file.name.split()[0]).from_dict(json.loads(file.read_text("utf-8")))
            for file in files
        }
        return list(found.values())


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


@rogue("G3", "before the crash, and again after it", target=f"{__name__}:Remembering")
class Remembering(Journaling):
    """It declares that nothing is attempted again after a crash, and attempts it."""

    guarantees = LoopPassThrough.guarantees
