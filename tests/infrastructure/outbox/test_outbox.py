"""What is in the outbox is delivered, once while nothing crashes, and only if it was committed."""

import asyncio
import json
import threading
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from support.outbox_kit import ADDRESS, INNER, AsyncRecorder, Background, Counted, Recorder
from support.waiting import until

from eventpact.domain.dispatcher import Delivery, DispatcherClosedError, DispatchError, FailedDelivery, Ordering
from eventpact.domain.wire import WireError
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.dispatching.failures import FailureReporter, UnreadableMessage
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.outbox.deliveries import MAX_CRASHES
from eventpact.infrastructure.outbox.settlements import Heartbeats, NeverSettledError
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.outbox_dispatcher import OutboxEventDispatcher
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.persistence.failure_store import FailureStore
from eventpact.infrastructure.persistence.replay import replay_by_outbox


def entries(database: Database) -> int:
    return OutboxStore(database).backlog().entries


@pytest.mark.parametrize("inner", ["asyncio", "sync"])
@pytest.mark.parametrize("kind", [Recorder, AsyncRecorder])
def test_an_event_is_delivered_once_and_then_gone_from_the_outbox(
    database: Database, background: Background, kind: type[Recorder], inner: str
) -> None:
    handler, other = kind(), kind()
    outbox = background.outbox({Counted: [handler, other]}, database, inner)
    for number in range(20):
        outbox.dispatch(Counted(number=number))
    until(lambda: entries(database) == 0)
    assert sorted(handler.numbers) == sorted(other.numbers) == list(range(20))


@dataclass(frozen=True, kw_only=True)
class Ordered(Counted):
    """Its total has the shipping added, when it is made, to places near by."""

    country: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "number", self.number + {"DE": 2, "": 3}[self.country])
        object.__setattr__(self, "country", self.country and "Germany")


@pytest.mark.parametrize("inner", ["asyncio", "sync"])
def test_what_an_event_s_class_makes_of_it_is_made_once(database: Database, background: Background, inner: str) -> None:
    handler = Recorder()
    outbox = background.outbox({Ordered: handler}, database, inner)
    outbox.dispatch(Ordered(number=10, country=""))
    until(lambda: entries(database) == 0)
    assert handler.numbers == [13]
    with pytest.raises(WireError, match="Ordered cannot be made again from its own fields"):
        outbox.dispatch(Ordered(number=10, country="DE"))
    assert entries(database) == 0


class Looks(OutboxStore):
    """Counts how often relays look for entries."""

    count = 0

    def most_crashes(self, relay_id: str) -> int | None:
        self.count += 1
        return super().most_crashes(relay_id)


def test_a_relay_that_has_room_does_not_look_for_more_whenever_an_event_is_settled(
    database: Database, background: Background
) -> None:
    handler, store = Recorder(), Looks(database)
    outbox = background.outbox({Counted: handler}, database, store=store, poll=3600)
    until(lambda: store.count == 1)
    for number in range(100):
        outbox.dispatch(Counted(number=number))
    until(lambda: entries(database) == 0)
    assert sorted(handler.numbers) == list(range(100))
    assert store.count == 1


def test_a_relay_that_was_full_takes_the_rest_as_soon_as_there_is_room(
    database: Database, background: Background
) -> None:
    handler, store = AsyncRecorder(), OutboxStore(database)
    handler.gate.clear()
    (known,) = [each.key for each in SubscriptionTable({Counted: handler})[Counted]]
    with database.transaction():
        for number in range(1_200):
            store.append(Counted(number=number), [known])
    background.outbox({Counted: handler}, database, poll=3600)
    until(lambda: len(handler.numbers) == 1_000)
    handler.gate.set()
    until(lambda: entries(database) == 0)
    assert sorted(handler.numbers) == list(range(1_200))


def test_it_promises_at_least_once_over_a_dispatcher_that_does_not(database: Database, background: Background) -> None:
    guarantees = background.outbox({Counted: Recorder()}, database).guarantees
    assert guarantees.delivery is Delivery.AT_LEAST_ONCE
    assert not guarantees.blocks_caller
    assert guarantees.retries == 0
    assert guarantees.ordering is Ordering.NONE


