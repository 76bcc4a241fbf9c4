"""Processes that crash, fork or wait for a worker: nothing is lost, doubled or held up for long."""

from __future__ import annotations

import asyncio
import os
import select
import time
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from support.outbox_kit import INNER, Background, Counted, Recorder
from support.waiting import until

from eventpact.domain.dispatcher import DispatchError, EventDispatcher, FailureSink, Handlers, PermanentFailureError
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.outbox.store import OutboxStore, for_handlers
from eventpact.infrastructure.outbox_dispatcher import OutboxEventDispatcher
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.persistence.failure_store import FailureStore
from eventpact.infrastructure.persistence.replay import replay_by_outbox
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

KEY = "support.outbox_kit.Recorder"
KNOWN = for_handlers({"Counted": [KEY]})


def entries(database: Database) -> int:
    return OutboxStore(database).backlog().entries


def crashed(database: Database, events: int, crashes: int) -> list[Counted]:
    """Events with which so many relays have crashed, by what such relays leave in the database."""
    store = OutboxStore(database)
    pending = [Counted(number=number) for number in range(events)]
    for event in pending:
        store.append(event, [KEY], "crashed-0")
    for crash in range(1, crashes):
        assert len(store.claim(f"crashed-{crash}", events, KNOWN, crashes=crash - 1)) == events
    return pending


def test_what_relays_crashed_with_twice_is_delivered_in_no_time(database: Database, background: Background) -> None:
    crashed(database, events=150, crashes=2)
    handler, started = Recorder(), time.monotonic()
    background.outbox({Counted: handler}, database, poll=1.0)
    until(lambda: entries(database) == 0, 40)
    assert sorted(handler.numbers) == list(range(150))
    assert time.monotonic() - started < 40  # one at a time it took 500 seconds


@pytest.mark.parametrize(("crashes", "at_once"), [(1, 150), (2, 100), (3, 10), (4, 1)])
def test_the_more_relays_crashed_the_fewer_entries_are_taken_at_once(
    database: Database, background: Background, crashes: int, at_once: int
) -> None:
    crashed(database, events=150, crashes=crashes)
    handler = Recorder()
    handler.gate.clear()
    outbox = background.outbox({Counted: handler}, database, poll=0.02)
    begun = min(at_once, 32)  # the dispatcher has as many threads
    until(lambda: len(handler.numbers) == begun)
    with database.transaction() as connection:
        claimed = "SELECT count(*) FROM outbox WHERE claimed_by IN (SELECT relay_id FROM outbox_relays)"
        assert connection.execute(sa.text(claimed)).scalar_one() == at_once
    handler.gate.set()
    background.close(outbox)


def test_an_event_that_kills_its_process_takes_no_neighbour_with_it(database: Database) -> None:
    store, pending = OutboxStore(database), crashed(database, events=150, crashes=1)
    poison, settled, crash = pending[77].event_id, set[Any](), 1
    while entries(database) > 0:
        relay_id, limit = f"crashed-{crash}", {0: 150, 1: 100, 2: 10}.get(crash - 1, 1)
        taken = store.claim(relay_id, limit, KNOWN, crashes=crash - 1)
        assert taken
        if any(entry.event_id == poison for entry in taken):
            if taken[0].crashes == 5:
                assert [entry.event_id for entry in taken] == [poison]  # and is reported as failed
                return
            crash += 1  # it kills the relay, before anything else is settled
        else:
            assert all(entry.crashes < 5 for entry in taken)
            settled |= {entry.event_id for entry in taken}
            store.settle([(entry.event_id, KEY) for entry in taken])


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_a_forked_child_delivers_what_it_dispatches_while_its_parent_lives(
    database: Database, background: Background, kind: str
) -> None:
    """As a server does that is loaded before its processes are forked (``gunicorn --preload``)."""
    reading, writing = os.pipe()
    parent = os.getpid()

    class Telling:
        async def handle(self, event: Counted) -> None:
            os.write(writing, f"{os.getpid()} ".encode())

    def inner(handlers: Handlers, on_failure: FailureSink) -> EventDispatcher:
        # The parent has a relay, and nothing that could deliver.
        if os.getpid() != parent:
            return INNER[kind](handlers, on_failure)
        return Refusing(handlers, on_failure=on_failure)

    outbox = OutboxEventDispatcher({Counted: Telling()}, inner, OutboxStore(database), poll=0.05)
    until(OutboxStore(database).is_served)
    child = os.fork()
    if not child:
        try:
            asyncio.run(_dispatch_in_child(outbox))
        finally:
            os._exit(0)
    assert _read(reading) == [child]
    assert os.waitpid(child, 0)[1] == 0
    assert entries(database) == 0
    background.close(outbox)
    os.close(reading)
    os.close(writing)


