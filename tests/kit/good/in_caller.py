"""Base of dispatchers whose handlers run in the thread of the caller, who waits for the whole cascade."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass, field

from kit.good.base import Base, Job

from eventpact.domain.dispatcher import Delivery, FailureSink, Guarantees, Handlers, Ordering
from eventpact.domain.events import DomainEvent

__all__ = ["InCaller"]


@dataclass(eq=False, slots=True)
class _Cascade:
    """The events that one outermost ``dispatch`` has caused, breadth first."""

    queue: deque[list[Job]] = field(default_factory=deque)
    is_open: bool = True
    interruption: BaseException | None = None


class InCaller(Base):
    """Delivers in the caller's thread; an event that a handler dispatches is queued behind the one being handled."""

    guarantees = Guarantees(blocks_caller=True, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        # One for each dispatcher, because the handler of one may dispatch to another, whose handler dispatches back.
        self._current: ContextVar[_Cascade | None] = ContextVar("cascade", default=None)

    def dispatch(self, event: DomainEvent) -> None:
        cascade = self._current.get()
        if cascade is not None:
            with self._lock:
                if cascade.is_open:
                    super().dispatch(event)
                    return
        cascade = _Cascade()
        token = self._current.set(cascade)
        try:
            super().dispatch(event)
            self._drain(cascade)
        finally:
            cascade.is_open = False
            self._current.reset(token)
        if cascade.interruption is not None:
            raise cascade.interruption

    def _accept(self, jobs: list[Job]) -> None:
        cascade = self._current.get()
        assert cascade is not None
        cascade.queue.append(jobs)

    def _drain(self, cascade: _Cascade) -> None:
        while True:
            with self._lock:
                if not cascade.queue:
                    cascade.is_open = False
                    return
                jobs = cascade.queue.popleft()
            self._send(jobs)

    @abstractmethod
    def _send(self, jobs: list[Job]) -> None:
        """Call ``_deliver`` for each of the jobs of one event, by means of the mechanism."""

    def _deliver(self, job: Job) -> None:
        exception = self._attempt(job)
        if isinstance(exception, KeyboardInterrupt | SystemExit):
            cascade = self._current.get()
            assert cascade is not None
            cascade.interruption = exception
