"""The fire-and-forget dispatcher: handlers run as tasks of the event loop, after ``dispatch`` has returned."""

import asyncio
import inspect
import logging
import threading
from asyncio import _get_running_loop as _running_loop  # None where no loop runs, without an exception
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any, ClassVar, NamedTuple

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
from eventpact.infrastructure.dispatching.failures import FailureReporter, is_a, undelivered
from eventpact.infrastructure.dispatching.registration import check_range
from eventpact.infrastructure.dispatching.subscriptions import (
    Subscription,
    SubscriptionTable,
    close_unawaited,
    must_await,
)
from eventpact.infrastructure.dispatching.threads import GRACE_SECONDS, Settling, reset_in_children

__all__ = ["AsyncioEventDispatcher"]

_log = logging.getLogger("eventpact")

_Delivery = tuple[DomainEvent, Subscription]


class _Raised(NamedTuple):
    """The exception of a plain handler: returned, since a future cannot carry every exception (StopIteration, say)."""

    exception: BaseException


class AsyncioEventDispatcher(EventDispatcher):
    """Starts a task for each delivery on one event loop, its home, and returns at once.

    Its home is the loop that it is built on or, failing that, the first that it is dispatched on. Any other thread may
    dispatch too. A plain ``handle`` runs in a thread of its own pool, so that it does not block the loop. The order in
    which deliveries run is not promised. Nothing survives a crash, or a loop that ends without :meth:`aclose`.

    Args:
        handlers: event types, each with a handler, or a list or tuple of handlers.
        on_failure: the failure sink; the log where it is not given. Called on the loop, so it must not block for long.
        max_pending: how many deliveries may be unsettled before ``dispatch`` refuses.
        max_threads: how many plain handlers may run at once.

    Raises:
        RegistrationError: an argument is impossible (law A4).
    """

    needs_loop: ClassVar[bool] = True
    """Built where a loop runs, it can be dispatched to from any thread at once; the contract suite does so."""

    guarantees: Guarantees = Guarantees(
        blocks_caller=False, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.NONE
    )

    def __init__(
        self,
        handlers: Handlers,
        *,
        on_failure: FailureSink | None = None,
        max_pending: int = 10_000,
        max_threads: int = 32,
    ) -> None:
        self._table = SubscriptionTable(handlers)
        self._routes = dict(self._table)
        self._failures = FailureReporter(on_failure)
        check_range("max_pending", max_pending, (int,), max([1, *map(len, self._routes.values())]))  # or it takes none
        check_range("max_threads", max_threads, (int,), 1)
        self._max_pending = max_pending
        self._max_threads = max_threads
        self._undelivered: list[DomainEvent] = []
        self._closing = False
        self._given_up = False
        self._settling: Settling | None = None
        self._home = _running_loop()
        self._begin()
        reset_in_children(self)

    def _begin(self) -> None:
        """Hold nothing yet."""
        self._lock = threading.RLock()
        self._executor = ThreadPoolExecutor(self._max_threads, thread_name_prefix="eventpact-handler")
        # The strong reference that keeps a task from vanishing in a garbage collection, and its delivery.
        self._pending: dict[asyncio.Future[Any], _Delivery] = {}
        # Accepted on another thread, whose context the handler runs in, and not yet seen by the loop.
        self._inbox: deque[tuple[Context, _Delivery]] = deque()

    def reset_after_fork(self) -> None:
        """Leave pending deliveries to the parent, and its loop: the first dispatch in the child finds another home."""
        self._home = None
        self._begin()

    def dispatch(self, event: DomainEvent) -> None:
        """Accept ``event`` and return; its handlers run when the loop gets to them.

        Raises:
            TypeError, DispatcherClosedError: as every dispatcher (laws A1, A3).
            DispatchError: ``max_pending`` deliveries are unsettled, or there is no running loop (law A5).
        """
        route = self._routes.get(type(event)) or self._table.route(event)
        running = _running_loop()
        with self._lock:
            if self._closing:
                raise DispatcherClosedError(f"{type(event).__name__} was refused: the dispatcher is closed")
            if not route:
                return
            home = self._home
            if home is None:
                if running is None:
                    raise DispatchError(
                        f"{type(event).__name__} was refused: there is no running event loop; build the dispatcher, or"
                        " dispatch for the first time, inside the loop that is to run the handlers"
                    )
                home = self._home = running
            if len(self._pending) + len(self._inbox) + len(route) > self._max_pending:
                raise DispatchError(
                    f"{type(event).__name__} was refused: {self._max_pending} deliveries may be pending; dispatch it"
                    " again later, or raise max_pending"
                )
            if running is home:
                for subscription in route:
                    self._start((event, subscription))
            else:
                self._post(event, route, home)

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        """Refuse new events, wait for pending deliveries, cancel the rest, and return its events.

        A plain handler cannot be cancelled: one that outlives the deadline counts as undelivered, and its thread ends
        when it does.
        """
        with self._lock:
            if self._closing:
                return ()
            self._closing = True
            home = self._home
        if home is None or home is _running_loop():
            return await self._close(timeout)
        if home.is_running():
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._close(timeout), home))
        if home.is_closed():
            return self._abandon()
        self._give_up()  # the loop stands still, and must not go on with these should it run again
        return self._abandon()

    def _post(self, event: DomainEvent, route: tuple[Subscription, ...], home: asyncio.AbstractEventLoop) -> None:
        """Leave the deliveries where the loop finds them, which is in another thread."""
        refusal = f"{type(event).__name__} was refused: the event loop of the dispatcher does not run"
        if not home.is_running():
            raise DispatchError(f"{refusal}; dispatch while it does, or build another where one runs")
        try:
            home.call_soon_threadsafe(self._start_posted)
        except RuntimeError as error:
            raise DispatchError(f"{refusal} any more; build another where one runs") from error
        # The loop cannot look before the lock is released.
        self._inbox.extend((copy_context(), (event, subscription)) for subscription in route)

    def _start_posted(self) -> None:
        with self._lock:
            while self._inbox:
                context, delivery = self._inbox.popleft()
                context.run(self._start, delivery)

    def _start(self, delivery: _Delivery) -> None:
        event, subscription = delivery
        future: asyncio.Future[Any]
        if subscription.is_async:
            # Not loop.create_task: under an eager task factory a deep cascade would run on the caller's stack.
            future = asyncio.Task(subscription.handle(event), loop=self._home)  # type: ignore[arg-type]
        else:
            assert self._home is not None
            future = self._home.run_in_executor(
                self._executor, copy_context().run, self._call, subscription.handle, event
            )
        self._pending[future] = delivery
        future.add_done_callback(self._done)

    def _call(self, handle: Callable[[DomainEvent], object], event: DomainEvent) -> object:
        """Run a plain handler, in a thread."""
        try:
            result = handle(event)
        except BaseException as exception:  # noqa: BLE001 - becomes the delivery's failure on the loop
            return _Raised(exception)
        if self._given_up and inspect.isawaitable(result):  # the loop that would await it may be gone
            return _Raised(_drop(result))
        return result

    def _done(self, future: asyncio.Future[Any]) -> None:
        delivery = self._pending.pop(future, None)
        exception = result = None
        try:
            result = future.result()
        except BaseException as raised:  # noqa: BLE001 - becomes the delivery's failure
            exception = raised
        if delivery is None:
            _drop(result)
            _log.warning("a handler ended after it was given up")
        elif exception is not None or result is not None:
            self._ended(future, delivery, exception, result)
        if self._settling is not None:
            self._settling.notify()

    def _ended(
        self, future: asyncio.Future[Any], delivery: _Delivery, exception: BaseException | None, result: object
    ) -> None:
        """A delivery that is not simply over."""
        event, subscription = delivery
        if isinstance(result, _Raised):
            exception = result.exception
        elif exception is None and not isinstance(future, asyncio.Task):
            try:
                if not must_await(result):
                    pass
                elif self._given_up:
                    exception = _drop(result)
                else:  # a plain handle that returned a coroutine
                    task = asyncio.Task(_awaited(result), loop=self._home)
                    self._pending[task] = delivery
                    task.add_done_callback(self._done)
                    task.add_done_callback(lambda _: close_unawaited(result))  # where it is cancelled before it begins
            except TypeError as error:
                exception = error
        if self._given_up and exception is not None and is_a(exception, asyncio.CancelledError):
            self._undelivered.append(event)
        elif exception is not None:
            self._failures.report(FailedDelivery(event, subscription.handler, exception, attempts=1))

    async def _close(self, timeout: float) -> tuple[DomainEvent, ...]:
        self._start_posted()
        self._settling = settling = Settling()
        own = 1 if asyncio.current_task() in self._pending else 0  # a handler that closes cannot await its own end
        try:
            if not await settling.until(lambda: len(self._pending) <= own, timeout):
                self._give_up()
                await settling.until(lambda: len(self._pending) <= own, GRACE_SECONDS)
        except asyncio.CancelledError:
            self._give_up()  # nobody would be told how they ended
            raise
        finally:
            left = self._abandon()
        return left

    def _give_up(self) -> None:
        """Cancel the async handlers, and the plain ones that have no thread yet."""
        self._given_up = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        for future in self._pending:
            if isinstance(future, asyncio.Task) and future is not asyncio.current_task():
                future.cancel()

    def _abandon(self) -> tuple[DomainEvent, ...]:
        """The undelivered, each once. Nothing that a handler does afterwards counts."""
        self._given_up = True
        left = [event for event, _ in (*self._pending.values(), *(delivery for _, delivery in self._inbox))]
        self._executor.shutdown(wait=not left, cancel_futures=True)
        self._pending.clear()
        self._inbox.clear()
        return undelivered((*self._undelivered, *left))


def _drop(result: object) -> asyncio.CancelledError:
    """Close an awaitable that is never to run, and say that it was cut off."""
    close_unawaited(result)
    return asyncio.CancelledError()


async def _awaited(awaitable: Awaitable[None]) -> None:
    await awaitable
