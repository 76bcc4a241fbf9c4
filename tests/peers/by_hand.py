"""Tiny programs over the libraries alone, without adapter and suite, that show again what the table calls "does not".

A program is called ``LIBRARY_LAW``. It asserts that the library does not, and its first line says what was seen.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from peers.adapters import REDIS

__all__ = ["seen_by_hand"]


class HandlerError(Exception):
    """Raised by a handler."""


def counting(seen: list[object]) -> Callable[..., None]:
    """A handler that notes that it was called."""

    def count(*arguments: object, **__: object) -> None:
        seen.append(arguments)

    return count


def raises(kind: type[BaseException], call: Callable[[], object]) -> bool:
    """Return whether the call raises it."""
    try:
        call()
    except kind:
        return True
    return False


def stops(
    connect: Callable[[Callable[..., Any]], object], send: Callable[[], object], end: type[BaseException]
) -> bool:
    """Connect three handlers that each end like this; return whether the caller got it, and only one was called."""
    called: list[int] = []

    def ending(number: int) -> Callable[..., None]:
        def handle(*_: object, **__: object) -> None:
            called.append(number)
            raise end

        return handle

    for number in range(3):
        connect(ending(number))
    return raises(end, send) and len(called) == 1


def recurses(connect: Callable[[Callable[..., Any]], object], send: Callable[[], object]) -> bool:
    """Connect a handler that sends 1,200 times, each from within the last; return whether the stack overflowed."""
    left = iter(range(1_200))

    def again(*_: object, **__: object) -> None:
        if next(left, None) is not None:
            send()

    connect(again)
    return raises(RecursionError, send)


# -- in the caller's thread -------------------------------------------------------------------------------------------


def _blinker() -> tuple[Callable[[Any], object], Callable[[], Any]]:
    from blinker import Signal

    signal = Signal()
    return lambda handler: signal.connect(handler, weak=False), lambda: signal.send("event")


def _pyee() -> tuple[Callable[[Any], object], Callable[[], Any]]:
    from pyee import EventEmitter

    emitter = EventEmitter()
    return lambda handler: emitter.on("event", handler), lambda: emitter.emit("event", 1)


def _pluggy() -> tuple[Callable[[Any], object], Callable[[], Any]]:
    from pluggy import HookimplMarker, HookspecMarker, PluginManager

    manager = PluginManager("hand")

    def connect(handler: Callable[[], object]) -> None:
        class Plugin:
            @HookspecMarker("hand")
            @HookimplMarker("hand")
            def handle(self) -> object:
                return handler()

        manager.register(Plugin())

    return connect, lambda: manager.hook.handle()


def _lato() -> tuple[Callable[[Any], object], Callable[[], Any]]:
    from lato import Application, Event

    class Happened(Event):
        pass

    application = Application()

    def connect(handler: Callable[[], object]) -> None:
        @application.handler(Happened)
        def handle(event: Happened) -> object:
            return handler()

    return connect, lambda: application.publish(Happened())


def in_the_call(library: Callable[[], Any]) -> Iterator[tuple[str, Callable[[], None]]]:
    def returns() -> None:
        """a handler that returns nothing, and what publishing returned was not None"""
        connect, send = library()
        connect(lambda *_, **__: None)
        assert send() is not None

    def fails() -> None:
        """the first of three handlers raised; the caller got it, and the others were not called"""
        assert stops(*library(), HandlerError)

    def interrupted() -> None:
        """the first of three handlers was interrupted, and the others were not called"""
        assert stops(*library(), KeyboardInterrupt)

    def overflows() -> None:
        """a handler that publishes, 1,200 deep, ended in a RecursionError"""
        assert recurses(*library())

    yield from {"R7": returns, "I1": fails, "I2": fails, "I5": interrupted, "C2": overflows}.items()


def pluggy_R4() -> None:
    """a hook that no plugin had brought was called, and raised AttributeError"""
    from pluggy import PluginManager

    assert raises(AttributeError, lambda: PluginManager("hand").hook.nobody())


# -- on the event loop ------------------------------------------------------------------------------------------------


def pyee_asyncio_R5() -> None:
    """a handler returned an awaitable object that is neither a coroutine nor a future, and it was not awaited"""

    async def main() -> None:
        emitter, seen = _asyncio_emitter(), []

        class Later:
            def __await__(self) -> Any:
                seen.append("awaited")
                yield

        emitter.on("event", Later)
        emitter.emit("event")
        await emitter.wait_for_complete()
        await asyncio.sleep(0.05)
        assert not seen

    asyncio.run(main())


pyee_asyncio_L4 = pyee_asyncio_R5


def pyee_asyncio_R7() -> None:
    """emit returned True"""

    async def main() -> None:
        emitter = _asyncio_emitter()
        emitter.on("event", lambda: None)
        assert emitter.emit("event") is True

    asyncio.run(main())


def pyee_asyncio_I5() -> None:
    """the first of three plain handlers was interrupted, and the others were not called"""

    async def main() -> None:
        emitter = _asyncio_emitter()
        assert stops(lambda handler: emitter.on("event", handler), lambda: emitter.emit("event"), KeyboardInterrupt)

    asyncio.run(main())


def pyee_asyncio_C2() -> None:
    """a plain handler that emits, 1,200 deep, ended in a RecursionError"""

    async def main() -> None:
        from pyee.asyncio import AsyncIOEventEmitter

        emitter, errors = AsyncIOEventEmitter(), []
        emitter.on("error", errors.append)
        overflowed = recurses(lambda handler: emitter.on("event", handler), lambda: emitter.emit("event"))
        assert overflowed or any(isinstance(error, RecursionError) for error in errors)

    asyncio.run(main())


def _asyncio_emitter() -> Any:
    from pyee.asyncio import AsyncIOEventEmitter

    emitter = AsyncIOEventEmitter()
    emitter.on("error", lambda error: None)
    return emitter


def abxbus_R2() -> None:
    """two event classes of one name: the handler of the first was called with the second"""
    import abxbus

    async def main() -> None:
        bus, seen = abxbus.EventBus(), []
        first, second = (type("Placed", (abxbus.BaseEvent,), {"__module__": __name__}) for _ in range(2))

        def handle(event: Any) -> None:
            seen.append(event)

        bus.on(first, handle)
        await bus.emit(second())
        await bus.wait_until_idle()
        assert len(seen) == 1
        await bus.destroy()

    asyncio.run(main())


abxbus_R4 = abxbus_R2


def abxbus_R7() -> None:
    """emit returned the event"""
    import abxbus

    async def main() -> None:
        bus = abxbus.EventBus()
        assert isinstance(bus.emit(type("Placed", (abxbus.BaseEvent,), {"__module__": __name__})()), abxbus.BaseEvent)
        await bus.wait_until_idle()
        await bus.destroy()

    asyncio.run(main())


def abxbus_I5() -> None:
    """the first of two handlers was cancelled, and the other was not called"""
    import abxbus

    async def main() -> None:
        bus, called = abxbus.EventBus(), []
        event = type("Placed", (abxbus.BaseEvent,), {"__module__": __name__})

        async def first(event: Any) -> None:
            called.append(1)
            raise asyncio.CancelledError

        async def second(event: Any) -> None:
            called.append(2)

        bus.on(event, first)
        bus.on(event, second)
        bus.emit(event())
        await asyncio.sleep(0.3)
        assert called == [1]
        await bus.destroy()

    asyncio.run(main())


def abxbus_C1() -> None:
    """emit in another thread than the loop's raised RuntimeError"""
    import abxbus

    async def main() -> None:
        bus = abxbus.EventBus()
        event = type("Placed", (abxbus.BaseEvent,), {"__module__": __name__})()
        assert await asyncio.to_thread(raises, RuntimeError, lambda: bus.emit(event))
        await bus.destroy()

    asyncio.run(main())


