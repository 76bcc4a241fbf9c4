"""What the asyncio dispatcher does that the contract cannot see."""

import asyncio
import gc
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from support.waiting import until_in_loop

from eventpact.domain.dispatcher import DispatcherClosedError, DispatchError, FailedDelivery, RegistrationError
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable, recorded


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
        self.ended = False

    def handle(self, event: DomainEvent) -> None:
        self.entered.set()
        try:
            assert self.release.wait(10)
        finally:
            self.ended = True


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


async def test_what_another_thread_dispatches_is_handled_without_anything_else_to_wake_the_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain, coroutine = PlainGate(), Gate()
    dispatcher = AsyncioEventDispatcher({Counted: [plain, coroutine]})
    await asyncio.to_thread(dispatcher.dispatch, Counted())
    await coroutine.entered.wait()
    coroutine.release.set()
    plain.release.set()
    await until_in_loop(lambda: plain.ended)
    assert await dispatcher.aclose() == ()
    assert caplog.messages == []


async def test_what_the_loop_has_not_seen_yet_counts_as_pending() -> None:
    handler, refused = AsyncMock(), []
    dispatcher = AsyncioEventDispatcher({Counted: handler}, max_pending=3)

    def fill() -> None:
        for _ in range(4):
            try:
                dispatcher.dispatch(Counted())
            except DispatchError as error:
                refused.append(error)

    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()  # the loop stands still meanwhile
    assert len(refused) == 1
    assert await dispatcher.aclose() == ()
    assert handler.handle.await_count == 3


@pytest.mark.parametrize("value", [0, -1, "x", None, 1.5, True, float("inf"), 1])
def test_a_bound_that_would_refuse_every_event_is_refused_when_it_is_built(value: Any) -> None:
    with pytest.raises(RegistrationError, match=f"^max_pending is {value!r}; give int, at least 2$"):
        AsyncioEventDispatcher({Counted: [Mock(), Mock()]}, max_pending=value)
    AsyncioEventDispatcher({Counted: [Mock(), Mock()]}, max_pending=2)
    if value != 1 or value is True:
        with pytest.raises(RegistrationError, match=f"^max_threads is {value!r}; give int, at least 1$"):
            AsyncioEventDispatcher({Counted: Mock()}, max_threads=value)


def test_without_a_loop_it_refuses_and_says_what_to_do() -> None:
    handler = Mock()
    with pytest.raises(DispatchError) as refused:
        AsyncioEventDispatcher({Counted: handler}).dispatch(Counted())
    assert str(refused.value) == (
        "Counted was refused: there is no running event loop; build the dispatcher, or dispatch for the first time,"
        " inside the loop that is to run the handlers"
    )
    handler.handle.assert_not_called()


def test_when_its_loop_stands_still_or_is_closed_it_refuses_and_says_what_to_do() -> None:
    async def build() -> AsyncioEventDispatcher:
        return AsyncioEventDispatcher({Counted: AsyncMock()})

    refused = pytest.raises(DispatchError, match=r"^Counted was refused: the event loop of .* does not run; dispatch ")
    with asyncio.Runner() as home:
        dispatcher = home.run(build())
        with refused:
            dispatcher.dispatch(Counted())
    with refused:
        dispatcher.dispatch(Counted())


def test_what_is_pending_when_its_loop_has_ended_is_returned_by_closing_it_elsewhere() -> None:
    handler = AsyncMock()

    async def build() -> AsyncioEventDispatcher:
        return AsyncioEventDispatcher({Counted: handler})

    def dispatch_last() -> None:
        home.get_loop().stop()
        thread = threading.Thread(target=dispatcher.dispatch, args=(event,))  # leaves it where the loop would look next
        thread.start()
        thread.join()

    event = Counted()
    with asyncio.Runner() as home:
        dispatcher = home.run(build())
        home.get_loop().call_soon(dispatch_last)
        home.get_loop().run_forever()
        assert asyncio.run(dispatcher.aclose()) == (event,)
    handler.handle.assert_not_called()


def test_a_plain_handler_without_a_thread_never_runs_once_it_was_returned_after_its_loop_had_ended() -> None:
    running, queued = PlainGate(), Mock()

    async def build() -> AsyncioEventDispatcher:
        dispatcher = AsyncioEventDispatcher({Counted: [running, queued]}, max_threads=1)
        dispatcher.dispatch(event)
        return dispatcher

    event = Counted()
    dispatcher = asyncio.run(build())
    assert running.entered.wait(5)
    [thread] = [thread for thread in threading.enumerate() if thread.name.startswith("eventpact-handler")]
    assert asyncio.run(dispatcher.aclose()) == (event,)
    running.release.set()
    thread.join(5)
    assert not thread.is_alive()
    queued.handle.assert_not_called()