def test_what_was_rolled_back_is_never_delivered_and_what_was_committed_is(
    database: Database, background: Background
) -> None:
    handler = Recorder()
    outbox = background.outbox({Counted: handler}, database)

    def dispatch_and_fail() -> None:
        with database.transaction():
            outbox.dispatch(Counted(number=1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        dispatch_and_fail()
    with database.transaction():
        outbox.dispatch(Counted(number=2))
    until(lambda: entries(database) == 0)
    assert handler.numbers == [2]


def test_nothing_is_delivered_before_the_transaction_is_committed(database: Database, background: Background) -> None:
    handler = Recorder()
    outbox = background.outbox({Counted: handler}, database)
    with database.transaction():
        outbox.dispatch(Counted(number=1))
        assert handler.numbers == []
    until(lambda: handler.numbers == [1])


def test_an_event_that_is_dispatched_again_while_it_is_in_the_outbox_is_delivered_once(
    database: Database, background: Background
) -> None:
    handler = Recorder()
    handler.gate.clear()
    outbox = background.outbox({Counted: handler}, database)
    event = Counted(number=1)
    for _ in range(5):
        outbox.dispatch(event)
    until(lambda: handler.numbers)
    handler.gate.set()
    until(lambda: entries(database) == 0)
    assert handler.numbers == [1]


def test_an_event_under_the_id_of_another_is_refused_and_not_lost(database: Database, background: Background) -> None:
    handler, other = Recorder(), Recorder()
    handler.gate.clear()
    outbox = background.outbox({Counted: handler, Other: other}, database)
    first = Counted(number=1)
    outbox.dispatch(first)
    with pytest.raises(DispatchError, match=f"Other was refused: its event_id, {first.event_id}, is taken by Counted"):
        outbox.dispatch(Other(event_id=first.event_id, number=2))
    with pytest.raises(DispatchError, match="is taken by Counted with other content in the outbox"):
        outbox.dispatch(replace(first, number=2))
    handler.gate.set()
    until(lambda: entries(database) == 0)
    assert (handler.numbers, other.numbers) == ([1], [])


@dataclass(frozen=True, kw_only=True)
class Other(Counted):
    """An event of another type."""


@pytest.mark.slow
def test_two_relays_never_deliver_the_same_event_though_a_handler_outlasts_the_lease(
    database: Database, background: Background
) -> None:
    handler = Recorder()
    handler.gate.clear()
    writer = background.outbox({Counted: handler}, database, relay=False)
    relays = [background.outbox({Counted: handler}, database) for _ in range(2)]
    for number in range(20):
        writer.dispatch(Counted(number=number))
    until(lambda: len(handler.numbers) == 20)
    heartbeats = Heartbeats(database)
    until(lambda: len(heartbeats.counts()) == 2)  # each begins when its thread gets to it
    first = heartbeats.counts()
    while min(heartbeats.counts().values()) < min(first.values()) + 5:  # a lease is four
        threading.Event().wait(0.2)  # between two looks, which keep the relays from writing
    assert heartbeats.counts().keys() == first.keys()
    handler.gate.set()
    until(lambda: entries(database) == 0)
    assert sorted(handler.numbers) == list(range(20))
    assert len(relays) == 2


def test_what_a_closed_dispatcher_leaves_is_delivered_by_the_next(database: Database, background: Background) -> None:
    done, hanging = AsyncRecorder(), Hanging()
    outbox = background.outbox({Counted: [done, hanging]}, database)
    outbox.dispatch(Counted(number=1))
    until(lambda: hanging.begun and done.numbers)
    assert background.close(outbox, 0.2) == ()
    with pytest.raises(DispatcherClosedError):
        outbox.dispatch(Counted(number=2))
    assert entries(database) == 1
    replaced = Recorder()
    again = AsyncRecorder()
    background.outbox({Counted: [again, Named(replaced, Hanging)]}, database)
    until(lambda: entries(database) == 0)
    assert replaced.numbers == [1]
    assert again.numbers == []  # its delivery was settled before


@pytest.mark.parametrize("times", [1, 2])
def test_a_close_that_is_cancelled_leaves_no_relay_behind(
    database: Database, background: Background, times: int
) -> None:
    before, hanging = set(threading.enumerate()), Hanging()
    outbox = background.outbox({Counted: hanging}, database)
    outbox.dispatch(Counted(number=1))
    until(lambda: hanging.begun)

    async def close_and_cancel() -> None:
        closing = asyncio.create_task(outbox.aclose(5))
        await asyncio.sleep(0)  # it has begun
        for _ in range(times):
            closing.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await closing

    background.call(close_and_cancel)
    until(lambda: not any(thread.name.startswith("eventpact") for thread in set(threading.enumerate()) - before))
    assert not OutboxStore(database).is_served()
    replaced = Recorder()
    background.outbox({Counted: Named(replaced, Hanging)}, database)
    until(lambda: entries(database) == 0)
    assert replaced.numbers == [1]


class Hanging:
    """An ``async def`` handler that ends only when it is cancelled."""

    def __init__(self) -> None:
        self.begun = 0

    async def handle(self, event: Counted) -> None:
        self.begun += 1
        await asyncio.get_running_loop().create_future()


class Named:
    """A handler under the name of another class, as a new release of it would be."""

    def __init__(self, handler: Any, kind: type) -> None:
        self.__wrapped__ = object.__new__(kind)
        self.handle = handler.handle


def test_a_failed_delivery_is_reported_once_with_the_handler_as_it_was_given(
    database: Database, background: Background
) -> None:
    failing, sparing = Recorder(failures=99), Recorder()
    reported: list[FailedDelivery] = []
    outbox = background.outbox({Counted: [failing, sparing]}, database, on_failure=reported.append)
    event = Counted(number=1)
    outbox.dispatch(event)
    until(lambda: entries(database) == 0)
    assert [(each.event, each.handler, each.attempts) for each in reported] == [(event, failing, 1)]
    assert failing.numbers == sparing.numbers == [1]


def test_a_sink_that_raises_breaks_nothing(
    database: Database, background: Background, caplog: pytest.LogCaptureFixture
) -> None:
    def sink(failed: FailedDelivery) -> None:
        raise ZeroDivisionError(ADDRESS)

    handler = Recorder(failures=1)
    outbox = background.outbox({Counted: handler}, database, on_failure=FailureReporter(sink, masked=True))
    outbox.dispatch(Counted(number=1))
    outbox.dispatch(Counted(number=2))
    until(lambda: entries(database) == 0)
    assert sorted(handler.numbers) == [1, 2]
    assert "ZeroDivisionError" in caplog.text
    assert ADDRESS not in caplog.text


def test_a_failure_that_a_busy_database_did_not_take_is_kept_when_it_is_free(
    tmp_path: Path, database: Database, background: Background
) -> None:
    elsewhere = Database(f"sqlite:///{tmp_path / 'failures.db'}")
    tries, kept = list[FailedDelivery](), list[FailedDelivery]()

    def sink(failed: FailedDelivery) -> None:
        tries.append(failed)
        with elsewhere.transaction(0.01):
            kept.append(failed)

    outbox = background.outbox({Counted: Recorder(failures=1)}, database, on_failure=sink)
    with elsewhere.transaction():
        outbox.dispatch(Counted(number=1))
        until(lambda: len(tries) > 1)
        assert entries(database) == 1
    until(lambda: entries(database) == 0)
    assert [failed.event for failed in kept] == [tries[0].event]
    elsewhere.close()


@pytest.mark.parametrize("resend", [None, timedelta(seconds=60)])
def test_a_failure_that_is_replayed_as_soon_as_it_is_kept_is_delivered_again(
    database: Database, background: Background, resend: timedelta | None
) -> None:
    handler = Recorder(failures=1)
    handlers = {Counted: handler}
    table = SubscriptionTable(handlers)
    failures, store = FailureStore(database, table), OutboxStore(database)

    def keep_and_replay(failed: FailedDelivery) -> None:
        failures.keep(failed)
        (kept,) = failures.all()
        replay_by_outbox(kept, failures, table, store)

    outbox = background.outbox(handlers, database, "sync", on_failure=keep_and_replay, resend=resend)
    outbox.dispatch(Counted(number=1))
    until(lambda: entries(database) == 0)
    assert handler.numbers == [1, 1]
    assert failures.count() == 0


def test_handlers_keep_their_names_so_that_any_process_finds_them(database: Database, background: Background) -> None:
    seen: list[SubscriptionTable] = []

    def inner(handlers: Any, on_failure: Any) -> Any:
        seen.append(SubscriptionTable(handlers))
        return INNER["sync"](handlers, on_failure)

    handlers = {Counted: [Recorder(), AsyncRecorder(), Recorder()]}
    outbox = OutboxEventDispatcher(handlers, inner, OutboxStore(database), relay=False)
    keys = [subscription.key for subscription in SubscriptionTable(handlers)[Counted]]
    assert [subscription.key for subscription in seen[0][Counted]] == keys
    assert [subscription.is_async for subscription in seen[0][Counted]] == [False, True, False]
    background.close(outbox)


def test_what_cannot_be_read_is_kept_and_keeps_nothing_else_from_delivery(
    database: Database, background: Background
) -> None:
    kept: list[UnreadableMessage] = []
    handler = Recorder()
    store = OutboxStore(database)
    good = Counted(number=1)
    [known] = [subscription.key for subscription in SubscriptionTable({Counted: handler})[Counted]]
    store.append_replay("Unknown", uuid4(), "{}", [known])
    store.append_replay("Counted", uuid4(), '{"number": "ada@example.com"}', [known])
    store.append_replay("Counted", uuid4(), "no JSON", [known])
    store.append_replay("Counted", good.event_id, json.dumps(good.to_dict()), ["a.handler.of.another.Release"])
    store.append_replay("Counted", good.event_id, json.dumps(good.to_dict()), [known])
    background.outbox({Counted: handler}, database, on_unreadable=kept.append, lease=timedelta(seconds=0.3))
    until(lambda: entries(database) == 0)
    assert handler.numbers == [1]
    assert sorted(str(message.name) for message in kept) == ["Counted", "Counted", "Counted", "Unknown"]
    assert not any("ada@" in message.reason for message in kept)


def test_deliveries_to_a_handler_that_was_removed_do_not_keep_the_relay_from_taking_the_next_event(
    database: Database, background: Background
) -> None:
    handler, kept, store = Recorder(), list[UnreadableMessage](), OutboxStore(database)
    (known,) = [each.key for each in SubscriptionTable({Counted: handler})[Counted]]
    for number in range(3):
        store.append(Counted(number=number), [known, "a.handler.of.another.Release"], "first")
    for relay_id, crashes in [("second", 0), ("third", 1), ("fourth", 2)]:  # so they are taken one at a time now
        assert len(store.claim(relay_id, 3, crashes=crashes)) == 3
    store.release("fourth")
    background.outbox({Counted: handler}, database, on_unreadable=kept.append, lease=timedelta(seconds=0.3))
    until(lambda: entries(database) == 0)
    assert sorted(handler.numbers) == [0, 1, 2]
    assert len(kept) == 3


@pytest.mark.slow
def test_what_could_not_be_kept_stays_in_the_outbox(database: Database, background: Background) -> None:
    kept: list[UnreadableMessage] = []

    def sink(message: UnreadableMessage) -> None:
        kept.append(message)
        if len(kept) == 1:
            raise ZeroDivisionError

    OutboxStore(database).append_replay("Unknown", uuid4(), "{}", ["x"])
    background.outbox({Counted: Recorder()}, database, on_unreadable=sink, lease=timedelta(seconds=0.3))
    until(lambda: entries(database) == 0)
    assert len(kept) == 2


def test_an_event_that_the_inner_dispatcher_refuses_is_dispatched_until_it_is_accepted(
    database: Database, background: Background
) -> None:
    handler = Recorder()
    handler.gate.clear()

    def full(handlers: Any, on_failure: Any) -> Any:
        return AsyncioEventDispatcher(handlers, on_failure=on_failure, max_pending=1)

    outbox = background.call(lambda: OutboxEventDispatcher({Counted: handler}, full, OutboxStore(database), poll=0.05))
    for number in range(5):
        outbox.dispatch(Counted(number=number))
    until(lambda: handler.numbers)
    handler.gate.set()
    until(lambda: entries(database) == 0)
    assert sorted(handler.numbers) == list(range(5))
    background.close(outbox)


def test_an_event_is_refused_where_the_database_was_never_migrated(tmp_path: Path, background: Background) -> None:
    database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    outbox = background.outbox({Counted: Recorder()}, database, relay=False)
    with pytest.raises(DispatchError, match="is it up, and migrated"):
        outbox.dispatch(Counted(number=1))
    background.close(outbox)
    database.close()


def test_a_locked_file_refuses_within_two_seconds_and_recovers(tmp_path: Path, background: Background) -> None:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    database.migrate()
    handler = Recorder()
    outbox = background.outbox({Counted: handler}, database)
    other = sa.create_engine(database.engine.url)
    with other.connect() as connection:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        started = time.monotonic()
        with pytest.raises(DispatchError):
            outbox.dispatch(Counted(number=1))
        assert time.monotonic() - started < 2.0
        connection.rollback()
    other.dispose()
    outbox.dispatch(Counted(number=2))
    until(lambda: entries(database) == 0)
    assert handler.numbers == [2]
    background.close(outbox)
    database.close()


def test_a_cascade_settles(database: Database, background: Background) -> None:
    class Again:
        def handle(self, event: Counted) -> None:
            numbers.append(event.number)
            if event.number < 50:
                outbox.dispatch(Counted(number=event.number + 1))

    numbers: list[int] = []
    outbox = background.outbox({Counted: Again()}, database)
    outbox.dispatch(Counted(number=0))
    until(lambda: len(numbers) == 51)
    until(lambda: entries(database) == 0)
    assert numbers == list(range(51))


def test_an_event_with_which_relay_after_relay_dies_is_kept_as_failed_and_those_beside_it_are_delivered(
    database: Database, background: Background
) -> None:
    handler, failures = Recorder(), list[FailedDelivery]()
    store = OutboxStore(database)
    poison, others = Counted(number=-1), [Counted(number=number) for number in range(3)]
    (key,) = [each.key for each in SubscriptionTable({Counted: handler})[Counted]]
    for event in (poison, *others):
        store.append(event, [key], "first")
    for crashes in range(MAX_CRASHES - 1):  # each relay takes what the one before left, and is never heard of again
        taken = store.claim(f"relay-{crashes}", 1 if crashes == 3 else 10, crashes=crashes)
        assert taken[0].event_id == poison.event_id
    background.outbox({Counted: handler}, database, on_failure=failures.append)
    until(lambda: entries(database) == 0)
    assert [(failed.event, failed.attempts) for failed in failures] == [(poison, MAX_CRASHES)]
    assert isinstance(failures[0].exception, NeverSettledError)
    assert sorted(handler.numbers) == [0, 1, 2]


def test_a_relay_that_ends_in_good_order_has_not_died_with_what_it_leaves(database: Database) -> None:
    store = OutboxStore(database)
    store.append(Counted(number=1), ["key"], "first")
    store.release("first")
    assert [entry.crashes for entry in store.claim("second", 1, crashes=0)] == [0]


def test_a_worker_that_dies_each_time_it_begins_an_event_is_not_given_it_for_ever(
    database: Database, background: Background
) -> None:
    handler, failures = Recorder(), list[FailedDelivery]()
    event = Counted(number=-1)
    outbox = background.outbox(
        {Counted: handler}, database, "sync", on_failure=failures.append, relay=False, resend=timedelta(seconds=60)
    )
    outbox.dispatch(event)
    (key,) = [each.key for each in SubscriptionTable({Counted: handler})[Counted]]
    for _ in range(MAX_CRASHES + 1):
        assert OutboxStore(database).begin(event.event_id, key)  # by a worker that is never heard of again
    outbox._inner.dispatch(event)  # as the next worker does
    assert [failed.attempts for failed in failures] == [MAX_CRASHES + 2]
    assert handler.numbers == []
    assert entries(database) == 0


def test_what_the_sink_of_a_worker_did_not_take_is_delivered_and_told_again(
    database: Database, background: Background
) -> None:
    handler, told = Recorder(failures=9), list[FailedDelivery]()

    def sink(failed: FailedDelivery) -> None:
        told.append(failed)
        if len(told) == 1:
            raise OSError("no space left")

    outbox = background.outbox({Counted: handler}, database, "sync", on_failure=sink, resend=timedelta(seconds=0.05))
    outbox.dispatch(Counted(number=1))
    until(lambda: entries(database) == 0)
    assert handler.numbers == [1, 1]
    assert len(told) == 2
