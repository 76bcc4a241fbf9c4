"""A dispatcher that is built before a fork works in the child, and in the parent as before."""

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from eventpact.domain.dispatcher import EventDispatcher
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@dataclass(frozen=True, kw_only=True)
class Counted(DomainEvent):
    number: int = 0


class Plain:
    def __init__(self) -> None:
        self.numbers: list[int] = []

    def handle(self, event: Counted) -> None:
        self.numbers.append(event.number)


class Async(Plain):
    async def handle(self, event: Counted) -> None:  # type: ignore[override]  # both kinds are handlers
        self.numbers.append(event.number)


class Gate:
    """A handler that waits to be let through, unless the event has a number."""

    def __init__(self) -> None:
        self.entered, self.release = threading.Event(), threading.Event()

    def handle(self, event: Counted) -> None:
        if not event.number:
            self.entered.set()
            assert self.release.wait(10)


def in_child(check: Callable[[], bool]) -> None:
    """Fork; the child is over within 10 s, and what it checked was true."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal_alarm(10)
            status = 0 if check() else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def signal_alarm(seconds: int) -> None:
    import signal

    signal.alarm(seconds)


def test_the_blocking_dispatcher_works_in_a_child_and_waits_for_no_thread_of_its_parent() -> None:
    plain, coroutine, gate = Plain(), Async(), Gate()
    dispatcher = SyncEventDispatcher({Counted: [gate, plain, coroutine]})
    dispatcher.dispatch(Counted(number=1))
    busy = threading.Thread(target=dispatcher.dispatch, args=(Counted(),))
    busy.start()
    assert gate.entered.wait(5)

    def check() -> bool:
        dispatcher.dispatch(Counted(number=2))
        return plain.numbers == coroutine.numbers == [1, 2] and asyncio.run(dispatcher.aclose(5)) == ()

    in_child(check)
    gate.release.set()
    busy.join(5)
    dispatcher.dispatch(Counted(number=3))
    assert plain.numbers == coroutine.numbers == [1, 0, 3]
    assert asyncio.run(dispatcher.aclose()) == ()


def fresh(handlers: list[object]) -> EventDispatcher:
    return AsyncioEventDispatcher({Counted: handlers})


def used(handlers: list[object]) -> EventDispatcher:
    async def use() -> EventDispatcher:
        dispatcher = fresh(handlers)
        dispatcher.dispatch(Counted(number=1))
        while not all(handler.numbers for handler in handlers):  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        return dispatcher

    return asyncio.run(use())


@pytest.mark.parametrize("build", [fresh, used])
def test_the_asyncio_dispatcher_finds_a_home_of_its_own_in_a_child(
    build: Callable[[list[object]], EventDispatcher],
) -> None:
    handlers = [Plain(), Async()]
    dispatcher = build([*handlers])
    for handler in handlers:
        handler.numbers.clear()

    async def use() -> bool:
        dispatcher.dispatch(Counted(number=2))
        left = await dispatcher.aclose(5)
        return left == () and all(handler.numbers == [2] for handler in handlers)

    in_child(lambda: asyncio.run(use()))
    assert [handler.numbers for handler in handlers] == [[], []]
    asyncio.run(dispatcher.aclose())


def test_a_child_leaves_what_is_pending_to_its_parent() -> None:
    handler, failures = Async(), list[object]()

    async def use() -> None:
        dispatcher = AsyncioEventDispatcher({Counted: handler}, on_failure=failures.append)
        event = Counted(number=1)
        dispatcher.dispatch(event)

        def check() -> bool:
            done = threading.Thread(target=lambda: left.append(asyncio.run(dispatcher.aclose(1))))
            done.start()
            done.join(5)
            return left == [()]

        left: list[object] = []
        in_child(check)
        assert await dispatcher.aclose(5) == ()

    asyncio.run(use())
    assert handler.numbers == [1]
    assert failures == []
