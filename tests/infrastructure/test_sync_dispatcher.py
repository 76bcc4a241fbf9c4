"""What the blocking dispatcher does that the contract cannot see."""

import asyncio
import gc
import inspect
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from unittest.mock import Mock

import pytest

from eventpact.domain.dispatcher import DispatcherClosedError, DispatchError, EventDispatcher, FailedDelivery
from eventpact.domain.events import AccountCreatedEvent, DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher


@dataclass(frozen=True, kw_only=True)
class Counted(DomainEvent):
    number: int = 0


class Calls:
    """A handler made of a function."""

    def __init__(self, function: Callable[[DomainEvent], object]) -> None:
        self.function = function

    def handle(self, event: DomainEvent) -> None:
        self.function(event)


class CallsAsync(Calls):
    async def handle(self, event: DomainEvent) -> None:  # type: ignore[override]  # both kinds are handlers
        result = self.function(event)
        if asyncio.iscoroutine(result):
            await result


async def dispatching(dispatcher: EventDispatcher, event: DomainEvent, entered: threading.Event) -> threading.Thread:
    """Dispatch in a thread, and return it when a handler, or the failure sink, has been entered."""
    thread = threading.Thread(target=dispatcher.dispatch, args=(event,))
    thread.start()
    assert await asyncio.to_thread(entered.wait, 5)
    return thread


def test_dispatch_calls_the_handler() -> None:
    handler = Mock()
    dispatcher = SyncEventDispatcher({AccountCreatedEvent: handler})
    event = AccountCreatedEvent(account_id="123", email="test@example.com")

    dispatcher.dispatch(event)

    handler.handle.assert_called_once_with(event)


def test_a_plain_handler_runs_in_the_callers_thread() -> None:
    threads = []
    SyncEventDispatcher({Counted: Calls(lambda _: threads.append(threading.current_thread()))}).dispatch(Counted())
    assert threads == [threading.current_thread()]


async def test_async_handlers_share_one_loop_over_all_dispatches_and_it_ends_with_the_dispatcher() -> None:
    loops = []
    dispatcher = SyncEventDispatcher({Counted: CallsAsync(lambda _: loops.append(asyncio.get_running_loop()))})
    for _ in range(3):
        await asyncio.to_thread(dispatcher.dispatch, Counted())
    assert len(loops) == 3
    assert len(set(loops)) == 1
    assert loops[0] is not asyncio.get_running_loop()
    await dispatcher.aclose()
    assert loops[0].is_closed()


def test_an_event_dispatched_by_a_handler_waits_until_the_first_is_settled() -> None:
    order = []

    def dispatch_more(event: DomainEvent) -> None:
        assert isinstance(event, Counted)
        if event.number < 2:
            dispatcher.dispatch(Counted(number=event.number + 1))
        order.append(("first", event.number))

    dispatcher = SyncEventDispatcher(
        {Counted: [Calls(dispatch_more), CallsAsync(lambda event: order.append(("second", event.number)))]}  # type: ignore[attr-defined]
    )
    dispatcher.dispatch(Counted())
    assert order == [(who, number) for number in range(3) for who in ("first", "second")]


@pytest.mark.parametrize("kind", [Calls, CallsAsync])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_reaches_the_caller_after_everyone_had_a_turn(
    kind: type[Calls], interruption: type[BaseException]
) -> None:
    failures: list[FailedDelivery] = []
    neighbour, cascaded = Mock(), Mock()

    def interrupt(_: DomainEvent) -> None:
        dispatcher.dispatch(AccountCreatedEvent(account_id="1", email="a@example.com"))
        raise interruption

    dispatcher = SyncEventDispatcher(
        {Counted: [kind(interrupt), neighbour], AccountCreatedEvent: cascaded}, on_failure=failures.append
    )
    with pytest.raises(interruption):
        dispatcher.dispatch(Counted())
    neighbour.handle.assert_called_once()
    cascaded.handle.assert_called_once()
    assert [type(failure.exception) for failure in failures] == [interruption]
    asyncio.run(dispatcher.aclose())


def test_an_interruption_reaches_the_caller_where_nothing_else_is_to_be_done() -> None:
    failures: list[FailedDelivery] = []
    handler = Mock(handle=Mock(side_effect=KeyboardInterrupt))
    dispatcher = SyncEventDispatcher({Counted: handler}, on_failure=failures.append)
    event = Counted()
    with pytest.raises(KeyboardInterrupt) as raised:
        dispatcher.dispatch(event)
    assert failures == [FailedDelivery(event, handler, raised.value, attempts=1)]


