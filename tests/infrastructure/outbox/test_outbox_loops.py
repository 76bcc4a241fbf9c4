"""An outbox over a dispatcher that needs an event loop delivers in whichever loop it is dispatched on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from support.outbox_kit import INNER, LEASE, AsyncRecorder, Counted, Recorder

from eventpact.domain.dispatcher import DispatchError, EventDispatcher, FailureSink, Handlers
from eventpact.infrastructure.monitoring.metrics import Metrics, ObservedEventDispatcher, Stock
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.outbox_dispatcher import OutboxEventDispatcher
from eventpact.infrastructure.persistence.database import Database

Engine = Callable[[Handlers, FailureSink], EventDispatcher]


def built(database: Database, handlers: list[Recorder], inner: Engine = INNER["asyncio"]) -> OutboxEventDispatcher:
    return OutboxEventDispatcher({Counted: handlers}, inner, OutboxStore(database), lease=LEASE, poll=0.05, retries=0)


def observed(handlers: Handlers, on_failure: FailureSink) -> EventDispatcher:
    metrics = Metrics(handlers, lambda: Stock(0), settles=True)
    return ObservedEventDispatcher(handlers, INNER["asyncio"], metrics, on_failure=on_failure)


async def settled(database: Database) -> None:
    async with asyncio.timeout(20):
        while await asyncio.to_thread(lambda: OutboxStore(database).backlog().entries):
            await asyncio.sleep(0)


async def dispatched(outbox: OutboxEventDispatcher, database: Database, number: int) -> None:
    outbox.dispatch(Counted(number=number))
    await settled(database)


@pytest.mark.parametrize("inner", [INNER["asyncio"], observed])
def test_built_before_there_is_a_loop_it_delivers_on_the_first_that_dispatches(
    database: Database, inner: Engine
) -> None:
    """As a module of a web application builds it, when it is imported."""
    handlers = [Recorder(), AsyncRecorder()]
    outbox = built(database, handlers, inner)

    async def serve() -> None:
        await dispatched(outbox, database, 1)
        await outbox.aclose()

    asyncio.run(serve())
    assert [handler.numbers for handler in handlers] == [[1], [1]]


def test_what_other_processes_left_is_delivered_once_there_is_a_loop(database: Database) -> None:
    OutboxStore(database).append(Counted(number=1), ["support.outbox_kit.Recorder"], None)
    handler = Recorder()
    outbox = built(database, [handler])
    asyncio.run(dispatched(outbox, database, 2))
    assert sorted(handler.numbers) == [1, 2]
    asyncio.run(outbox.aclose())


def test_without_a_loop_it_refuses_and_nothing_is_written(database: Database) -> None:
    handler = Recorder()
    outbox = built(database, [handler])
    with pytest.raises(DispatchError, match=r"an event loop, .*; dispatch inside the loop that is to"):
        outbox.dispatch(Counted())
    assert OutboxStore(database).backlog().entries == 0
    asyncio.run(dispatched(outbox, database, 1))
    with pytest.raises(DispatchError, match="or it is closed"):
        outbox.dispatch(Counted())
    assert OutboxStore(database).backlog().entries == 0
    assert handler.numbers == [1]
    asyncio.run(outbox.aclose())


def test_another_loop_delivers_what_it_dispatches_and_what_the_one_before_left(database: Database) -> None:
    """As under ``pytest-asyncio``, with a loop for each test."""
    handler = Recorder()
    handler.gate.clear()  # its thread outlives the loop, so that nobody learns its outcome
    outbox = built(database, [handler])

    async def leave() -> None:
        outbox.dispatch(Counted(number=1))
        await called([1])

    async def go_on() -> None:
        outbox.dispatch(Counted(number=2))
        await called([1, 1, 2])
        handler.gate.set()
        await settled(database)
        await outbox.aclose()

    async def called(numbers: list[int]) -> None:
        async with asyncio.timeout(20):
            while sorted(handler.numbers) != numbers:
                await asyncio.sleep(0)

    asyncio.run(leave())
    asyncio.run(go_on())
    assert sorted(handler.numbers) == [1, 1, 2]


def test_a_loop_that_stands_still_is_left_for_the_one_that_runs(database: Database) -> None:
    first, handler = asyncio.new_event_loop(), AsyncRecorder()
    outbox = built(database, [handler])
    first.run_until_complete(dispatched(outbox, database, 1))
    asyncio.run(dispatched(outbox, database, 2))
    assert handler.numbers == [1, 2]
    first.run_until_complete(dispatched(outbox, database, 3))
    assert handler.numbers == [1, 2, 3]
    first.run_until_complete(outbox.aclose())
    first.close()


def test_built_inside_a_loop_it_stays_there_though_another_loop_dispatches(database: Database) -> None:
    loops, homes = [], []

    class Telling:
        async def handle(self, event: Counted) -> None:
            homes.append(asyncio.get_running_loop())

    async def serve() -> None:
        outbox = OutboxEventDispatcher({Counted: Telling()}, INNER["asyncio"], OutboxStore(database), poll=0.05)
        loops.append(asyncio.get_running_loop())
        await asyncio.to_thread(lambda: asyncio.run(dispatched(outbox, database, 1)))
        await outbox.aclose()

    asyncio.run(serve())
    assert homes == loops


def test_over_a_dispatcher_that_needs_no_loop_one_relay_serves_all(database: Database) -> None:
    opened, handler = [], Recorder()

    def sync(handlers: Handlers, on_failure: FailureSink) -> EventDispatcher:
        opened.append(1)
        return INNER["sync"](handlers, on_failure)

    outbox = OutboxEventDispatcher({Counted: handler}, sync, OutboxStore(database), poll=0.05)
    outbox.dispatch(Counted(number=1))
    for number in (2, 3):
        asyncio.run(dispatched(outbox, database, number))
    assert sorted(handler.numbers) == [1, 2, 3]
    assert opened == [1]
    asyncio.run(outbox.aclose())
