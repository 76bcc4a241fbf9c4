"""A delivery that fails is tried again later, whatever the inner dispatcher is, and whatever happens meanwhile."""

import threading
import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.outbox_kit import ADDRESS, INNER, AsyncRecorder, Background, Counted, Recorder
from support.waiting import until

from eventpact.domain.dispatcher import FailedDelivery, PermanentFailureError, RegistrationError
from eventpact.infrastructure.dispatching.failures import RetryPolicy
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.outbox.deliveries import DeliveriesHere
from eventpact.infrastructure.outbox.entries import Entry
from eventpact.infrastructure.outbox.settlements import FailureJudge
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.outbox_dispatcher import OutboxEventDispatcher
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

ENGINES = pytest.mark.parametrize(
    ("inner", "resend"),
    [("sync", None), ("asyncio", None), ("sync", timedelta(seconds=60))],
    ids=["sync", "asyncio", "elsewhere"],
)


class Timed:
    """A handler that notes when it was called, and fails the first ``failures`` times."""

    def __init__(self, failures: int, error: type[Exception] = OSError) -> None:
        self.times: list[float] = []
        self._failures = failures
        self._error = error

    async def handle(self, event: Counted) -> None:
        self.times.append(time.monotonic())
        if len(self.times) <= self._failures:
            raise self._error("the mail server is unreachable")


class Other(Recorder):
    """A handler with another name."""


def entries(database: Database) -> int:
    return OutboxStore(database).backlog().entries


@ENGINES
def test_a_delivery_that_fails_is_tried_again_after_waits_that_grow(
    database: Database, background: Background, inner: str, resend: timedelta | None
) -> None:
    handler, spared, reported = Timed(failures=3), Other(), list[FailedDelivery]()
    outbox = background.outbox(
        {Counted: [handler, spared]}, database, inner, on_failure=reported.append, resend=resend, retries=3, backoff=0.2
    )
    outbox.dispatch(Counted(number=1))
    until(lambda: entries(database) == 0)
    assert len(handler.times) == outbox.guarantees.retries + 1
    waits = [after - before for before, after in pairwise(handler.times)]
    # Each is three quarters of the longest, at least.
    assert all(wait >= least for wait, least in zip(waits, (0.15, 0.3, 0.6), strict=True))
    assert (spared.numbers, reported) == ([1], [])


@ENGINES
def test_a_delivery_is_reported_once_its_last_attempt_has_failed(
    database: Database, background: Background, inner: str, resend: timedelta | None
) -> None:
    handler, reported = Timed(failures=99), list[FailedDelivery]()
    outbox = background.outbox(
        {Counted: handler}, database, inner, on_failure=reported.append, resend=resend, retries=2, backoff=0.05
    )
    event = Counted(number=1)
    outbox.dispatch(event)
    until(lambda: entries(database) == 0)
    assert [(each.event, each.handler, each.attempts) for each in reported] == [(event, handler, 3)]
    assert len(handler.times) == 3


@ENGINES
def test_a_permanent_failure_is_reported_at_once(
    database: Database, background: Background, inner: str, resend: timedelta | None
) -> None:
    handler, reported = Timed(failures=9, error=PermanentFailureError), list[FailedDelivery]()
    outbox = background.outbox(
        {Counted: handler}, database, inner, on_failure=reported.append, resend=resend, retries=5
    )
    outbox.dispatch(Counted(number=1))
    until(lambda: entries(database) == 0)
    assert [each.attempts for each in reported] == [1]


@ENGINES
def test_attempts_and_waits_outlive_the_process_that_made_them(
    database: Database, background: Background, inner: str, resend: timedelta | None
) -> None:
    first, second, reported = Timed(failures=9), Timed(failures=9), list[FailedDelivery]()
    options = {"on_failure": reported.append, "resend": resend, "retries": 1, "backoff": 2.0}
    outbox = background.outbox({Counted: first}, database, inner, **options)
    outbox.dispatch(Counted(number=1))
    until(lambda: _is_parked(database))
    background.close(outbox)
    again = background.outbox({Counted: second}, database, inner, **options)
    until(lambda: entries(database) == 0)
    assert (len(first.times), len(second.times)) == (1, 1)
    assert second.times[0] - first.times[0] >= 1.0
    assert [each.attempts for each in reported] == [2]
    background.close(again)


def _is_parked(database: Database) -> bool:
    with database.transaction() as connection:
        return connection.execute(sa.text("SELECT count(*) FROM outbox WHERE attempts IS NOT NULL")).scalar_one() == 1


@ENGINES
def test_a_handler_that_is_still_running_is_not_called_again_for_its_neighbour(
    database: Database, background: Background, inner: str, resend: timedelta | None
) -> None:
    slow, failing = AsyncRecorder(), Timed(failures=2)
    slow.gate.clear()
    outbox = background.outbox({Counted: [slow, failing]}, database, "asyncio", resend=resend, retries=2, backoff=0.05)
    outbox.dispatch(Counted(number=1))
    until(lambda: len(failing.times) == 3)
    assert slow.numbers == [1]
    slow.gate.set()
    until(lambda: entries(database) == 0)
    assert slow.numbers == [1]


