"""Which Celery apps a dispatcher takes: kinds of brokers, several of them, and names that are taken."""

from __future__ import annotations

import asyncio
import math
import re
import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from celery import Celery
from kombu import Queue
from kombu.common import Broadcast
from support.celery_kit import AsyncRecorder, Counted, Named, Recorder, app_on, worker_of
from support.waiting import until

from eventpact.domain.dispatcher import DispatchError, RegistrationError
from eventpact.infrastructure.celery.task import EventTasks
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher

pytestmark = pytest.mark.slow

REFUSED = "redis://127.0.0.1:1/0"


def closed(dispatcher: CeleryEventDispatcher) -> None:
    assert asyncio.run(dispatcher.aclose(5)) == ()


@pytest.mark.parametrize(
    "written",
    [
        lambda down, up: [down, up],
        lambda down, up: (up, down),
        lambda down, up: f"{down};{up}",
        lambda down, up: f"{up};{down}",
    ],
)
def test_of_several_brokers_the_one_that_answers_is_used(written: Callable[[str, str], Any], valkey: str) -> None:
    handler = Recorder()
    app = app_on(valkey)
    app.conf.broker_url = written(REFUSED, valkey)
    dispatcher = CeleryEventDispatcher(app, {Counted: handler})
    consumer = app_on(valkey, celery_queue=app.conf.task_default_queue)
    tasks = EventTasks(consumer, {Counted: handler})
    with worker_of(consumer):
        for number in range(3):
            dispatcher.dispatch(Counted(number=number))
        until(lambda: len(handler.events) == 3)
    closed(dispatcher)
    tasks.close(5)


