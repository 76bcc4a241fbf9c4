"""An outbox over Celery, on a real broker with a real worker: retries and resends are the outbox's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from support.celery_kit import AsyncRecorder, Counted, Recorder, app_on, worker_of
from support.outbox_kit import Background
from support.waiting import until

from eventpact.domain.dispatcher import EventDispatcher, FailedDelivery, FailureSink, Handlers
from eventpact.infrastructure.celery.messages import queue_of
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.outbox_dispatcher import OutboxEventDispatcher
from eventpact.infrastructure.persistence.database import Database

pytestmark = [pytest.mark.parametrize("database", ["sqlite"], indirect=True)]


@pytest.fixture(params=["valkey", pytest.param("rabbitmq_service", marks=pytest.mark.services)])
def app(request: pytest.FixtureRequest) -> Iterator[Celery]:
    app = app_on(request.getfixturevalue(request.param))
    yield app
    with app.connection_for_write() as connection:
        if request.param != "valkey":
            queue_of(app)(connection.channel()).delete()


@contextmanager
def outbox_over(
    app: Celery, handlers: dict[type, Any], database: Database, background: Background, **options: Any
) -> Iterator[OutboxEventDispatcher]:
    """A dispatcher that both dispatches and works, as one process of each would."""

    def celery(handlers: Handlers, on_failure: FailureSink) -> EventDispatcher:
        return CeleryEventDispatcher(app, handlers, on_failure=on_failure, retries=0)

    options = {"resend": timedelta(seconds=1), "poll": 0.05, "backoff": 0.1} | options
    outbox = OutboxEventDispatcher(handlers, celery, OutboxStore(database), **options)
    try:
        yield outbox
    finally:
        background.close(outbox)


def entries(database: Database) -> int:
    return OutboxStore(database).backlog().entries


def test_a_delivery_that_fails_in_a_worker_is_tried_again(
    app: Celery, database: Database, background: Background
) -> None:
    failing, spared, reported = AsyncRecorder(failures=2), Recorder(), list[FailedDelivery]()
    options: dict[str, Any] = {"on_failure": reported.append, "retries": 2}
    with outbox_over(app, {Counted: [failing, spared]}, database, background, **options) as outbox, worker_of(app):
        outbox.dispatch(Counted(number=1))
        until(lambda: entries(database) == 0, 30)
    assert (len(failing.events), len(spared.events), reported) == (3, 1, [])


def test_messages_wait_once_without_a_worker_and_lost_ones_are_sent_again(
    app: Celery, database: Database, background: Background
) -> None:
    handler = Recorder()
    with outbox_over(app, {Counted: handler}, database, background, resend=timedelta(seconds=0.2)) as outbox:
        engine: Any = outbox._inner
        assert engine.waiting() == 0
        with database.transaction():
            for number in range(20):
                outbox.dispatch(Counted(number=number))
        until(lambda: engine.waiting() >= 20, 20)
        with app.connection_for_write() as connection:
            queue_of(app)(connection.channel()).purge()
        until(lambda: engine.waiting() >= 20, 20)
        assert engine.waiting() < 40
        with worker_of(app):
            until(lambda: entries(database) == 0, 30)
    assert {event.number for event in handler.events} == set(range(20))
