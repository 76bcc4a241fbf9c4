"""Cascades of the blocking dispatcher: the event that a thread is delivering, and those that its handlers dispatch."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakSet

from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.threads import reset_in_children

SETTLED: Final = object()
"""In place of an event whose last failure is being reported: it is not undelivered any more."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Cascade:
    """The work of one thread.

    Attributes:
        event: the one that is being delivered; None outside of ``dispatch``.
        queue: the events that come next, each with the context in which it was dispatched.
        more: whether the queue, or an interruption, is to be looked at before ``dispatch`` returns.
        interruption: raised when everything is settled.
    """

    event: object = None
    queue: deque[tuple[Context, DomainEvent]] = field(default_factory=deque)
    more: bool = False
    interruption: BaseException | None = None

    def interrupt(self, interruption: BaseException) -> None:
        """Have ``dispatch`` raise this when everything is settled."""
        self.more, self.interruption = True, interruption


cascade_of_task: ContextVar[Cascade | None] = ContextVar("eventpact_cascade", default=None)
"""The cascade that an async handler belongs to, which runs on another thread."""


class _Mine(threading.local):
    """A thread finds its own cascade in half the time that an entry of a dict would take to make and delete."""

    def __init__(self, add: Callable[[Cascade], object]) -> None:
        # Called once in each thread.
        self.cascade: Cascade | None = Cascade()
        add(self.cascade)


class Cascades:
    """The cascades of all threads, for the one that closes.

    Attributes:
        lock: held while more than one thread looks at a cascade.
        mine: ``mine.cascade`` is that of the current thread.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._all: WeakSet[Cascade] = WeakSet()  # a thread that has ended takes its own along
        self.mine = _Mine(self._add)
        reset_in_children(self)

    def exempt_this_thread(self) -> None:
        """Have no cascade here: this thread must not wait for itself."""
        self.mine.cascade = None

    def are_idle(self) -> bool:
        """Return whether no thread is delivering."""
        with self.lock:
            return all(cascade.event is None for cascade in self._all)

    def take(self) -> list[DomainEvent]:
        """The events that are queued, which are delivered no more. Called under the lock."""
        taken = [event for cascade in self._all for _, event in cascade.queue]
        for cascade in self._all:
            cascade.queue.clear()
        return taken

    def running(self, among: Sequence[DomainEvent] | None = None) -> list[DomainEvent]:
        """The events that are being delivered, if they are ``among`` these. Called under the lock."""
        events = [cascade.event for cascade in self._all if isinstance(cascade.event, DomainEvent)]
        return events if among is None else [event for event in events if any(event is each for each in among)]

    def reset_after_fork(self) -> None:
        """Forget the threads of the parent."""
        self.lock = threading.Lock()
        self._all = WeakSet(filter(None, [self.mine.cascade]))

    def _add(self, cascade: Cascade) -> None:
        with self.lock:
            self._all.add(cascade)