def pyventus_R2() -> None:
    """two dataclasses of one name: the subscriber of the first was called with the second"""

    async def main() -> None:
        emitter, linker, service = _pyventus()
        first, second = (dataclass(type("Placed", (), {})) for _ in range(2))
        seen: list[object] = []
        linker.subscribe(first, event_callback=counting(seen))
        emitter.emit(second())
        await service.wait_for_tasks()
        assert len(seen) == 1

    asyncio.run(main())


pyventus_R4 = pyventus_R2


def pyventus_R5() -> None:
    """a plain subscriber returned a coroutine, and it was not awaited"""

    async def main() -> None:
        emitter, linker, service = _pyventus()
        awaited: list[int] = []

        async def later() -> None:
            awaited.append(1)

        linker.subscribe("placed", event_callback=lambda: later())
        emitter.emit("placed")
        await service.wait_for_tasks()
        assert not awaited

    asyncio.run(main())


pyventus_C2 = pyventus_L4 = pyventus_R5


def _pyventus() -> tuple[Any, Any, Any]:
    from pyventus.core.processing.asyncio import AsyncIOProcessingService
    from pyventus.events import EventEmitter, EventLinker

    linker, service = type("Linker", (EventLinker,), {}), AsyncIOProcessingService()
    return EventEmitter(service, linker), linker, service


