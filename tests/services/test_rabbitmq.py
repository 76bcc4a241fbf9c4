"""What the Celery dispatcher makes of RabbitMQ: confirmed, durable, dead-lettered, and waiting in queues."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery
from faults.rabbitmq_node import RabbitNode, server_script
from support.celery_kit import AsyncRecorder, Broker, Counted, Named, Recorder, worker_of
from support.services_kit import Proxy, own_queue
from support.waiting import until

from eventpact.domain.dispatcher import DispatchError, DispatchUncertainError, FailedDelivery, Handlers
from eventpact.infrastructure.celery.app import Role, make_celery, ping
from eventpact.infrastructure.celery.consumer import UnreadableMessage
from eventpact.infrastructure.celery.messages import event_queue
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher

pytestmark = pytest.mark.services


@pytest.fixture
def queue(rabbitmq_service: str) -> Iterator[str]:
    with own_queue(rabbitmq_service) as name:
        yield name


def app_for(url: str, queue: str, role: Role = "worker") -> Celery:
    app = make_celery(Broker(url, celery_queue=queue), role)
    app.conf.broker_heartbeat = 2  # how often an idle worker looks whether it is to stop
    return app


@contextmanager
def dispatching(app: Celery, handlers: Handlers, **options: Any) -> Iterator[CeleryEventDispatcher]:
    dispatcher = CeleryEventDispatcher(app, handlers, **({"backoff": 0.4} | options))
    try:
        yield dispatcher
    finally:
        assert asyncio.run(dispatcher.aclose()) == ()


def count(url: str, queue: str) -> int:
    with kombu.Connection(url) as connection:
        declared = connection.channel().queue_declare(queue, passive=True)
        return int(declared.message_count)


def refused(dispatcher: CeleryEventDispatcher) -> DispatchError:
    started = time.monotonic()
    with pytest.raises(DispatchError) as caught:
        dispatcher.dispatch(Counted())
    assert time.monotonic() - started < 2
    return caught.value


def test_events_wait_for_a_worker_that_has_never_been_there(rabbitmq_service: str, queue: str) -> None:
    handler, event = Recorder(), Named(email="ada@example.com")
    with dispatching(app_for(rabbitmq_service, queue, "web"), {Named: handler}) as dispatcher:
        dispatcher.dispatch(event)
    app = app_for(rabbitmq_service, queue)
    with dispatching(app, {Named: handler}), worker_of(app):
        until(lambda: handler.events)
    assert handler.events == [event]


def test_only_what_failed_is_tried_again_and_no_worker_is_held_up_meanwhile(rabbitmq_service: str, queue: str) -> None:
    failures: list[FailedDelivery] = []
    well, ill, hopeless = Recorder(), AsyncRecorder(failures=3), Recorder(failures=99)
    app = app_for(rabbitmq_service, queue)
    handlers = {Counted: [well, ill, hopeless]}
    with dispatching(app, handlers, on_failure=failures.append) as dispatcher, worker_of(app):
        dispatcher.dispatch(Counted(number=1))
        until(lambda: failures)
    assert (len(well.events), len(ill.events), len(hopeless.events)) == (1, 4, 4)
    assert hopeless.waits[-1] > hopeless.waits[0]
    assert [(failed.handler, failed.attempts) for failed in failures] == [(hopeless, 4)]
    assert count(rabbitmq_service, queue) == count(rabbitmq_service, f"{queue}.dead") == 0


def test_where_a_retry_will_wait_is_there_before_the_first(rabbitmq_service: str, queue: str) -> None:
    """A node that is killed just after a quorum queue was declared does not bring it back, nor what is in it."""
    app = app_for(rabbitmq_service, queue)
    with dispatching(app, {Counted: Recorder()}, retries=2), worker_of(app):
        assert [count(rabbitmq_service, f"{queue}.retry.{attempt}") for attempt in (2, 3)] == [0, 0]


@pytest.mark.skipif(server_script() is None, reason="there is no rabbitmq-server here to start and kill")
@pytest.mark.timeout(100)
def test_what_was_accepted_survives_the_broker_once_its_queue_is_written_down(tmp_path: Path) -> None:
    handler, event, name = Recorder(), Counted(number=1), "written-down"
    with RabbitNode(tmp_path) as node:
        with dispatching(app_for(node.url, name, "web"), {Counted: handler}) as dispatcher:
            dispatcher.dispatch(event)
        until(lambda: node.has_written_down(name, f"{name}.dead"))
        node.kill()
        node.start()
        app = app_for(node.url, name)
        with dispatching(app, {Counted: handler}), worker_of(app):
            until(lambda: handler.events, 60)
    assert handler.events == [event]


def test_a_failed_delivery_that_its_sink_does_not_take_is_kept_in_the_dead_letter_queue(
    rabbitmq_service: str, queue: str
) -> None:
    def away(_: FailedDelivery) -> None:
        raise OSError("the database is away")

    app = app_for(rabbitmq_service, queue)
    handlers: Handlers = {Counted: Recorder(failures=99)}
    with dispatching(app, handlers, on_failure=away, retries=0) as dispatcher, worker_of(app):
        dispatcher.dispatch(Counted())
        until(lambda: count(rabbitmq_service, f"{queue}.dead") == 1)


def test_a_queue_that_was_deleted_is_declared_anew_and_nothing_is_lost(rabbitmq_service: str, queue: str) -> None:
    with dispatching(app_for(rabbitmq_service, queue, "web"), {Counted: Recorder()}) as dispatcher:
        dispatcher.dispatch(Counted())
        with kombu.Connection(rabbitmq_service) as connection:
            connection.channel().queue_delete(queue)
        dispatcher.dispatch(Counted())
        assert count(rabbitmq_service, queue) == 1


def test_a_queue_of_another_type_is_a_refusal(rabbitmq_service: str, queue: str) -> None:
    with kombu.Connection(rabbitmq_service) as connection:
        connection.channel().queue_declare(queue, durable=True, auto_delete=False)
    with dispatching(app_for(rabbitmq_service, queue, "web"), {Counted: Recorder()}) as dispatcher:
        assert "PreconditionFailed" in str(refused(dispatcher))


def test_a_connection_that_is_cut_is_replaced_and_a_broker_that_is_away_refuses(
    rabbitmq_service: str, queue: str
) -> None:
    with Proxy(rabbitmq_service) as proxy:
        app = app_for(proxy.url, queue, "web")
        with dispatching(app, {Counted: Recorder()}) as dispatcher:
            dispatcher.dispatch(Counted())
            proxy.cut()
            assert not isinstance(refused(dispatcher), DispatchUncertainError)
            proxy.open()
            dispatcher.dispatch(Counted())
            proxy.cut()
            proxy.open()
            dispatcher.dispatch(Counted())
            assert count(rabbitmq_service, queue) == 3


def test_a_held_connection_on_which_the_broker_falls_silent_or_slow_is_given_up_in_time(
    rabbitmq_service: str, queue: str
) -> None:
    """Giving it up takes no time: to part in good order would take as many answers as the broker does not give."""
    with Proxy(rabbitmq_service) as proxy:
        app = app_for(proxy.url, queue, "web")
        with dispatching(app, {Counted: Recorder()}) as dispatcher:
            dispatcher.dispatch(Counted())
            proxy.stall()
            assert isinstance(refused(dispatcher), DispatchUncertainError)
            proxy.resume()
            dispatcher.dispatch(Counted())
            proxy.delay = 0.6
            assert isinstance(refused(dispatcher), DispatchUncertainError)
            proxy.delay = 0.0


def test_what_no_worker_can_read_is_told_and_kept_in_the_dead_letter_queue(rabbitmq_service: str, queue: str) -> None:
    told: list[UnreadableMessage] = []
    handler = Recorder()
    app = app_for(rabbitmq_service, queue)
    with dispatching(app, {Counted: handler}, on_unreadable=told.append) as dispatcher:
        dispatcher.dispatch(Counted())
        with worker_of(app), kombu.Connection(rabbitmq_service) as connection:
            until(lambda: handler.events)
            producer = connection.Producer()
            ours = event_queue(queue, amqp=True)
            stock = Celery(broker=rabbitmq_service, set_as_current=False)
            stock.send_task("handle_Renamed", args=[{}], queue=ours, connection=connection)
            stock.send_task("handle_Counted", args=["nonsense"], queue=ours, connection=connection)
            producer.publish(b"garbage", exchange="", routing_key=queue, content_type="application/json")
            producer.publish({"no": "task"}, exchange="", routing_key=queue)
            producer.publish(["pickled"], exchange="", routing_key=queue, serializer="pickle")
            for header in ({"timelimit": ["a", "b"]}, {"stamped_headers": 5}, {"expires": "2020-01-01T00:00:00+00:00"}):
                named = {"task": "handle_Counted", "id": "1", **header}
                producer.publish([[Counted().to_dict()], {}, {}], exchange="", routing_key=queue, headers=named)
            until(lambda: len(told) == 8 and count(rabbitmq_service, f"{queue}.dead") == 8)
            dispatcher.dispatch(Counted())
            until(lambda: len(handler.events) == 2)
    assert {message.name for message in told} == {"handle_Renamed", "handle_Counted", None}
    assert count(rabbitmq_service, queue) == 0


POISON = """
import os, sys
from support.celery_kit import Broker, Counted
from eventpact.infrastructure.celery.app import make_celery
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher

class Poison:
    def handle(self, event):
        with open(sys.argv[3], "a") as journal:
            journal.write(f"{event.number}\\n")
        if event.number < 0:
            os.kill(os.getpid(), 9)

app = make_celery(Broker(sys.argv[1], celery_queue=sys.argv[2]), "worker")
dispatcher = CeleryEventDispatcher(app, {Counted: Poison()})
app.worker_main(["worker", "--concurrency", "1", "--without-gossip", "--without-mingle"])
"""


def test_an_event_that_kills_its_worker_each_time_ends_in_the_dead_letter_queue(
    rabbitmq_service: str, queue: str, tmp_path: Any
) -> None:
    journal = tmp_path / "journal"
    journal.touch()
    with dispatching(app_for(rabbitmq_service, queue, "web"), {Counted: Recorder()}) as dispatcher:
        dispatcher.dispatch(Counted(number=-1))
        dispatcher.dispatch(Counted(number=7))
    worker = subprocess.Popen(
        [sys.executable, "-c", POISON, rabbitmq_service, queue, str(journal)],
        env=os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(__file__))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        until(lambda: count(rabbitmq_service, f"{queue}.dead") == 1, 60)
        until(lambda: "7" in journal.read_text().split())
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
    assert journal.read_text().split().count("-1") == 6  # once, and redelivered five times
    assert count(rabbitmq_service, queue) == 0


def test_connections_that_are_not_trusted_any_more_hold_up_neither_dispatching_nor_closing(
    rabbitmq_service: str, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(rabbitmq_service) as proxy:
        dispatcher = CeleryEventDispatcher(app_for(proxy.url, queue, "web"), {Counted: Recorder()})
        proxy.delay = 0.01  # so that eight publish at a time, each over a connection of its own
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(dispatcher.dispatch, [Counted() for _ in range(16)]))
        proxy.stall()
        with monkeypatch.context() as patch:
            patch.setattr("eventpact.infrastructure.celery.publisher._IDLE", 0.0)
            refused(dispatcher)
        proxy.delay = 0.0
        proxy.resume()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(dispatcher.dispatch, [Counted() for _ in range(16)]))
        proxy.stall()
        started = time.monotonic()
        assert asyncio.run(dispatcher.aclose(0.5)) == ()
        assert time.monotonic() - started < 1.5
        proxy.resume()


@pytest.mark.skipif(server_script() is None, reason="there is no rabbitmq-server here to raise the alarm of")
@pytest.mark.timeout(100)
def test_a_broker_with_an_alarm_is_not_ready_though_it_answers(
    tmp_path: Path, rabbitmq_service: str, queue: str
) -> None:
    """It lets publishers connect and wait, so that without the outbox each sign-up would be refused."""
    ping(app_for(rabbitmq_service, queue, "web"))
    assert count(rabbitmq_service, queue) == 0
    with RabbitNode(tmp_path, "vm_memory_high_watermark.absolute = 1") as node:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            ping(app_for(node.url, "alarmed", "web"))
        assert time.monotonic() - started < 3
