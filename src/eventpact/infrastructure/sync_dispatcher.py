"""The blocking dispatcher: handlers run in the caller's thread, before ``dispatch`` returns."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakSet

from eventpact.domain.dispatcher import (
    Delivery,
    DispatcherClosedError,
    DispatchError,
    EventDispatcher,
    FailedDelivery,
    FailureSink,
    Guarantees,
    Handlers,
    Ordering,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import FailureReporter, undelivered
from eventpact.infrastructure.dispatching.loop_thread import LoopThread
from eventpact.infrastructure.dispatching.subscriptions import Subscription, SubscriptionTable
from eventpact.infrastructure.monitoring.logs import about

__all__ = ["SyncEventDispatcher"]

_log = logging.getLogger("eventpact")

_GRACE: Final = 0.5
"""Seconds past the deadline in which a running handler may still end (law L1 allows 1)."""

_SETTLED: Final = object()


@dataclass(slots=True, eq=False)
class _Cascade:
    """What the handlers of one outermost ``dispatch`` dispatched in turn."""

    queue: deque[DomainEvent] = field(default_factory=deque)
    open: bool = True
    interruption: BaseException | None = None


_cascade_of_task: ContextVar[_Cascade | None] = ContextVar("eventpact_cascade", default=None)


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Turn:
    """What one thread is doing.

    Attributes:
        event: what it is delivering; None where it is not inside of ``dispatch``.
        cascade: what else that has brought about, if anything.
    """

    event: object = None
    cascade: _Cascade | None = None


class _Turns(threading.local):
    """The turn of each thread, which takes half as long to find as an entry of a dict would to make and delete."""

    def __init__(self, add: Callable[[_Turn], object]) -> None:
        # Called once in each thread.
        self.mine = _Turn()
        add(self.mine)


class SyncEventDispatcher(EventDispatcher):
    """Calls each handler in turn, in the thread that dispatches; when ``dispatch`` returns, everything is settled.

    An event that a handler dispatches is queued behind the one being handled (breadth first). An ``async def`` handler
    is awaited on one loop in a background thread while the caller waits, so a caller on an event loop blocks that loop.
    ``KeyboardInterrupt`` and ``SystemExit`` of a handler are reported as its failure, and raised again once the other
    handlers had their turn (law I5). Nothing survives a crash.

    Args:
        handlers: event types, each with a handler or a sequence of handlers.
        on_failure: the failure sink; the log where it is not given. Called in the thread that dispatched.

    Raises:
        RegistrationError: ``handlers`` is impossible (law A4).
    """

    guarantees = Guarantees(blocks_caller=True, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        self._table = SubscriptionTable(handlers)
        self._failures = FailureReporter(on_failure)
        # Lists, because clearing one stops a loop over it: that is how handlers which had no turn yet are given up.
        self._lists = {event_type: list(route) for event_type, route in self._table.items()}
        # What to call for each type: its only handler, without a detour. Emptied when closing begins, so that an open
        # dispatcher pays nothing for that check.
        self._routes: dict[type[DomainEvent], Callable[[DomainEvent], Awaitable[None] | None]] = {
            event_type: route[0].handle if len(route) == 1 else self._fan_out
            for event_type, route in self._table.items()
        }
        self._lock = threading.Lock()
        # Those of threads that have ended are not in it any more.
        self._turns: WeakSet[_Turn] = WeakSet()
        self._turn = _Turns(self._add_turn)
        self._loop = LoopThread(on_start=self._adopt_loop_thread)
        self._loop_turn: _Turn | None = None
        self._closing = False
        self._given_up = False
        self._abandoned = False
        self._undelivered: list[DomainEvent] = []
        self._wake_closer: Callable[[], object] | None = None

    def dispatch(self, event: DomainEvent) -> None:
        """Deliver ``event`` to each of its handlers, and whatever they dispatch to theirs.

        Raises:
            TypeError: ``event`` is not a :class:`DomainEvent` (law A1).
            DispatcherClosedError: closing has begun (law A3).
            DispatchError: called on the thread of the async handlers, by a task that outlived its handler.
            KeyboardInterrupt, SystemExit: a handler raised it (law I5).
        """
        turn = self._turn.mine
        if turn.event is not None:
            self._enqueue(turn, event)
            return
        turn.event = event
        try:
            try:
                deliver = self._routes[event.__class__]
            except KeyError:
                self._unrouted(event)
                return
            try:
                result = deliver(event)
                if result is not None:
                    self._finish(turn, result)
            except BaseException as exception:  # noqa: BLE001 - reported, and raised again if it interrupts
                self._failed(turn, event, self._table[event.__class__][0], exception)
            if turn.cascade is not None:
                self._drain(turn, turn.cascade)
        finally:
            turn.event = None
            if self._closing:
                self._wake()

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        """Refuse new events, wait for the threads that are dispatching, and return what they had to give up."""
        with self._lock:
            if self._closing:
                return ()
            self._closing = True
            self._routes = {}
            settled = asyncio.Event()
            self._wake_closer = _waker(settled)
        try:
            if not await self._idle(settled, timeout):
                self._give_up()
                await self._idle(settled, _GRACE)
        finally:
            left = self._abandon()
            self._loop.close(timeout=0.1)
        return left

    def _unrouted(self, event: DomainEvent) -> None:
        self._table.route(event)
        if self._closing:
            raise DispatcherClosedError(f"{type(event).__name__} was refused: the dispatcher is closed")

    def _enqueue(self, turn: _Turn, event: DomainEvent) -> None:
        """Queue what a handler dispatches behind what its cascade is delivering."""
        route = self._table.route(event)
        with self._lock:
            if self._closing:
                raise DispatcherClosedError(f"{type(event).__name__} was refused: the dispatcher is closing")
            if turn is self._loop_turn:
                cascade = _cascade_of_task.get()
                if cascade is None or not cascade.open:
                    raise DispatchError(
                        f"{type(event).__name__} was refused: delivering it would block the loop of the async handlers;"
                        " dispatch before the handler returns, or through asyncio.to_thread"
                    )
            else:
                cascade = turn.cascade = turn.cascade or _Cascade()
            if route:
                cascade.queue.append(event)

    def _fan_out(self, event: DomainEvent) -> None:
        """Call each handler in turn."""
        turn = self._turn.mine
        subscription = None
        for subscription in self._lists[type(event)]:
            try:
                result = subscription.handle(event)
                if result is not None:
                    self._finish(turn, result)
            except BaseException as exception:  # noqa: BLE001 - reported, and raised again if it interrupts
                self._failed(turn, event, subscription, exception)
        if self._given_up:
            self._give_up_rest(event, subscription)

    def _drain(self, turn: _Turn, cascade: _Cascade) -> None:
        while True:
            with self._lock:
                if not cascade.queue:
                    cascade.open = False
                    turn.cascade = None
                    break
                event = cascade.queue.popleft()
                turn.event = event
            self._fan_out(event)
        if cascade.interruption is not None:
            raise cascade.interruption

    def _finish(self, turn: _Turn, result: Awaitable[None]) -> None:
        """Await what an ``async def`` handler returned; anything else that a handler returns means nothing."""
        if not inspect.isawaitable(result):
            return
        with self._lock:
            turn.cascade = turn.cascade or _Cascade()
        token = _cascade_of_task.set(turn.cascade)
        try:
            self._loop.run(result)
        finally:
            _cascade_of_task.reset(token)

    def _failed(self, turn: _Turn, event: DomainEvent, subscription: Subscription, exception: BaseException) -> None:
        with self._lock:
            if isinstance(exception, (KeyboardInterrupt, SystemExit)):
                turn.cascade = turn.cascade or _Cascade()
                turn.cascade.interruption = exception
            cancelled = self._given_up and isinstance(exception, asyncio.CancelledError)
            if cancelled:
                self._undelivered.append(event)
            elif not self._abandoned and subscription is self._table[type(event)][-1]:
                turn.event = _SETTLED  # a closer that looks now must not count it as undelivered
        if cancelled or self._abandoned:
            name = type(event).__name__
            _log.warning(
                "%s %s was given up while it was handled",
                name,
                event.event_id,
                extra=about(name, event.event_id, subscription.key),
            )
        else:
            try:
                self._failures.report(FailedDelivery(event, subscription.handler, exception, attempts=1))
            except BaseException as interruption:  # noqa: BLE001 - raised again once the others had their turn
                turn.cascade = turn.cascade or _Cascade()
                turn.cascade.interruption = interruption

    def _give_up_rest(self, event: DomainEvent, last: Subscription | None) -> None:
        """Remember ``event`` as undelivered if handlers behind ``last``, the last that had a turn, had none."""
        with self._lock:
            if last is not self._table[type(event)][-1]:
                self._undelivered.append(event)

    def _add_turn(self, turn: _Turn) -> None:
        with self._lock:
            self._turns.add(turn)

    def _adopt_loop_thread(self) -> None:
        self._loop_turn = self._turn.mine
        self._loop_turn.event = _SETTLED  # its dispatches are never outermost

    def _running(self) -> list[object]:
        """The events that threads are delivering."""
        with self._lock:
            return [turn.event for turn in self._turns if turn.event is not None and turn is not self._loop_turn]

    def _wake(self) -> None:
        with self._lock:
            if self._wake_closer is not None:
                self._wake_closer()

    async def _idle(self, settled: asyncio.Event, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                while self._running():
                    await settled.wait()
                    settled.clear()
        except TimeoutError:
            return False
        return True

    def _give_up(self) -> None:
        """Start no further delivery, and cancel the async handlers that are running."""
        with self._lock:
            self._given_up = True
            for route in self._lists.values():
                route.clear()
            for turn in self._turns:
                if turn.cascade is not None:
                    self._undelivered.extend(turn.cascade.queue)
                    turn.cascade.queue.clear()
        self._loop.cancel_all()

    def _abandon(self) -> tuple[DomainEvent, ...]:
        """The undelivered, each once. What a handler still does after this no longer counts."""
        with self._lock:
            self._abandoned = True
            self._wake_closer = None
            running = [turn.event for turn in self._turns if isinstance(turn.event, DomainEvent)]
        return undelivered((*self._undelivered, *running))


def _waker(settled: asyncio.Event) -> Callable[[], object]:
    loop = asyncio.get_running_loop()
    return lambda: loop.call_soon_threadsafe(settled.set)