def test_a_failure_is_reported_with_its_event_and_its_handler() -> None:
    failures: list[FailedDelivery] = []
    error = asyncio.CancelledError()  # of the handler's own making: nobody is closing
    handler = Mock(handle=Mock(side_effect=error))
    event = Counted()
    SyncEventDispatcher({Counted: handler}, on_failure=failures.append).dispatch(event)
    assert failures == [FailedDelivery(event, handler, error, attempts=1)]


async def test_a_task_that_outlives_its_handler_is_refused_rather_than_left_to_deadlock() -> None:
    gate, refused = threading.Event(), asyncio.get_running_loop().create_future()
    home = asyncio.get_running_loop()
    background = set()

    async def late() -> None:
        await asyncio.to_thread(gate.wait)
        try:
            dispatcher.dispatch(Counted())
        except DispatchError as error:
            home.call_soon_threadsafe(refused.set_result, error)

    def spawn(_: DomainEvent) -> None:
        background.add(asyncio.get_running_loop().create_task(late()))

    dispatcher = SyncEventDispatcher({Counted: CallsAsync(spawn)})
    await asyncio.to_thread(dispatcher.dispatch, Counted())
    gate.set()
    assert str(await asyncio.wait_for(refused, 5)) == (
        "Counted was refused: delivering it would block the loop of the async handlers;"
        " dispatch before the handler returns, or through asyncio.to_thread"
    )
    await dispatcher.aclose()


@pytest.mark.parametrize("kind", [Calls, CallsAsync])
async def test_closing_gives_up_exactly_what_had_no_turn(kind: type[Calls]) -> None:
    entered, release = threading.Event(), threading.Event()
    last, cascaded = Mock(), Counted(number=1)
    failures = Mock()

    def hold(_: DomainEvent) -> object:
        dispatcher.dispatch(cascaded)
        entered.set()
        return asyncio.to_thread(release.wait, 10) if kind is CallsAsync else release.wait(10)

    dispatcher = SyncEventDispatcher({Counted: [kind(hold), last]}, on_failure=failures)
    event = Counted()
    thread = await dispatching(dispatcher, event, entered)
    left = await dispatcher.aclose(timeout=0)
    release.set()
    thread.join(5)
    assert set(left) == {event, cascaded}
    last.handle.assert_not_called()
    failures.assert_not_called()


@pytest.mark.parametrize(("position", "undelivered"), [(0, True), (1, True), (2, False)])
async def test_a_handler_that_ends_while_it_is_given_up_has_succeeded_and_those_behind_it_had_no_turn(
    position: int, undelivered: bool
) -> None:
    entered = threading.Event()

    async def hold() -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return  # it takes that as a hint to end

    handlers: list[object] = [Mock(), Mock()]
    handlers.insert(position, CallsAsync(lambda _: hold()))
    dispatcher = SyncEventDispatcher({Counted: handlers})  # type: ignore[dict-item]
    event = Counted()
    thread = await dispatching(dispatcher, event, entered)
    assert await dispatcher.aclose(timeout=0) == ((event,) if undelivered else ())
    thread.join(5)


@pytest.mark.parametrize(("position", "undelivered"), [(0, True), (1, True), (2, False)])
async def test_a_failure_that_is_being_reported_is_settled_when_no_handler_is_left(
    position: int, undelivered: bool
) -> None:
    entered, release = threading.Event(), threading.Event()

    def sink(_: FailedDelivery) -> None:
        entered.set()
        assert release.wait(10)

    handlers: list[object] = [Mock(), Mock()]
    handlers.insert(position, Mock(handle=Mock(side_effect=ValueError)))
    dispatcher = SyncEventDispatcher({Counted: handlers}, on_failure=sink)  # type: ignore[dict-item]
    event = Counted()
    thread = await dispatching(dispatcher, event, entered)
    left = await dispatcher.aclose(timeout=0)
    release.set()
    thread.join(5)
    assert left == ((event,) if undelivered else ())


