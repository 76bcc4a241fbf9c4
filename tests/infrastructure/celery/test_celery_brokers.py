"""Which Celery apps a dispatcher takes: kinds of brokers, several of them, and names that are taken."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from support.celery_kit import Counted, Named, Recorder, app_on, worker_of
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
