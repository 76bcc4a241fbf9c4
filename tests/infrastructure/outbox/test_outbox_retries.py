"""A delivery that fails is tried again later, whatever the inner dispatcher is, and whatever happens meanwhile."""

import threading
import time
from datetime import timedelta
from itertools import pairwise

import pytest
import sqlalchemy as sa
from support.outbox_kit import AsyncRecorder, Background, Counted, Recorder
from support.waiting import until

from eventpact.domain.dispatcher import FailedDelivery, PermanentFailureError
from eventpact.infrastructure.dispatching.failures import RetryPolicy
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.persistence.database import Database

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
    # Each is half of the longest, at least.
    assert all(wait >= least for wait, least in zip(waits, (0.1, 0.2, 0.4), strict=True))
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