def fastapi_events_C1() -> None:
    """dispatch in another thread than the loop's raised RuntimeError"""

    async def main() -> None:
        send, local = _fastapi_events()
        local.register(event_name="placed")(counting([]))
        with warnings.catch_warnings(action="ignore"):  # of the coroutine that is left behind
            assert await asyncio.to_thread(raises, RuntimeError, send)

    asyncio.run(main())


def fastapi_events_I2() -> None:
    """the first of three handlers raised, and the others were not called"""

    async def main() -> None:
        send, local = _fastapi_events()
        called: list[int] = []

        async def handle(event: object) -> None:
            called.append(1)
            raise HandlerError

        for _ in range(3):
            local.register(event_name="placed")(handle)
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        send()
        await asyncio.sleep(0.1)
        assert len(called) == 1

    asyncio.run(main())


def fastapi_events_R5() -> None:
    """a plain handler returned a coroutine, and it was not awaited"""

    async def main() -> None:
        send, local = _fastapi_events()
        awaited: list[int] = []

        async def later() -> None:
            awaited.append(1)

        local.register(event_name="placed")(lambda event: later())
        send()
        await asyncio.sleep(0.1)
        assert not awaited

    asyncio.run(main())


fastapi_events_R1 = fastapi_events_R5


def fastapi_events_I5() -> None:
    """the first of three handlers was cancelled, and the others were not called"""

    async def main() -> None:
        send, local = _fastapi_events()
        called: list[int] = []

        async def handle(event: object) -> None:
            called.append(1)
            raise asyncio.CancelledError

        for _ in range(3):
            local.register(event_name="placed")(handle)
        send()
        await asyncio.sleep(0.1)
        assert len(called) == 1

    asyncio.run(main())


def fastapi_events_C2() -> None:
    """a plain handler, which runs in a thread of a pool, dispatched, and got a RuntimeError"""

    async def main() -> None:
        send, local = _fastapi_events()
        refused: list[bool] = []
        local.register(event_name="placed")(lambda event: refused.append(raises(RuntimeError, send)))
        send()
        await asyncio.sleep(0.1)
        assert refused == [True]

    asyncio.run(main())


def _fastapi_events() -> tuple[Callable[[], object], Any]:
    from fastapi_events.dispatcher import dispatch
    from fastapi_events.handlers.local import LocalHandler
    from fastapi_events.middleware import EventHandlerASGIMiddleware

    local = LocalHandler()
    number = id(local)
    EventHandlerASGIMiddleware(None, [local], middleware_id=number)  # type: ignore[arg-type]  # no application is asked
    return lambda: dispatch("placed", {"number": 1}, middleware_id=number), local


# -- over brokers -----------------------------------------------------------------------------------------------------


def dramatiq_R7() -> None:
    """send returned a message"""
    from dramatiq import Message, actor
    from dramatiq.brokers.stub import StubBroker

    assert isinstance(actor(counting([]), actor_name="placed", broker=StubBroker()).send(1), Message)


def dramatiq_R5() -> None:
    """an actor returned a coroutine, and it was not awaited"""
    awaited: list[int] = []

    async def later() -> None:
        awaited.append(1)

    _work_off({"placed": lambda: later()})
    assert not awaited


