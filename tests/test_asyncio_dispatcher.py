"""What the asyncio dispatcher does that the contract cannot see."""

import asyncio
import gc
import threading
from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import AsyncMock, Mock

import pytest

from eventpact.domain.dispatcher import DispatcherClosedError, DispatchError, FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher


@dataclass(frozen=True, kw_only=True)
class Counted(DomainEvent):
    number: int = 0


class Gate:
    """An async handler that waits to be let through."""

    def __init__(self) -> None:
        self.entered, self.release = asyncio.Event(), asyncio.Event()

    async def handle(self, event: DomainEvent) -> None:
        self.entered.set()
        await self.release.wait()


class PlainGate:
    """A plain handler that waits to be let through."""

    def __init__(self) -> None:
        self.entered, self.release = threading.Event(), threading.Event()

    def handle(self, event: DomainEvent) -> None:
        self.entered.set()
        assert self.release.wait(10)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_dispatch_returns_before_the_handler_has_run() -> None:
    handler = AsyncMock()
    dispatcher = AsyncioEventDispatcher({Counted: handler})
    event = Counted()
    dispatcher.dispatch(event)
    handler.handle.assert_not_awaited()
    assert await dispatcher.aclose() == ()
    handler.handle.assert_awaited_once_with(event)


async def test_a_plain_handler_does_not_block_the_loop_and_may_return_an_awaitable() -> None:
    threads: list[threading.Thread] = []

    async def rest() -> None:
        threads.append(threading.current_thread())

    def handle(event: DomainEvent) -> object:
        threads.append(threading.current_thread())
        return rest()

    dispatcher = AsyncioEventDispatcher({Counted: Mock(handle=handle)})
    dispatcher.dispatch(Counted())
    assert await dispatcher.aclose() == ()
    assert threads[0] is not threading.current_thread()
    assert threads[1] is threading.current_thread()


async def test_any_thread_may_dispatch() -> None:
    handler = AsyncMock()
    dispatcher = AsyncioEventDispatcher({Counted: handler})
    events = [Counted(number=number) for number in range(50)]
    await asyncio.gather(*(asyncio.to_thread(dispatcher.dispatch, event) for event in events))
    assert await dispatcher.aclose() == ()
    assert {call.args[0].number for call in handler.handle.await_args_list} == set(range(50))


def test_without_a_loop_it_refuses_and_says_what_to_do() -> None:
    handler = Mock()
    with pytest.raises(DispatchError, match="inside the loop"):
        AsyncioEventDispatcher({Counted: handler}).dispatch(Counted())
    handler.handle.assert_not_called()


def test_when_its_loop_is_closed_it_refuses_and_says_what_to_do() -> None:
    async def build() -> AsyncioEventDispatcher:
        return AsyncioEventDispatcher({Counted: AsyncMock()})

    dispatcher = asyncio.run(build())
    with pytest.raises(DispatchError, match="build another"):
        dispatcher.dispatch(Counted())


def test_what_a_loop_cancels_when_it_ends_is_reported_not_lost() -> None:
    failures: list[FailedDelivery] = []

    async def forget_to_close() -> None:
        gate = Gate()
        AsyncioEventDispatcher({Counted: gate}, on_failure=failures.append).dispatch(Counted())
        await gate.entered.wait()

    asyncio.run(forget_to_close())
    assert [type(failure.exception) for failure in failures] == [asyncio.CancelledError]


async def test_pending_deliveries_survive_a_garbage_collection() -> None:
    gate = Gate()
    dispatcher = AsyncioEventDispatcher({Counted: gate})
    dispatcher.dispatch(Counted())
    await gate.entered.wait()
    gc.collect()
    gate.release.set()
    assert await dispatcher.aclose() == ()


async def test_it_refuses_when_full_all_handlers_or_none() -> None:
    first, second = Gate(), Gate()
    dispatcher = AsyncioEventDispatcher({Counted: [first, second]}, max_pending=3)
    dispatcher.dispatch(Counted())
    with pytest.raises(DispatchError, match="max_pending"):
        dispatcher.dispatch(Counted())
    with pytest.raises(DispatchError, match="max_pending"):
        await asyncio.to_thread(dispatcher.dispatch, Counted())
    first.release.set()
    second.release.set()
    assert await dispatcher.aclose() == ()


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks are new in Python 3.12")
async def test_under_an_eager_task_factory_a_deep_cascade_does_not_use_the_callers_stack() -> None:
    seen = []

    class Deeper:
        async def handle(self, event: Counted) -> None:
            seen.append(event.number)
            if event.number < 3000:
                dispatcher.dispatch(Counted(number=event.number + 1))

    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    dispatcher = AsyncioEventDispatcher({Counted: Deeper()})
    dispatcher.dispatch(Counted())
    await until(lambda: len(seen) == 3001)
    assert await dispatcher.aclose() == ()


async def test_closing_cancels_what_outlives_the_deadline_and_returns_it() -> None:
    gate, plain = Gate(), PlainGate()
    failures = Mock()
    dispatcher = AsyncioEventDispatcher({Counted: [gate, plain]}, on_failure=failures, max_threads=1)
    event, queued = Counted(), Counted(number=1)
    dispatcher.dispatch(event)
    assert await asyncio.to_thread(plain.entered.wait, 5)
    dispatcher.dispatch(queued)
    assert set(await dispatcher.aclose(timeout=0)) == {event, queued}
    failures.assert_not_called()
    plain.release.set()


async def test_a_handler_that_ends_badly_while_it_is_given_up_counts_as_failed() -> None:
    failures: list[FailedDelivery] = []

    class Stubborn:
        async def handle(self, event: DomainEvent) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ValueError from None

    dispatcher = AsyncioEventDispatcher({Counted: Stubborn()}, on_failure=failures.append)
    dispatcher.dispatch(Counted())
    assert await dispatcher.aclose(timeout=0.01) == ()
    assert [type(failure.exception) for failure in failures] == [ValueError]


async def test_it_can_be_closed_from_another_loop() -> None:
    handler = AsyncMock()
    dispatcher = AsyncioEventDispatcher({Counted: handler})
    dispatcher.dispatch(Counted())
    assert await asyncio.to_thread(lambda: asyncio.run(dispatcher.aclose())) == ()
    handler.handle.assert_awaited_once()


async def test_a_handler_may_close_the_dispatcher_that_runs_it() -> None:
    left: list[tuple[DomainEvent, ...]] = []

    class Closer:
        async def handle(self, event: DomainEvent) -> None:
            left.append(await dispatcher.aclose(timeout=5))

    event = Counted()
    dispatcher = AsyncioEventDispatcher({Counted: Closer()})
    dispatcher.dispatch(event)
    await until(lambda: left)
    assert left == [(event,)]


async def test_every_exception_of_a_plain_handler_is_reported() -> None:
    for exception in (StopIteration(), KeyboardInterrupt(), SystemExit(1), ValueError()):
        failures: list[FailedDelivery] = []
        handler = Mock()
        handler.handle.side_effect = [exception] if not isinstance(exception, StopIteration) else []
        dispatcher = AsyncioEventDispatcher({Counted: handler}, on_failure=failures.append)
        dispatcher.dispatch(Counted())
        assert await dispatcher.aclose() == ()
        assert [type(failure.exception) for failure in failures] == [type(exception)]


async def test_a_closed_dispatcher_refuses() -> None:
    dispatcher = AsyncioEventDispatcher({Counted: AsyncMock()})
    await dispatcher.aclose()
    with pytest.raises(DispatcherClosedError):
        dispatcher.dispatch(Counted())
