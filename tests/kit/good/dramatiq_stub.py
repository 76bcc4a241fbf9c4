"""Dispatcher over dramatiq: each delivery is a message of a StubBroker, which a worker in this process serves."""

from __future__ import annotations

import threading
from itertools import count
from typing import Any, Final

import dramatiq
from dramatiq.brokers.stub import StubBroker
from kit.good.base import Base, Job, current_job

from eventpact.domain.dispatcher import Delivery, FailureSink, Guarantees, Handlers, Ordering

__all__ = ["DramatiqDispatcher"]

_POLL_MILLISECONDS: Final = 10
_STOP_MILLISECONDS: Final = 150


class DramatiqDispatcher(Base):
    """Sends the number of the delivery and the event as JSON; a retry is a message with a delay."""

    guarantees = Guarantees(blocks_caller=False, retries=2, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.NONE)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self._broker = StubBroker(middleware=[])
        self._actor = dramatiq.actor(broker=self._broker, actor_name="deliver")(self._receive)
        self._worker: dramatiq.Worker | None = None
        self._sent: dict[int, Job] = {}
        self._numbers = count()

    def _accept(self, jobs: list[Job]) -> None:
        if self._worker is None:
            self._worker = dramatiq.Worker(self._broker, worker_timeout=_POLL_MILLISECONDS, worker_threads=8)
            self._worker.start()
        for job in jobs:
            self._send(job)

    def _again(self, job: Job, seconds: float) -> None:
        self._send(job, delay=round(1000 * seconds))

    def _send(self, job: Job, delay: int | None = None) -> None:
        number = next(self._numbers)
        self._sent[number] = job
        self._actor.send_with_options(args=(number, job.event.to_dict()), delay=delay)

    def _receive(self, number: int, fields: dict[str, Any]) -> None:
        with self._lock:
            job = self._sent.pop(number)
        job.received = type(job.event).from_dict(fields)
        self._attempt(job)

    async def _release(self, *, busy: bool) -> None:
        del busy
        if self._worker is not None:
            stopping = threading.Thread(target=self._worker.stop, args=(_STOP_MILLISECONDS,))
            stopping.start()
            if current_job.get() is None:
                stopping.join()  # a handler that closes runs in the worker, which cannot end before it
        self._broker.close()