async def test_what_a_cascade_is_delivering_when_it_is_given_up_is_returned_and_its_end_is_only_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    entered, release = threading.Event(), threading.Event()
    failures = Mock()
    cascaded = AccountCreatedEvent(account_id="1", email="a@example.com")

    def hold(_: DomainEvent) -> None:
        entered.set()
        assert release.wait(10)
        raise ValueError

    dispatcher = SyncEventDispatcher(
        {Counted: Calls(lambda _: dispatcher.dispatch(cascaded)), AccountCreatedEvent: Calls(hold)}, on_failure=failures
    )
    thread = await dispatching(dispatcher, Counted(), entered)
    assert await dispatcher.aclose(timeout=0) == (cascaded,)
    caplog.clear()
    release.set()
    await asyncio.to_thread(thread.join, 5)
    failures.assert_not_called()
    assert caplog.messages == [f"AccountCreatedEvent {cascaded.event_id} was given up while it was handled"]
    [about] = (vars(record) for record in caplog.records)
    assert (about["event"], about["event_id"]) == ("AccountCreatedEvent", str(cascaded.event_id))
    assert about["handler"] == f"{__name__}.Calls"


async def test_what_a_handler_dispatches_while_the_dispatcher_closes_is_refused() -> None:
    entered, release = threading.Event(), threading.Event()
    refused = []

    def hold(event: DomainEvent) -> None:
        entered.set()
        assert release.wait(10)
        try:
            dispatcher.dispatch(event)
        except DispatcherClosedError as error:
            refused.append(str(error))

    dispatcher = SyncEventDispatcher({Counted: Calls(hold)})
    await dispatching(dispatcher, Counted(), entered)
    closing = asyncio.create_task(dispatcher.aclose(timeout=60))
    await asyncio.sleep(0)  # it has begun
    release.set()
    assert await asyncio.wait_for(closing, 10) == ()  # long before its deadline
    assert refused == ["Counted was refused: the dispatcher is closing"]


async def test_closing_waits_for_a_thread_that_is_dispatching() -> None:
    entered, release = threading.Event(), threading.Event()

    def hold(_: DomainEvent) -> None:
        entered.set()
        assert release.wait(5)

    dispatcher = SyncEventDispatcher({Counted: Calls(hold)})
    thread = await dispatching(dispatcher, Counted(), entered)
    closing = asyncio.create_task(dispatcher.aclose(timeout=5))
    while True:
        try:
            dispatcher.dispatch(AccountCreatedEvent(account_id="1", email="a@example.com"))
        except DispatcherClosedError:
            break
        await asyncio.sleep(0)
    assert not closing.done()
    release.set()
    assert await closing == ()
    thread.join()


async def test_closing_waits_for_a_failure_that_is_being_reported() -> None:
    entered, release = threading.Event(), threading.Event()

    def sink(_: FailedDelivery) -> None:
        entered.set()
        assert release.wait(5)

    dispatcher = SyncEventDispatcher({Counted: Mock(handle=Mock(side_effect=ValueError))}, on_failure=sink)
    thread = await dispatching(dispatcher, Counted(), entered)
    closing = asyncio.create_task(dispatcher.aclose(timeout=5))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not closing.done()
    release.set()
    assert await closing == ()
    thread.join()


async def test_closing_is_in_time_though_an_async_handler_blocks_its_loop() -> None:
    entered, release = threading.Event(), threading.Event()

    def block(_: DomainEvent) -> None:
        entered.set()
        assert release.wait(10)

    dispatcher = SyncEventDispatcher({Counted: CallsAsync(block)})
    event = Counted()
    thread = await dispatching(dispatcher, event, entered)
    began = time.monotonic()
    assert await dispatcher.aclose(timeout=0) == (event,)
    assert time.monotonic() - began < 1.5  # law L1 allows 1, on a machine that is not busy
    release.set()
    thread.join(5)


def test_closing_waits_as_long_as_any_dispatcher_where_it_is_not_told() -> None:
    assert inspect.signature(SyncEventDispatcher.aclose) == inspect.signature(EventDispatcher.aclose)


async def test_a_closed_dispatcher_refuses_and_closing_again_returns_nothing() -> None:
    handler = Mock()
    dispatcher = SyncEventDispatcher({Counted: handler})
    assert await dispatcher.aclose() == ()
    assert await dispatcher.aclose() == ()
    with pytest.raises(DispatcherClosedError, match=r"^Counted was refused: the dispatcher is closed$"):
        dispatcher.dispatch(Counted())
    handler.handle.assert_not_called()


