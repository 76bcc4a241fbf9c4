"""One adapter a library, of at most 30 lines, which adds nothing to what the library does.

An adapter registers the handlers and publishes the events as the library's documentation shows it, returns what that
returns, and lets through what it raises. Its guarantees are those that the library's documentation claims.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, ClassVar
from uuid import uuid4

from eventpact.domain.dispatcher import Delivery, EventDispatcher, FailureSink, Guarantees, Handlers, Ordering
from eventpact.domain.events import DomainEvent

__all__ = [
    "AT_LEAST_ONCE",
    "AT_LEAST_ONCE_WITH_RETRIES",
    "IN_A_LOOP",
    "IN_A_LOOP_IN_ORDER",
    "IN_THE_CALL",
    "REDIS",
    "BrokerPeer",
    "Peer",
    "ThreadLoop",
    "function",
    "wire_name",
]

REDIS = os.environ.get("EVENTPACT_TEST_REDIS", "redis://127.0.0.1:6379/8")

IN_THE_CALL = Guarantees(blocks_caller=True, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO)
IN_A_LOOP = Guarantees(blocks_caller=False, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.NONE)
IN_A_LOOP_IN_ORDER = replace(IN_A_LOOP, ordering=Ordering.FIFO)
AT_LEAST_ONCE = replace(IN_A_LOOP, delivery=Delivery.AT_LEAST_ONCE)
AT_LEAST_ONCE_WITH_RETRIES = replace(AT_LEAST_ONCE, retries=2)


class Peer(EventDispatcher):
    """A library as a dispatcher, for the suite."""

    settle_timeout: ClassVar[float] = 1.5
    async_handlers: ClassVar[bool] = True
    needs_loop: ClassVar[bool] = False

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:  # no library has such a sink
        self.open()
        for kind, given in handlers.items():
            for handler in given if type(given) in (list, tuple) else [given]:
                self.subscribe(kind, handler)

    def open(self) -> None:
        """Make the library's bus."""

    def subscribe(self, kind: type[DomainEvent], handler: Any) -> None:
        """Register one handler, as the library's documentation does."""
        raise NotImplementedError

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        """Do nothing: for libraries that have nothing to close."""
        return ()


class BrokerPeer(Peer):
    """A task queue as a dispatcher: it has no event types, so one task a handler is sent for each event.

    Attributes:
        queue: a queue of its own, and the same one for processes that law G3 kills and starts again.
    """

    settle_timeout = 5.0
    engine_outlives_dispatcher = True
    _SHARED = "EVENTPACT_PEERS_QUEUE"

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        self.queue = os.environ.get(self._SHARED, f"peers-{uuid4().hex}")
        self.sends: dict[type[DomainEvent], list[Callable[[dict[str, Any]], Any]]] = {}
        super().__init__(handlers, on_failure)
        self.start()

    @classmethod
    @contextmanager
    def engine(cls) -> Generator[None]:
        """Name the queue of the processes that are started within."""
        os.environ[cls._SHARED] = f"peers-{uuid4().hex}"
        yield
        del os.environ[cls._SHARED]

    def subscribe(self, kind: type[DomainEvent], handler: Any) -> None:
        several = self.sends.setdefault(kind, [])
        several.append(self.task(f"{wire_name(kind)}.{len(several)}", function(handler, kind.from_dict)))

    def dispatch(self, event: DomainEvent) -> Any:
        sent = [send(event.to_dict()) for send in self.sends.get(type(event), [])]
        return sent[-1] if sent else None

    def task(self, name: str, handle: Callable[[Any], Any]) -> Callable[[dict[str, Any]], Any]:
        """Define a task that calls the function with an event's ``to_dict()``, and return what sends it."""
        raise NotImplementedError

    def start(self) -> None:
        """Start a worker in this process."""
        raise NotImplementedError


def function(handler: Any, open_: Callable[[Any], DomainEvent] = lambda event: event) -> Callable[[Any], Any]:
    """A function that calls the handler, for libraries that take none but functions; ``open_`` finds the event."""

    async def handle_async(event: Any) -> Any:
        return await handler.handle(open_(event))

    def handle(event: Any) -> Any:
        return handler.handle(open_(event))

    return handle_async if inspect.iscoroutinefunction(handler.handle) else handle


class ThreadLoop:
    """An event loop in a thread, for libraries that can only be awaited."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stopping = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping:
            with suppress(KeyboardInterrupt, SystemExit):  # a task's, after which a library starts its worker again
                self._loop.run_forever()

    def submit(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self, last: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Cancel what still runs, run a last coroutine, and stop."""

        async def end() -> None:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await last()

        if not self._loop.is_closed():
            self.submit(end()).result()
            self._stopping = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


def wire_name(kind: type[DomainEvent]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