async def test_once_everything_is_settled_closing_leaves_no_thread() -> None:
    gates = [PlainGate() for _ in range(16)]
    dispatcher = AsyncioEventDispatcher({Counted: gates})
    dispatcher.dispatch(Counted())
    for gate in gates:
        assert await asyncio.to_thread(gate.entered.wait, 5)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("eventpact-handler")]
    assert len(threads) >= len(gates)
    for gate in gates:
        gate.release.set()
    assert await dispatcher.aclose() == ()
    assert [thread for thread in threads if thread.is_alive()] == []


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
    with pytest.raises(DispatchError) as full:
        dispatcher.dispatch(Counted())
    assert str(full.value) == (
        "Counted was refused: 3 deliveries may be pending; dispatch it again later, or raise max_pending"
    )
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
    await until_in_loop(lambda: len(seen) == 3001)
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


async def test_a_plain_handler_that_ends_after_it_was_given_up_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    plain, failures = PlainGate(), Mock()
    dispatcher = AsyncioEventDispatcher({Counted: plain}, on_failure=failures)
    event = Counted()
    dispatcher.dispatch(event)
    assert await asyncio.to_thread(plain.entered.wait, 5)
    assert await dispatcher.aclose(timeout=0) == (event,)
    assert not plain.ended  # it was not waited for
    caplog.clear()
    plain.release.set()
    await until_in_loop(lambda: plain.ended)
    await until_in_loop(lambda: caplog.messages)
    assert caplog.messages == ["a handler ended after it was given up"]
    failures.assert_not_called()


async def test_a_plain_handler_without_a_thread_never_runs_once_it_is_given_up() -> None:
    running, queued = PlainGate(), Mock()
    dispatcher = AsyncioEventDispatcher({Counted: [running, queued]}, max_threads=1)
    event = Counted()
    dispatcher.dispatch(event)
    assert await asyncio.to_thread(running.entered.wait, 5)
    closing = asyncio.create_task(dispatcher.aclose(timeout=0))
    await asyncio.sleep(0.1)  # past the deadline, and before it is abandoned
    running.release.set()
    assert await closing == (event,)
    queued.handle.assert_not_called()


async def test_what_a_plain_handler_returned_is_given_up_as_the_handler_is() -> None:
    gate = Gate()
    dispatcher = AsyncioEventDispatcher({Counted: Mock(handle=lambda event: gate.handle(event))})
    event = Counted()
    dispatcher.dispatch(event)
    await gate.entered.wait()
    assert await dispatcher.aclose(timeout=0) == (event,)


@pytest.mark.parametrize("patience", ["within the grace", "after it"])
async def test_what_a_plain_handler_returns_once_it_is_given_up_never_runs(patience: str) -> None:
    plain, gate, made = PlainGate(), Gate(), []

    def handle(event: DomainEvent) -> object:
        plain.handle(event)
        made.append(gate.handle(event))
        return made[0]

    dispatcher = AsyncioEventDispatcher({Counted: Mock(handle=handle)})
    event = Counted()
    dispatcher.dispatch(event)
    assert await asyncio.to_thread(plain.entered.wait, 5)
    closing = asyncio.create_task(dispatcher.aclose(timeout=0))
    if patience == "within the grace":
        await until_in_loop(lambda: dispatcher._given_up)
        plain.release.set()
    assert await closing == (event,)
    plain.release.set()
    await until_in_loop(lambda: made and inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED)
    assert not gate.entered.is_set()


async def test_a_coroutine_that_is_cancelled_before_it_begins_is_closed_also_within_another() -> None:
    made: list[Coroutine[Any, Any, None]] = []

    async def never() -> None: ...

    def handle(event: DomainEvent) -> object:
        made.append(never())
        return made[-1]

    table = SubscriptionTable({Counted: Mock(handle=handle)})
    dispatcher = AsyncioEventDispatcher(table.around(lambda each: recorded(each, succeeded=Mock())))
    event = Counted()
    dispatcher.dispatch(event)
    await until_in_loop(lambda: made)
    while asyncio.all_tasks() == {asyncio.current_task()}:
        await asyncio.sleep(0)
    assert await dispatcher.aclose(timeout=0) in ((), (event,))
    assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED


async def test_a_plain_handler_sees_the_context_of_its_dispatch() -> None:
    asked, seen = ContextVar("asked", default="nobody"), []
    handler = Mock(handle=lambda _: seen.append(asked.get()))
    dispatcher = AsyncioEventDispatcher({Counted: handler})
    asked.set("somebody")
    dispatcher.dispatch(Counted())
    assert await dispatcher.aclose() == ()
    assert seen == ["somebody"]


@pytest.mark.parametrize("kind", [Mock, AsyncMock])
async def test_a_failure_is_reported_with_its_event_and_its_handler(kind: Callable[..., Mock]) -> None:
    failures: list[FailedDelivery] = []
    handler = Mock(handle=kind(side_effect=ValueError))
    event = Counted()
    dispatcher = AsyncioEventDispatcher({Counted: handler}, on_failure=failures.append)
    dispatcher.dispatch(event)
    assert await dispatcher.aclose() == ()
    assert failures == [FailedDelivery(event, handler, failures[0].exception, attempts=1)]
    handler.handle.assert_called_once_with(event)