def test_of_several_brokers_one_that_never_answers_delays_the_first_dispatch_only(valkey: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        app = app_on(valkey)
        app.conf.broker_url = [url, valkey]
        dispatcher = CeleryEventDispatcher(app, {Counted: Recorder()})
        try:
            dispatcher.dispatch(Counted())
        except DispatchError:
            dispatcher.dispatch(Counted())
        dispatcher.dispatch(Counted())
        closed(dispatcher)


def test_several_brokers_that_are_all_down_refuse() -> None:
    app = Celery("down", broker=[REFUSED, "redis://127.0.0.1:2/0"], set_as_current=False)  # type: ignore[arg-type]
    dispatcher = CeleryEventDispatcher(app, {Counted: Recorder()})
    with pytest.raises(DispatchError, match="cannot be reached"):
        dispatcher.dispatch(Counted())
    closed(dispatcher)


def test_a_broker_that_refuses_the_connection_is_not_said_to_be_down(valkey: str) -> None:
    app = Celery("refused", broker=urlsplit(valkey)._replace(path="/99").geturl(), set_as_current=False)
    dispatcher = CeleryEventDispatcher(app, {Counted: Recorder()}, consume=False)
    with pytest.raises(DispatchError, match=r"was refused by the broker: .*out of range; check its URL"):
        dispatcher.dispatch(Counted())
    closed(dispatcher)


def test_a_broker_in_memory_serves_one_process() -> None:
    handler = Recorder(failures=1)
    app = Celery("memory", broker="memory://", set_as_current=False)
    dispatcher = CeleryEventDispatcher(app, {Counted: handler}, backoff=0.1)
    with worker_of(app):
        dispatcher.dispatch(Counted(number=7))
        until(lambda: len(handler.events) == 2)
    closed(dispatcher)
    assert [event.number for event in handler.events] == [7, 7]


@pytest.mark.parametrize(
    ("broker", "kind"),
    [
        ("sqla+sqlite:///x.db", "sql"),
        ("filesystem://", "filesystem"),
        ("nosuch://host", "nosuch"),
        (["redis://a", "amqp://b"], "amqp and redis"),
        ("amqp://b;memory://", "amqp and memory"),
    ],
)
def test_another_broker_is_refused_when_built(broker: Any, kind: str) -> None:
    app = Celery("other", broker=broker, set_as_current=False)
    with pytest.raises(RegistrationError, match=rf"is {kind}; give it one of redis://, .*, amqp://"):
        CeleryEventDispatcher(app, {Counted: Recorder()})


def test_a_second_dispatcher_for_an_event_of_one_app_is_refused() -> None:
    app = Celery("shared", broker="memory://", set_as_current=False)
    first = CeleryEventDispatcher(app, {Counted: Recorder()})
    with pytest.raises(RegistrationError, match="has a task handle_Counted already"):
        CeleryEventDispatcher(app, {Named: Recorder(), Counted: Recorder()})
    assert "handle_Named" not in app.tasks  # it was refused as a whole
    other = CeleryEventDispatcher(app, {Named: Recorder()})
    publisher = CeleryEventDispatcher(app, {Counted: Recorder()}, consume=False)
    closed(first)
    again = CeleryEventDispatcher(app, {Counted: Recorder()})
    for dispatcher in (other, publisher, again):
        closed(dispatcher)


def test_a_task_of_the_app_s_own_is_not_replaced() -> None:
    app = Celery("own", broker="memory://", set_as_current=False)

    @app.task(name="handle_Counted", shared=False)
    def own() -> None: ...

    with pytest.raises(RegistrationError, match="has a task handle_Counted already"):
        CeleryEventDispatcher(app, {Counted: Recorder()})


def test_a_publisher_registers_no_task_and_a_worker_builds_no_dispatcher(valkey: str) -> None:
    handler = Recorder()
    web = app_on(valkey, role="web")
    dispatcher = CeleryEventDispatcher(web, {Counted: handler}, consume=False)
    assert [name for name in web.tasks if name.startswith("handle_")] == []
    app = app_on(valkey, celery_queue=web.conf.task_default_queue)
    tasks = EventTasks(app, {Counted: handler})
    with worker_of(app):
        dispatcher.dispatch(Counted(number=1))
        until(lambda: handler.events)
    closed(dispatcher)
    tasks.close(5)


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"backoff": 20.0, "retries": 1}, True),
        ({"backoff": 2.0, "retries": 2}, True),
        ({"backoff": 2.0, "retries": 9, "max_backoff": 2.9}, False),
        ({"backoff": 2.0, "retries": 1}, False),
        ({"backoff": 20.0, "retries": 0}, False),
    ],
)
def test_on_redis_a_wait_beyond_the_visibility_time_out_is_refused(options: dict[str, Any], refused: bool) -> None:
    app = Celery("visible", broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.broker_transport_options = {"visibility_timeout": 3}
    if not refused:
        EventTasks(app, {Counted: Recorder()}, **options).close(1)
        return
    with pytest.raises(RegistrationError, match=r"^a retry waits up to .*visibility_timeout.*EVENTPACT_RETRY_BACKOFF$"):
        CeleryEventDispatcher(app, {Counted: Recorder()}, **options)


def test_a_route_of_the_app_is_taken_by_events_and_their_retries(valkey: str) -> None:
    routed, unrouted = Recorder(failures=1), Recorder()
    queue = f"test-{uuid4().hex}"
    app = app_on(valkey, "web")
    app.conf.task_queues = None
    app.conf.task_create_missing_queues = True
    app.conf.task_routes = {"handle_C*": {"queue": queue}, "their.*": {"exchange": "theirs", "routing_key": "theirs"}}
    dispatcher = CeleryEventDispatcher(app, {Counted: routed, Named: unrouted}, retries=1, backoff=0.1)
    dispatcher.dispatch(Counted())
    dispatcher.dispatch(Named(email="ada@example.com"))
    assert dispatcher.waiting() == 2
    with worker_of(app, queues=[queue]):
        until(lambda: len(routed.events) == 2)
    assert (dispatcher.waiting(), unrouted.events) == (1, [])
    with worker_of(app, queues=[app.conf.task_default_queue]):
        until(lambda: unrouted.events)
    closed(dispatcher)


def raising(*_: object, **__: object) -> None:
    raise LookupError("no such task")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"task_routes": {"handle_*": {"exchange": "events", "routing_key": "e"}}},
            "by exchange, routing_key; give it",
        ),
        ({"task_routes": {"handle_*": {"queue": "events", "priority": 3}}}, "by priority; give it a route that names"),
        ({"task_routes": {"handle_*": {"queue": Broadcast("all")}}}, "an exchange for all queues"),
        ({"task_routes": {"handle_*": "gone"}, "task_create_missing_queues": False}, "no queue for handle_Counted"),
        ({"task_routes": [(re.compile("handle_.*"), {"queue": "events"})]}, "no queue for handle_Counted .TypeError"),
        ({"task_routes": raising}, "no queue for handle_Counted .LookupError: no such task."),
        ({"task_queues": [Queue("theirs")]}, "the queue of handle_Counted is celery, which is not in the task_queues"),
        ({"task_queues": {"theirs": {}}, "task_create_missing_queues": False}, "no queue for handle_Counted"),
    ],
)
@pytest.mark.parametrize("consume", [True, False])
def test_a_route_that_no_event_could_take_is_refused(settings: dict[str, Any], says: str, consume: bool) -> None:
    app = Celery("routed", broker="memory://", set_as_current=False)
    app.conf.update(settings)
    with pytest.raises(RegistrationError, match=says):
        CeleryEventDispatcher(app, {Counted: Recorder()}, consume=consume)