class Refusing(SyncEventDispatcher):
    def dispatch(self, event: Any) -> None:
        raise DispatchError("there is no loop here")


def test_a_relay_whose_engine_refuses_keeps_nothing_from_one_that_delivers(
    database: Database, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a host that the broker cannot be reached from, but the database can; once it held a thousand events."""
    monkeypatch.setitem(INNER, "refusing", lambda handlers, on_failure: Refusing(handlers, on_failure=on_failure))
    refusing = background.outbox({Counted: Recorder()}, database, "refusing", poll=0.02)
    until(lambda: refusing._relay is not None and refusing._relay.room())
    for number in range(300):
        refusing.dispatch(Counted(number=number))
    handler = Recorder()
    background.outbox({Counted: handler}, database, poll=0.02)
    until(lambda: entries(database) == 0)
    assert sorted(handler.numbers) == list(range(300))


async def _dispatch_in_child(outbox: OutboxEventDispatcher) -> None:
    outbox.dispatch(Counted(number=2))
    while await asyncio.to_thread(lambda: outbox._store.backlog().entries):
        await asyncio.sleep(0)
    await outbox.aclose(5)


def _read(pipe: int) -> list[int]:
    assert select.select([pipe], [], [], 20)[0], "nobody delivered"
    return [int(pid) for pid in os.read(pipe, 1000).split()]


class Broker(SyncEventDispatcher):
    """An engine in other processes: it has messages waiting until a worker, which may never come, takes them."""

    def __init__(self, handlers: Handlers, on_failure: FailureSink) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self.messages: list[Any] = []
        self.published = 0

    def dispatch(self, event: Any) -> None:
        self.messages.append(event)
        self.published += 1

    def waiting(self) -> int:
        return len(self.messages)

    def work(self) -> None:
        while self.messages:
            super().dispatch(self.messages.pop(0))


class Uncounted(Broker):
    """The same, of which nobody can say how much waits."""

    waiting = None  # type: ignore[assignment]


def broker_of(outbox: OutboxEventDispatcher) -> Any:
    return outbox._inner


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Broker, Uncounted])
def test_an_hour_without_a_worker_leaves_at_most_two_messages_an_event(
    database: Database, background: Background, kind: type[Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for a resend is 0.2 s instead of a minute, so the hour has 12 seconds."""
    monkeypatch.setitem(INNER, "broker", lambda handlers, on_failure: kind(handlers, on_failure))
    handler = Recorder()
    outbox = background.outbox(
        {Counted: handler}, database, "broker", resend=timedelta(seconds=0.2), lease=timedelta(seconds=30)
    )
    broker = broker_of(outbox)
    with database.transaction():
        for number in range(100):
            outbox.dispatch(Counted(number=number))
    hour_ends = time.monotonic() + 12
    until(lambda: time.monotonic() > hour_ends)
    assert 100 <= broker.published <= 200
    broker.work()
    until(lambda: entries(database) == 0)
    assert sorted(handler.numbers) == list(range(100))


def test_messages_that_a_broker_has_lost_are_sent_again(
    database: Database, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(INNER, "broker", lambda handlers, on_failure: Broker(handlers, on_failure))
    handler = Recorder()
    outbox = background.outbox({Counted: handler}, database, "broker", resend=timedelta(seconds=0.2), poll=0.02)
    broker = broker_of(outbox)
    for number in range(20):
        outbox.dispatch(Counted(number=number))
    until(lambda: broker.published >= 20)
    del broker.messages[5:15]
    until(lambda: broker.published >= 30)

    def worked() -> bool:
        broker.work()
        return entries(database) == 0

    until(worked)
    assert set(handler.numbers) == set(range(20))
    assert broker.published < 60


def test_a_failure_that_is_retried_and_fails_again_is_one_failure_with_its_history(
    database: Database, background: Background
) -> None:
    handler = Recorder(failures=5)
    table = SubscriptionTable({Counted: handler})
    failures, store = FailureStore(database, table), OutboxStore(database)
    outbox = background.outbox({Counted: handler}, database, on_failure=failures.keep, retries=1, backoff=0.02)
    outbox.dispatch(Counted(number=1))
    until(lambda: failures.count() == 1)
    (first,) = failures.all()
    replay_by_outbox(first, failures, table, store)
    until(lambda: failures.count() == 1)
    (second,) = failures.all()
    assert (second.failure_id, first.attempts, second.attempts) == (first.failure_id, 2, 4)
    assert first.first_failed_at == second.first_failed_at < second.last_failed_at
    replay_by_outbox(second, failures, table, store)
    until(lambda: entries(database) == 0 and failures.get(first.failure_id) is None)
    assert len(handler.numbers) == 6


class ShyError(PermanentFailureError):
    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(name)


@pytest.mark.parametrize("inner", ["sync", "asyncio"])
def test_an_exception_that_can_be_asked_nothing_is_kept(database: Database, background: Background, inner: str) -> None:
    class Shy:
        def handle(self, event: Counted) -> None:
            raise ShyError

    store = FailureStore(database, SubscriptionTable({Counted: Shy()}))
    outbox = background.outbox({Counted: Shy()}, database, inner, on_failure=store.keep, retries=5)
    outbox.dispatch(Counted())
    until(lambda: store.count() == 1 and entries(database) == 0)


def test_refusals_in_a_row_are_logged_ever_more_rarely(
    database: Database, background: Background, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusals: list[object] = []

    class Away(SyncEventDispatcher):
        def dispatch(self, event: Any) -> None:
            refusals.append(event)
            raise DispatchError("the broker cannot be reached")

    monkeypatch.setitem(INNER, "away", lambda handlers, on_failure: Away(handlers, on_failure=on_failure))
    monkeypatch.setattr("eventpact.infrastructure.outbox.relay._MAX_WAIT_SECONDS", 0.01)
    outbox = background.outbox({Counted: Recorder()}, database, "away", poll=0.01)
    outbox.dispatch(Counted())
    until(lambda: len(refusals) >= 20)
    background.close(outbox)
    logged = [message for message in caplog.messages if "stays in the outbox" in message]
    assert len(logged) == len(refusals).bit_length()


@pytest.mark.parametrize("raised", [RuntimeError, asyncio.CancelledError])
def test_an_exception_that_has_no_text_is_kept(
    database: Database, background: Background, raised: type[BaseException]
) -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise raised

    class Failing:
        def handle(self, event: Counted) -> None:
            raise BrokenError

    handlers = {Counted: Failing()}
    failures = FailureStore(database, SubscriptionTable(handlers))
    outbox = background.outbox(handlers, database, on_failure=failures.keep)
    outbox.dispatch(Counted(number=1))
    until(lambda: entries(database) == 0)
    (failure,) = failures.all()
    assert (failure.error_type, raised.__name__ in failure.error) == ("BrokenError", True)


def test_the_clock_of_a_server_does_not_decide_what_is_due(
    database: Database, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.is_sqlite:
        pytest.skip("the clock of SQLite is that of its machine")
    import eventpact.infrastructure.persistence.database as module

    class Ahead(module.datetime):  # type: ignore[misc, name-defined]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return super().now(tz) + timedelta(minutes=10)

    monkeypatch.setattr(module, "datetime", Ahead)
    handler = Recorder(failures=1)
    outbox = background.outbox({Counted: handler}, database, retries=1, backoff=0.1)
    outbox.dispatch(Counted(number=1))
    until(lambda: entries(database) == 0)
    assert handler.numbers == [1, 1]