dramatiq_R1 = dramatiq_R5


def dramatiq_I5() -> None:
    """an async actor was interrupted with KeyboardInterrupt, and no async actor was called after it"""
    called: list[int] = []

    async def interrupted() -> None:
        raise KeyboardInterrupt

    async def placed() -> None:
        called.append(1)

    hook, threading.excepthook = threading.excepthook, lambda _: None  # that of the loop's thread, which ends
    _work_off({"interrupted": interrupted, "placed": placed})
    threading.excepthook = hook
    assert not called


def dramatiq_L4() -> None:
    """a Redis broker was closed, and its connection was still open"""
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=REDIS, namespace=uuid4().hex)
    broker.client.ping()
    broker.close()
    [connection] = broker.client.connection_pool._available_connections
    assert connection._sock is not None
    connection.disconnect()


def _work_off(actors: dict[str, Callable[[], object]]) -> None:
    """Send each actor a message, and give one worker thread half a second for them."""
    from dramatiq import Worker, actor
    from dramatiq.brokers.stub import StubBroker
    from dramatiq.middleware import AsyncIO

    broker = StubBroker()
    broker.add_middleware(AsyncIO())
    for name, call in actors.items():
        actor(call, actor_name=name, broker=broker, max_retries=0).send()
    worker = Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    time.sleep(0.5)  # nothing tells when nothing comes
    worker.stop(timeout=500)


def taskiq_G3() -> None:
    """a message was taken and not acknowledged, and no other receiver had it within ten times the idle_timeout"""
    from taskiq.message import BrokerMessage
    from taskiq_redis import RedisStreamBroker

    async def main() -> None:
        queue = uuid4().hex
        first, second = (RedisStreamBroker(REDIS, queue_name=queue, idle_timeout=200, xread_block=50) for _ in range(2))
        await first.startup()
        await first.kick(BrokerMessage(task_id="1", task_name="placed", message=b"1", labels={}))
        listening = first.listen()
        await anext(listening)
        await listening.aclose()
        await second.startup()
        again = second.listen()
        try:
            async with asyncio.timeout(2):
                raise AssertionError(await anext(again))
        except TimeoutError:
            pass
        for broker in (first, second):
            await broker.shutdown()

    asyncio.run(main())


def taskiq_R7() -> None:
    """kiq returned a task"""
    from taskiq import InMemoryBroker
    from taskiq.task import AsyncTaskiqTask

    async def main() -> None:
        broker = InMemoryBroker()
        task = await broker.register_task(counting([]), task_name="placed").kiq(1)
        assert isinstance(task, AsyncTaskiqTask)
        await broker.wait_all()
        await broker.shutdown()

    asyncio.run(main())


def huey_L4() -> None:
    """its storage was closed, and its connection was still open"""
    from huey import RedisHuey

    queue = RedisHuey(uuid4().hex, url=REDIS, results=False)
    queue.storage.conn.ping()
    queue.storage.close()
    [connection] = queue.storage.pool._available_connections
    assert connection._sock is not None
    connection.disconnect()


def celery_R7() -> None:
    """send_task returned a result to ask for"""
    from celery import Celery
    from celery.result import AsyncResult

    with Celery("hand", broker="memory://", set_as_current=False) as app:
        assert isinstance(app.send_task("placed"), AsyncResult)


def programs(module: str) -> dict[str, Callable[[], None]]:
    """The programs over a library, by law."""
    found = {}
    if library := {"blinker": _blinker, "pyee": _pyee, "pluggy": _pluggy, "lato": _lato}.get(module):
        found.update(in_the_call(library))
    for name, thing in globals().items():
        if re.fullmatch(rf"{module}_[A-Z]\d", name) and inspect.isfunction(thing):
            found[name[-2:]] = thing
    return found


def seen_by_hand(module: str) -> dict[str, str]:
    """Run the programs over a library, and return what each saw, by law."""
    seen = {}
    for law, program in programs(module).items():
        program()
        seen[law] = f"{program.__doc__}."
    return seen