async def test_plain_handlers_run_in_threads_of_its_own() -> None:
    names: list[str] = []
    dispatcher = AsyncioEventDispatcher({Counted: Mock(handle=lambda _: names.append(threading.current_thread().name))})
    dispatcher.dispatch(Counted())
    assert await dispatcher.aclose() == ()
    assert names[0].startswith("eventpact-handler")


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


async def test_closing_from_another_loop_keeps_to_its_deadline() -> None:
    gate = Gate()
    dispatcher = AsyncioEventDispatcher({Counted: gate})
    event = Counted()
    dispatcher.dispatch(event)
    await gate.entered.wait()
    assert await asyncio.to_thread(lambda: asyncio.run(dispatcher.aclose(timeout=0))) == (event,)


async def test_a_handler_may_close_the_dispatcher_that_runs_it() -> None:
    left: list[tuple[DomainEvent, ...]] = []

    class Closer:
        async def handle(self, event: DomainEvent) -> None:
            left.append(await dispatcher.aclose(timeout=5))

    event = Counted()
    dispatcher = AsyncioEventDispatcher({Counted: Closer()})
    dispatcher.dispatch(event)
    await until_in_loop(lambda: left)
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
    with pytest.raises(DispatcherClosedError, match=r"^Counted was refused: the dispatcher is closed$"):
        dispatcher.dispatch(Counted())


async def test_each_thread_s_events_are_handled_in_its_own_context() -> None:
    who: ContextVar[str] = ContextVar("who", default="nobody")
    seen: list[tuple[int, str]] = []

    class Handler:
        async def handle(self, event: Counted) -> None:
            seen.append((event.number, who.get()))

    dispatcher = AsyncioEventDispatcher({Counted: Handler()})

    def dispatch(number: int) -> None:
        who.set(f"thread {number}")
        dispatcher.dispatch(Counted(number=number))

    for number in range(3):  # the loop, which waits for each of them here, finds all three at once
        thread = threading.Thread(target=dispatch, args=(number,))
        thread.start()
        thread.join()
    await dispatcher.aclose()
    assert sorted(seen) == [(number, f"thread {number}") for number in range(3)]


def test_what_was_returned_by_closing_elsewhere_is_not_handled_when_its_loop_goes_on() -> None:
    gate, handled = asyncio.Event(), list[Counted]()

    class Waiting:
        async def handle(self, event: Counted) -> None:
            await gate.wait()
            handled.append(event)

    async def build() -> AsyncioEventDispatcher:
        dispatcher = AsyncioEventDispatcher({Counted: Waiting()})
        dispatcher.dispatch(event)
        return dispatcher

    async def go_on() -> None:
        gate.set()
        for _ in range(3):
            await asyncio.sleep(0)

    event, loop = Counted(number=1), asyncio.new_event_loop()
    dispatcher = loop.run_until_complete(build())
    assert asyncio.run(dispatcher.aclose(1.0)) == (event,)
    loop.run_until_complete(go_on())
    loop.close()
    assert handled == []


async def test_a_close_that_is_cancelled_cancels_the_handlers_that_are_running() -> None:
    ended: list[str] = []

    class Endless:
        async def handle(self, event: Counted) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

    dispatcher = AsyncioEventDispatcher({Counted: Endless()})
    dispatcher.dispatch(Counted(number=1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await dispatcher.aclose(60.0)
    await asyncio.sleep(0)
    assert ended == ["cancelled"]


class AbortError(BaseException):
    """An interruption of a library's own."""


def generate(_: DomainEvent) -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("handle", "error"),
    [
        (Mock(side_effect=AbortError), AbortError),
        (AsyncMock(side_effect=AbortError), AbortError),
        (lambda event: AsyncMock(side_effect=AbortError)(event), AbortError),
        (lambda event: generate(event), TypeError),
    ],
)
async def test_a_handler_that_did_not_run_to_its_end_has_failed(
    handle: Callable[[DomainEvent], object], error: type[BaseException]
) -> None:
    failures: list[FailedDelivery] = []
    neighbour = AsyncMock()
    dispatcher = AsyncioEventDispatcher({Counted: [Mock(handle=handle), neighbour]}, on_failure=failures.append)
    dispatcher.dispatch(Counted())
    assert await dispatcher.aclose() == ()
    assert [type(failed.exception) for failed in failures] == [error]
    neighbour.handle.assert_awaited_once()


async def test_what_another_thread_dispatches_is_handled_in_its_context() -> None:
    asked: ContextVar[str] = ContextVar("asked", default="nobody")
    seen: list[str] = []

    class Awaited:
        async def handle(self, event: DomainEvent) -> None:
            seen.append(asked.get())

    returning = Mock(handle=lambda event: Awaited().handle(event))
    dispatcher = AsyncioEventDispatcher(
        {Counted: [Awaited(), returning, Mock(handle=lambda _: seen.append(asked.get()))]}
    )

    def dispatch() -> None:
        asked.set("somebody")
        dispatcher.dispatch(Counted())

    await asyncio.to_thread(copy_context().run, dispatch)
    assert await dispatcher.aclose() == ()
    assert seen == ["somebody"] * 3
