"""Unreadable messages, and an event that kills the process that handles it."""

from __future__ import annotations

import time
from typing import Final
from uuid import uuid4

import kombu
import sqlalchemy as sa
from celery import Celery

from eventpact.infrastructure.celery.messages import event_queue
from eventpact.infrastructure.outbox.entries import outbox
from faults.columns import Column
from faults.fault import fault, needs_worker
from faults.world import World

__all__: list[str] = []

_UNREACHABLE_SECONDS: Final = 5.0
_LOG_BYTES_PER_SECOND: Final = 20_000


def _needs_a_place(column: Column) -> str:
    return "" if column.broker or column.outbox else "no message is written anywhere"


@fault("poison-handler")
def poison(world: World) -> float:
    """The handler of one event kills its process each time, which is started again each time; others sign up."""
    started_at = time.monotonic()
    world.poisoned.update(world.sign_up(1, name="poison"))

    def settled() -> bool:
        if not world.server.is_running():
            world.server.ended(0)
            world.kills += 1
            world.server.start()
        elif not others:
            others.extend(world.sign_up(3))
        mailed = {address for address, _ in world.mail.mails}
        return bool(others) and world.accepted() & set(others) <= mailed and world.is_kept(world.poisoned)

    others: list[str] = []
    patience = world.options.patience if world.column.promises else 10.0
    world.comes_about(settled, patience)
    if world.column.has_worker:
        world.kills += world.worker.crashes()
    return started_at


@fault("garbage", not_for=_needs_a_place)
def garbage(world: World) -> float:
    """Garbage, a pickle and an unknown event are where events are expected, between the events of people."""
    world.sign_up(2)
    started_at = time.monotonic()
    if world.column.broker:
        world.unreadable += _publish(world)
    if world.column.outbox:
        world.unreadable += _write(world)
    world.sign_up(2)
    _until_kept(world)
    return started_at


@fault("garbage-without-database", not_for=needs_worker, postgres=True, passing=True)
def garbage_without_database(world: World) -> float:
    """Unreadable messages wait for the worker while it cannot reach the database that it would keep them in."""
    assert world.database is not None
    world.database.cut()
    world.unreadable += _publish(world)
    logged, began = world.worker.log_size(), time.monotonic()
    world.comes_about(lambda: time.monotonic() > began + _UNREACHABLE_SECONDS, 2 * _UNREACHABLE_SECONDS)
    rate = (world.worker.log_size() - logged) / (time.monotonic() - began)
    world.expect(rate < _LOG_BYTES_PER_SECOND, f"the worker logs {rate / 1000:.0f} KB a second")
    world.database.open()
    opened_at = time.monotonic()
    world.sign_up(2)
    _until_kept(world)
    return opened_at


def _until_kept(world: World) -> None:
    kept = f"the keeping of {world.unreadable} unreadable messages"
    world.until(lambda: world.evidence.unreadable() >= world.unreadable, kept, world.options.patience)


def _publish(world: World) -> int:
    """Put unreadable messages where the worker takes its events from; how many."""
    queue = event_queue(world.queue, amqp=world.column.broker == "amqp")
    with kombu.Connection(world.broker.url) as connection:
        producer = connection.Producer()
        stock = Celery(broker=world.broker.url, set_as_current=False)
        stock.send_task("handle_Renamed", args=[{}], queue=queue, connection=connection)
        stock.send_task("handle_AccountCreatedEvent", args=["nonsense"], queue=queue, connection=connection)
        producer.publish(b"garbage", exchange="", routing_key=world.queue, content_type="application/json")
        producer.publish({"no": "task"}, exchange="", routing_key=world.queue)
        producer.publish(["pickled"], exchange="", routing_key=world.queue, serializer="pickle")
    return 5


def _write(world: World) -> int:
    """Put unreadable rows into the outbox; how many."""
    rows = [("RenamedEvent", "{}"), ("AccountCreatedEvent", "garbage"), ("AccountCreatedEvent", '{"account_id": 1}')]
    with world.evidence.connect() as connection:
        for name, payload in rows:
            connection.execute(
                sa.insert(outbox).values(
                    entry_id=uuid4(),
                    event_id=uuid4(),
                    name=name,
                    payload=payload,
                    pending='["nobody"]',
                    appended_at=sa.func.current_timestamp(),
                )
            )
    return len(rows)
