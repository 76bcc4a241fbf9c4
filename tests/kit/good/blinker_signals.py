"""Dispatcher over blinker: each event type has a signal, and each handler is one of its receivers."""

from __future__ import annotations

from functools import partial

from blinker import Signal
from kit.good.base import Job, Subscription
from kit.good.in_caller import InCaller

from eventpact.domain.dispatcher import FailureSink, Handlers
from eventpact.domain.events import DomainEvent

__all__ = ["BlinkerDispatcher"]


class BlinkerDispatcher(InCaller):
    """Sends a signal for each event in the caller's thread. A receiver never raises, so that all have their turn."""

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self._signals: dict[type[DomainEvent], Signal] = {}
        for event_type, route in self._table.items():
            signal = self._signals[event_type] = Signal()
            for subscription in route:
                # Strongly, because the dispatcher may be the only one that knows the receiver.
                signal.connect(partial(self._receive, subscription), weak=False)

    def _send(self, jobs: list[Job]) -> None:
        # The jobs are an argument, because several threads may send the signal at once.
        self._signals[type(jobs[0].event)].send(self, jobs={id(job.subscription): job for job in jobs})

    def _receive(self, subscription: Subscription, sender: object, *, jobs: dict[int, Job]) -> None:
        del sender
        self._deliver(jobs[id(subscription)])

    async def _release(self, *, busy: bool) -> None:
        del busy
