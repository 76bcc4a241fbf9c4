"""A dispatcher for unit tests. It records accepted events, refuses on request, and keeps the whole contract."""

import threading
from collections import deque
from typing import TypeVar

from eventpact.domain.dispatcher import DispatchError, FailureSink, Handlers
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

__all__ = ["RecordingEventDispatcher"]

E = TypeVar("E", bound=DomainEvent)


class RecordingEventDispatcher(SyncEventDispatcher):
    """A :class:`SyncEventDispatcher` that records accepted events. Handlers run if they are given.

    Attributes:
        events: the accepted events, in order. An event that a handler dispatched stands behind the one it handled.
    """

    def __init__(self, handlers: Handlers | None = None, *, on_failure: FailureSink | None = None) -> None:
        super().__init__({} if handlers is None else handlers, on_failure=on_failure)
        self.events: list[DomainEvent] = []
        self._refusals: deque[DispatchError] = deque()
        self._recording = threading.Lock()

    def of(self, event_type: type[E]) -> list[E]:
        """Return the accepted events of exactly this type, in order."""
        return [event for event in self.events if type(event) is event_type]

    def refuse(self, error: DispatchError) -> None:
        """Refuse the next event with ``error``. Each call refuses one more.

        Raises:
            TypeError: ``error`` is no :class:`DispatchError`, so no dispatcher raises it (law A5).
        """
        if not isinstance(error, DispatchError):
            raise TypeError(f"a dispatcher refuses with a DispatchError, got {error!r}; give one of these")
        self._refusals.append(error)

    def dispatch(self, event: DomainEvent) -> None:
        """Record and deliver ``event``, unless it is refused."""
        if isinstance(event, DomainEvent) and self._refusals:
            raise self._refusals.popleft()
        with self._recording:
            self.events.append(event)
        try:
            super().dispatch(event)
        except (DispatchError, TypeError):  # a handler's errors go to the failure sink, so this one is a refusal
            self._forget(event)
            raise

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        """Close as :class:`SyncEventDispatcher` does. A closed dispatcher forgets the refusals that are left."""
        self._refusals.clear()
        return await super().aclose(timeout)

    def _forget(self, event: DomainEvent) -> None:
        with self._recording:
            place = next(place for place in reversed(range(len(self.events))) if self.events[place] is event)
            del self.events[place]