def test_a_handler_that_has_failed_is_not_called_again_for_its_neighbour_before_that_is_known(
    database: Database,
) -> None:
    store, event = OutboxStore(database), Counted(number=1)
    handler = Recorder(failures=9)
    table = SubscriptionTable({Counted: handler})
    [subscription] = table.route(event)
    deliveries = DeliveriesHere(store, table)
    handle = deliveries.wrap(subscription)
    deliveries.bind(SyncEventDispatcher({}), FailureJudge(store, RetryPolicy(retries=2, backoff=1, max_backoff=9)))
    deliveries.deliver(Entry(event.event_id, event.event_id, "Counted", "", (subscription.key,)), event)
    with pytest.raises(ValueError, match=ADDRESS):
        handle(event)
    handle(event)  # of a dispatch that was meant for a neighbour, whose retry is due at the same time
    assert handler.numbers == [1]


@pytest.mark.slow
@ENGINES
def test_an_outage_that_fails_every_delivery_loses_none(
    database: Database, background: Background, inner: str, resend: timedelta | None
) -> None:
    is_down, lock = threading.Event(), threading.Lock()
    done, failed, reported = set[int](), list[int](), list[FailedDelivery]()

    class Mailing:
        def handle(self, event: Counted) -> None:
            with lock:
                (failed.append if is_down.is_set() else done.add)(event.number)
            if is_down.is_set():
                raise ConnectionRefusedError

    is_down.set()
    outbox = background.outbox(
        {Counted: Mailing()}, database, inner, resend=resend, on_failure=reported.append, retries=20, backoff=0.2
    )
    for number in range(100):
        outbox.dispatch(Counted(number=number))
    until(lambda: set(failed) == set(range(100)))
    is_down.clear()
    until(lambda: entries(database) == 0, 60)
    assert done == set(range(100))
    assert reported == []


def test_waits_grow_up_to_the_longest_and_cover_more_than_an_hour_by_default() -> None:
    policy = RetryPolicy(retries=20, backoff=2.0, max_backoff=600.0)
    waits = [policy.wait(attempts) for attempts in range(1, policy.retries + 1)]
    assert all(before <= after for before, after in pairwise(waits[:9]))
    assert max(waits) <= 600.0
    assert sum(waits) > 3600
    assert policy.wait(10_000) <= 600.0