def test_an_exchange_of_the_app_keeps_no_event_from_its_queue(valkey: str) -> None:
    app = app_on(valkey, "web")
    app.conf.task_queues = None
    app.conf.task_default_exchange, app.conf.task_default_exchange_type = f"test-{uuid4().hex}", "topic"
    dispatcher = CeleryEventDispatcher(app, {Counted: Recorder()}, consume=False)
    dispatcher.dispatch(Counted())
    assert dispatcher.waiting() == 1  # though no worker has bound it to the exchange
    closed(dispatcher)


@pytest.mark.parametrize(
    ("broker", "settings", "says"),
    [
        ("memory://", {"task_always_eager": True}, "leave it out, or build a SyncEventDispatcher"),
        ("memory://", {"accept_content": ["pickle"]}, "let accept_content hold json"),
        ("memory://", {"accept_content": ["nosuch"]}, "let accept_content hold json"),
        ("memory://", {"task_compression": "nosuch"}, "task_compression name a method that is installed"),
        ("redis://h", {"broker_transport_options": {"visibility_timeout": None}}, "give a number of seconds"),
        ("redis://h", {"broker_transport_options": {"visibility_timeout": "3600"}}, "give a number of seconds"),
        ("redis://h", {"broker_transport_options": {"visibility_timeout": math.nan}}, "give a number of seconds"),
        ("redis://h/events", {}, "no connection can be made"),
        ("redis://h?visibility_timeout=1", {}, "no connection .* argument 'visibility_timeout'"),
        ("redis://h:bad", {}, "no connection can be made with the broker redis://.* as 'bad'"),
        ("redis://:hunter2/@h", {}, "no connection can be made with the broker redis://… of the Celery app"),
        ("amqp://h:99999//", {}, "no connection can be made with the broker amqp://.* out of range"),
        ("amqp://h//?connect_timeout=soon", {}, "connect_timeout is no number"),
        ("redis://h;redis://h:bad", {}, "no connection can be made"),
        ("sentinel://h", {}, "master_name"),
        ("kafka://h", {}, "is kafka; give it one of redis://"),
    ],
)
@pytest.mark.parametrize("consume", [True, False])
def test_an_app_that_no_event_could_be_published_with_is_refused(
    broker: str, settings: dict[str, Any], says: str, consume: bool
) -> None:
    app = Celery("impossible", broker=broker, set_as_current=False)
    app.conf.update(settings)
    with pytest.raises(RegistrationError, match=says) as caught:
        CeleryEventDispatcher(app, {Counted: Recorder()}, consume=consume)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"task_serializer": "pickle"}, {"task_compression": "gzip"}])
def test_events_are_json_whatever_the_other_tasks_of_the_app_are(settings: dict[str, Any]) -> None:
    handler = Recorder()
    app = Celery("serializing", broker="memory://", set_as_current=False)
    app.conf.update(settings, task_default_queue=f"test-{uuid4().hex}")
    dispatcher = CeleryEventDispatcher(app, {Counted: handler})
    with worker_of(app):
        dispatcher.dispatch(Counted(number=7))
        until(lambda: handler.events)
    closed(dispatcher)
    assert handler.events[0].number == 7


def test_what_is_no_app_no_agreement_and_no_sink_is_refused() -> None:
    app: Any
    for app in (None, "redis://h"):
        with pytest.raises(RegistrationError, match=r"give a celery\.Celery"):
            CeleryEventDispatcher(app, {Counted: Recorder()})
    app = Celery("agreed", broker="memory://", set_as_current=False)
    agreement: Any
    for agreement in ("x", {"a": 1}, {1: "a"}, []):
        with pytest.raises(RegistrationError, match="give a dictionary of texts"):
            CeleryEventDispatcher(app, {Counted: Recorder()}, agreement=agreement, consume=False)
        with pytest.raises(RegistrationError, match="give a dictionary of texts"):
            EventTasks(app, {Counted: Recorder()}, agreement=agreement)
    sink: Any
    for sink in ("x", lambda: None, AsyncRecorder().handle):
        with pytest.raises(RegistrationError, match="the sink of unreadable messages is"):
            CeleryEventDispatcher(app, {Counted: Recorder()}, on_unreadable=sink)


@pytest.mark.parametrize("broker", ["valkey", "memory://"])
def test_messages_that_no_worker_has_taken_are_counted(broker: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("valkey") if broker == "valkey" else broker
    app = Celery("counted", broker=url, set_as_current=False)
    app.conf.task_default_queue = f"test-{uuid4().hex}"
    dispatcher = CeleryEventDispatcher(app, {Counted: Recorder()}, consume=False)
    for _ in range(3):
        dispatcher.dispatch(Counted())
    assert dispatcher.waiting() == 3
    closed(dispatcher)