def test_threads_that_have_ended_are_forgotten() -> None:
    """A server may have thousands of them in its life."""

    def kept() -> int:
        gc.collect()
        return sum(type(each).__module__ == SyncEventDispatcher.__module__ for each in gc.get_objects())

    dispatcher = SyncEventDispatcher({Counted: Calls(lambda _: None)})
    dispatcher.dispatch(Counted())
    before = kept()
    for _ in range(20):
        thread = threading.Thread(target=dispatcher.dispatch, args=(Counted(),))
        thread.start()
        thread.join()
    assert kept() == before


def test_an_interruption_of_the_failure_sink_reaches_the_caller_after_everyone_had_a_turn() -> None:
    first, last = Mock(handle=Mock(return_value=None)), Mock(handle=Mock(return_value=None))
    ill = Mock(handle=Mock(side_effect=ValueError))
    reported: list[object] = []

    def sink(failed: FailedDelivery) -> None:
        reported.append(failed.handler)
        raise KeyboardInterrupt

    dispatcher = SyncEventDispatcher({Counted: [first, ill, last]}, on_failure=sink)
    event = Counted(number=1)
    with pytest.raises(KeyboardInterrupt):
        dispatcher.dispatch(event)
    first.handle.assert_called_once_with(event)
    last.handle.assert_called_once_with(event)
    assert reported == [ill]
    assert asyncio.run(dispatcher.aclose()) == ()


class AbortError(BaseException):
    """An interruption of a library's own."""


def generate(_: DomainEvent) -> Iterator[None]:
    yield


async def generate_async(_: DomainEvent) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (Mock(side_effect=AbortError), AbortError),
        (Mock(side_effect=GeneratorExit), GeneratorExit),
        (lambda event: generate(event), TypeError),
        (lambda event: generate_async(event), TypeError),
    ],
)
def test_a_handler_that_did_not_run_to_its_end_has_failed(
    function: Callable[[DomainEvent], object], error: type[BaseException]
) -> None:
    failures: list[FailedDelivery] = []
    neighbour = Mock()
    dispatcher = SyncEventDispatcher({Counted: [Mock(handle=function), neighbour]}, on_failure=failures.append)
    dispatcher.dispatch(Counted())
    assert [type(failed.exception) for failed in failures] == [error]
    neighbour.handle.assert_called_once()


def test_a_queued_event_is_handled_in_the_context_of_its_dispatch() -> None:
    asked: ContextVar[str] = ContextVar("asked", default="nobody")
    seen: list[tuple[int, str]] = []

    def cascade(event: DomainEvent) -> None:
        assert isinstance(event, Counted)
        seen.append((event.number, asked.get()))
        for number in (1, 2) if event.number == 0 else ():
            token = asked.set(f"asker {number}")
            dispatcher.dispatch(Counted(number=number))
            asked.reset(token)

    async def look(event: Counted) -> None:
        seen.append((event.number, asked.get()))

    dispatcher = SyncEventDispatcher({Counted: [Calls(cascade), Mock(handle=look)]})
    token = asked.set("somebody")
    dispatcher.dispatch(Counted())
    asked.reset(token)
    assert seen == [(number, who) for number, who in enumerate(("somebody", "asker 1", "asker 2")) for _ in range(2)]
    asyncio.run(dispatcher.aclose())


def test_what_an_interrupted_dispatch_leaves_queued_is_returned_by_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal may interrupt the dispatcher between two handlers."""
    left = Counted(number=1)
    dispatcher = SyncEventDispatcher(
        {AccountCreatedEvent: Calls(lambda _: dispatcher.dispatch(left)), Counted: Calls(lambda _: None)}
    )
    monkeypatch.setattr(dispatcher, "_drain", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        dispatcher.dispatch(AccountCreatedEvent(account_id="1", email="a@example.com"))
    assert asyncio.run(dispatcher.aclose()) == (left,)


class FalsyError(Exception):
    def __bool__(self) -> bool:
        return False


@pytest.mark.parametrize("kind", [Calls, CallsAsync])
async def test_a_failure_that_is_false_is_reported_though_futures_would_lose_it(kind: type[Calls]) -> None:
    def fail(_: DomainEvent) -> None:
        raise FalsyError

    failures: list[FailedDelivery] = []
    for made in (SyncEventDispatcher, AsyncioEventDispatcher):
        dispatcher = made({Counted: kind(fail)}, on_failure=failures.append)
        dispatcher.dispatch(Counted())
        assert await dispatcher.aclose() == ()
    assert [type(failed.exception) for failed in failures] == [FalsyError, FalsyError]