NAN, ENDLESS = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("retries", [-1, 1.0, NAN, True, "3", None]),
        ("backoff", [-0.1, NAN, True, "2", None]),
        ("max_backoff", [-1, NAN, False, "2", None]),
        ("poll", [0, -1, NAN, ENDLESS, True, "1", None]),
        ("lease", [timedelta(0), timedelta(-1), timedelta.max, 10, None]),
        ("resend", [timedelta(0), timedelta(-1), timedelta.max, 60]),
    ],
)
def test_a_number_that_could_never_work_is_refused_when_it_is_built(
    tmp_path: Path, name: str, values: list[object]
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'none.db'}")
    for value in values:
        with pytest.raises(RegistrationError, match=rf"^{name} is .*; give (int|float|timedelta|int or float), "):
            OutboxEventDispatcher({Counted: Recorder()}, INNER["sync"], OutboxStore(database), **{name: value})  # type: ignore[arg-type]
    database.close()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"inner": SyncEventDispatcher}, r"inner is <class .*SyncEventDispatcher'>; give a function of handlers and a"),
        ({"inner": SyncEventDispatcher({})}, "inner is <eventpact.*; give a function of handlers and a failure sink"),
        ({"store": "sqlite:///shop.db"}, r"store is a str; give an OutboxStore\(database\)"),
        ({"on_unreadable": 1}, "the sink of unreadable entries is no function, but int"),
        ({"context": "traceparent"}, r"context is a str; give a ContextCarrier, which has inject\(\) and extract"),
    ],
)
def test_an_argument_that_could_never_work_is_refused_by_its_name(
    tmp_path: Path, wrong: dict[str, Any], says: str
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(RegistrationError, match=f"^{says}"):
        OutboxEventDispatcher({Counted: Recorder()}, **{"inner": INNER["sync"], "store": OutboxStore(database)} | wrong)
    database.close()


@ENGINES
def test_a_handler_whose_result_is_a_generator_has_failed(
    database: Database, background: Background, inner: str, resend: timedelta | None
) -> None:
    class Yielding:
        def handle(self, event: Counted) -> object:
            return (each for each in [event])

    reported: list[FailedDelivery] = []
    outbox = background.outbox({Counted: Yielding()}, database, inner, on_failure=reported.append, resend=resend)
    outbox.dispatch(Counted())
    until(lambda: entries(database) == 0)
    assert [type(failed.exception) for failed in reported] == [TypeError]


def test_a_handler_that_has_not_begun_is_called_with_the_retry_of_its_neighbour(database: Database) -> None:
    store, event = OutboxStore(database), Counted(number=1)
    policy = RetryPolicy(retries=1, backoff=0.001, max_backoff=0.001)
    store.append(event, ["failing", "late", "running"], "relay")
    assert store.begin(event.event_id, "failing")
    assert store.begin(event.event_id, "running")
    store.park(event.event_id, "failing", 1, policy)
    until(lambda: store.claim("relay", 1))
    assert store.begin(event.event_id, "late")
    assert store.begin(event.event_id, "failing")
    assert not store.begin(event.event_id, "running")


AT_ONCE = RetryPolicy(retries=9, backoff=0.001, max_backoff=0.001)


def _sent(database: Database, *keys: str) -> tuple[OutboxStore, Counted]:
    """An event that an engine in other processes was sent for these handlers, which have all begun."""
    store, event = OutboxStore(database), Counted(number=1)
    store.append(event, keys, "relay")
    assert all(store.begin(event.event_id, key) for key in keys)
    return store, event


def _retry(store: OutboxStore, event: Counted, key: str) -> None:
    """Let an attempt of this handler fail, and send the event once more for its next one."""
    store.park(event.event_id, key, 1, AT_ONCE)
    assert [each.pending for each in until(lambda: store.claim("relay", 1))] == [(key,)]


@pytest.mark.parametrize("outcome", ["settled", "parked", "begun"])
def test_a_call_for_the_sake_of_a_neighbour_comes_to_nothing_whatever_became_of_the_neighbour(
    database: Database, outcome: str
) -> None:
    store, event = _sent(database, "failing", "running")
    _retry(store, event, "failing")
    assert store.begin(event.event_id, "failing")
    if outcome == "settled":
        store.settle([(event.event_id, "failing")])
    elif outcome == "parked":
        store.park(event.event_id, "failing", 1, AT_ONCE)
    assert not store.begin(event.event_id, "running")


def test_as_many_calls_come_to_nothing_as_were_for_the_sake_of_a_neighbour(database: Database) -> None:
    store, event = _sent(database, "failing", "running")
    for _ in range(3):
        _retry(store, event, "failing")
        assert store.begin(event.event_id, "failing")
    store.settle([(event.event_id, "failing")])
    assert [bool(store.begin(event.event_id, "running")) for _ in range(3)] == [False] * 3
    assert store.begin(event.event_id, "running")  # the engine's own: the process that ran it is dead


def test_a_handler_is_called_once_for_each_of_its_own_retries_in_whatever_order_calls_arrive(
    database: Database,
) -> None:
    store, event = _sent(database, "first", "second")
    _retry(store, event, "first")
    _retry(store, event, "second")
    assert [bool(store.begin(event.event_id, "second")) for _ in range(2)] == [True, False]
    assert [bool(store.begin(event.event_id, "first")) for _ in range(2)] == [True, False]


def test_a_handler_that_begins_late_is_called_once_though_its_neighbour_has_settled(database: Database) -> None:
    store, event = OutboxStore(database), Counted(number=1)
    store.append(event, ["failing", "late"], "relay")
    assert store.begin(event.event_id, "failing")
    _retry(store, event, "failing")
    assert store.begin(event.event_id, "failing")
    store.settle([(event.event_id, "failing")])
    assert [bool(store.begin(event.event_id, "late")) for _ in range(2)] == [True, False]


def test_a_handler_that_was_parked_when_all_were_sent_the_event_is_called_once_for_its_retry(
    database: Database,
) -> None:
    store, event = _sent(database, "lost", "parked")
    store.park(event.event_id, "parked", 1, RetryPolicy(retries=9, backoff=0.2, max_backoff=0.2))
    store.postpone([event.event_id], timedelta(0))  # its time to be sent again has come
    assert [each.pending for each in store.claim("relay", 1)] == [("lost",)]
    assert [each.pending for each in until(lambda: store.claim("relay", 1))] == [("parked",)]
    assert [bool(store.begin(event.event_id, "parked")) for _ in range(2)] == [True, False]
    assert [bool(store.begin(event.event_id, "lost")) for _ in range(2)] == [True, False]


def test_a_retry_that_has_just_come_due_is_not_taken_for_a_resend_of_everything(database: Database) -> None:
    for _ in range(40):  # the database's clock may be coarser than the moment
        store, event = _sent(database, "failing", "running")
        store.park(event.event_id, "failing", 1, RetryPolicy(retries=1, backoff=0.01, max_backoff=0.01))
        while not (claimed := store.claim("relay", 1)):
            pass
        assert [each.pending for each in claimed] == [("failing",)]
        store.drop(event.event_id)
