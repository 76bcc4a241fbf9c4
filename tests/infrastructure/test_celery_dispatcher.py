"""What the Celery dispatcher does, with a real Valkey and a worker in this process."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import redis
from celery import Celery, current_task, signals
from celery.exceptions import Reject
from fastapi import FastAPI
from support.celery_kit import AsyncRecorder, Counted, Named, Recorder, app_on, worker_of
from support.services_kit import steady_port
from support.waiting import until

from eventpact.domain.dispatcher import (
    Delivery,
    DispatcherClosedError,
    EventDispatcher,
    FailedDelivery,
    Guarantees,
    Handlers,
    Ordering,
    PermanentFailureError,
    RegistrationError,
)
from eventpact.domain.events import DomainEvent
from eventpact.domain.wire import WireError
from eventpact.infrastructure.celery.messages import task_name
from eventpact.infrastructure.celery.task import FailedDeliveryError
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher
from eventpact.infrastructure.dispatching.context import VariableCarrier
from eventpact.infrastructure.dispatching.subscriptions import handler_name


@contextmanager
def dispatching(app: Celery, handlers: Handlers, **options: Any) -> Iterator[CeleryEventDispatcher]:
    dispatcher = CeleryEventDispatcher(app, handlers, **({"backoff": 0.2} | options))
    try:
        yield dispatcher
    finally:
        assert asyncio.run(dispatcher.aclose()) == ()


@contextmanager
def working(url: str, handlers: Handlers, **options: Any) -> Iterator[CeleryEventDispatcher]:
    """A dispatcher, and a worker for it."""
    app = app_on(url)
    with dispatching(app, handlers, **options) as dispatcher, worker_of(app):
        yield dispatcher


def queued(url: str, app: Celery) -> list[dict[str, Any]]:
    with redis.Redis.from_url(url) as client:
        return [json.loads(raw) for raw in client.lrange(app.conf.task_default_queue, 0, -1)]  # type: ignore[union-attr]


def test_plain_and_async_handlers_receive_an_equal_event_in_the_worker(valkey: str) -> None:
    plain, coroutine = Recorder(), AsyncRecorder()
    event = Named(email="ada@example.com")
    with working(valkey, {Named: [plain, coroutine]}) as dispatcher:
        dispatcher.dispatch(event)
        until(lambda: plain.events and coroutine.events)
    assert plain.events == coroutine.events == [event]


@dataclass(frozen=True, kw_only=True)
class Ordered(Counted):
    """Its number grows when it is made, up to 20; more than that it does not take."""

    def __post_init__(self) -> None:
        if self.number > 20:
            raise ValueError(self.number)
        object.__setattr__(self, "number", self.number + 2)


def test_what_an_event_s_class_makes_of_it_is_made_once(valkey: str) -> None:
    handler = Recorder()
    event = Ordered(number=10)
    with working(valkey, {Ordered: handler}) as dispatcher:
        with pytest.raises(WireError, match="Ordered cannot be made again from its own fields"):
            dispatcher.dispatch(Ordered(number=20))
        dispatcher.dispatch(event)
        until(lambda: handler.events)
    assert handler.events == [event]


@pytest.mark.parametrize("consume", [True, False])
@pytest.mark.parametrize(
    "options", [{"retries": -1}, {"backoff": float("nan")}, {"max_backoff": "9"}, {"context": "id"}]
)
def test_an_option_that_could_never_work_is_refused_when_it_is_built(options: dict[str, Any], consume: bool) -> None:
    with pytest.raises(RegistrationError, match=rf"^{next(iter(options))} is "):
        CeleryEventDispatcher(app_on("memory://"), {Counted: Recorder()}, consume=consume, **options)


def test_it_is_dispatched_to_from_coroutines_from_threadpool_endpoints_and_from_threads(valkey: str) -> None:
    handler = Recorder()

    async def call(dispatcher: EventDispatcher) -> None:
        app = FastAPI()

        @app.get("/async")
        async def endpoint() -> None:
            dispatcher.dispatch(Counted(number=1))

        @app.get("/plain")
        def plain_endpoint() -> None:
            dispatcher.dispatch(Counted(number=2))

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            for path in ("/async", "/plain"):
                assert (await client.get(path)).status_code == 200

    with working(valkey, {Counted: handler}) as dispatcher:
        asyncio.run(call(dispatcher))
        thread = threading.Thread(target=dispatcher.dispatch, args=(Counted(number=3),))
        thread.start()
        thread.join()
        until(lambda: len(handler.events) == 3)
    assert {event.number for event in handler.events} == {1, 2, 3}


@pytest.mark.slow
def test_events_of_many_threads_are_each_delivered_once(valkey: str) -> None:
    handler = Recorder()
    with working(valkey, {Counted: handler}) as dispatcher, ThreadPoolExecutor(16) as pool:
        for outcome in pool.map(lambda number: dispatcher.dispatch(Counted(number=number)), range(200)):
            assert outcome is None
        until(lambda: len(handler.events) >= 200)
    assert sorted(event.number for event in handler.events) == list(range(200))


def test_only_what_failed_is_tried_again_after_waits_that_grow(valkey: str) -> None:
    well, ill = Recorder(), AsyncRecorder(failures=3)
    failures: list[FailedDelivery] = []
    with working(valkey, {Counted: [well, ill]}, on_failure=failures.append) as dispatcher:
        dispatcher.dispatch(Counted())
        until(lambda: len(ill.events) == 4)
    assert len(well.events) == 1
    assert failures == []
    # Three quarters of a wait are not random, and what a busy machine adds to one is no part of it.
    assert all(wait >= 0.7 * 0.2 * 2**number for number, wait in enumerate(ill.waits))


def test_a_retry_is_logged_with_its_reason_and_belongs_to_the_task_that_began_it(
    valkey: str, caplog: pytest.LogCaptureFixture
) -> None:
    roots: list[str] = []
    parents: list[str] = []

    class Failing(Recorder):
        def handle(self, event: DomainEvent) -> None:
            roots.append(current_task.request.root_id)
            parents.append(current_task.request.parent_id)
            super().handle(event)

    event, handler = Counted(), Failing(failures=1)
    with working(valkey, {Counted: handler}) as dispatcher:
        dispatcher.dispatch(event)
        until(lambda: len(handler.events) == 2)
    key = f"{Failing.__module__}.{Failing.__qualname__}"
    [record] = [record for record in caplog.records if "failed: ValueError" in record.getMessage()]
    assert record.getMessage() == f"attempt 1 of Counted {event.event_id} by {key} failed: ValueError"
    told = {field: vars(record).get(field) for field in ("event", "event_id", "handler", "attempt")}
    assert told == {"event": "Counted", "event_id": str(event.event_id), "handler": key, "attempt": 1}
    assert len(roots) == 2
    assert len(set(roots)) == 1
    assert len(set(parents)) == 1


@pytest.mark.parametrize("acks_late", [False, True])
def test_a_retry_that_cannot_be_published_is_a_failure_or_stays_with_the_broker(
    acks_late: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_on(f"redis://127.0.0.1:{steady_port()}", celery_acks_late=acks_late)  # nobody listens there
    handler, event = Recorder(failures=1), Counted()
    failures: list[FailedDelivery] = []
    with dispatching(app, {Counted: handler}, on_failure=failures.append):
        task = app.tasks[task_name(Counted)]
        if acks_late:
            with pytest.raises(Reject) as caught:
                task.run(event.to_dict())
            assert caught.value.requeue is True
            assert "the retry could not be published" in str(caught.value.reason)
            assert failures == []
        else:
            with pytest.raises(FailedDeliveryError):
                task.run(event.to_dict())
            assert [(failed.event, failed.handler, failed.attempts) for failed in failures] == [(event, handler, 1)]
            [record] = [record for record in caplog.records if "could not be published" in record.getMessage()]
            assert record.getMessage() == f"a retry of Counted {event.event_id} could not be published"
            assert (vars(record)["event"], vars(record)["event_id"]) == ("Counted", str(event.event_id))


def test_a_delivery_that_always_fails_is_reported_once_with_all_its_attempts(valkey: str) -> None:
    handler, event = Recorder(failures=99), Counted()
    failures: list[FailedDelivery] = []
    with working(valkey, {Counted: handler}, on_failure=failures.append, retries=2) as dispatcher:
        dispatcher.dispatch(event)
        until(lambda: failures)
    assert len(handler.events) == 3
    (failed,) = failures
    assert (failed.event, failed.handler, failed.attempts) == (event, handler, 3)
    assert isinstance(failed.exception, ValueError)


def test_a_permanent_failure_is_not_tried_again(valkey: str) -> None:
    hopeless, hopeful = Recorder(failures=99, error=PermanentFailureError("no such mailbox")), Recorder(failures=1)
    failures: list[FailedDelivery] = []
    with working(valkey, {Counted: [hopeless, hopeful]}, on_failure=failures.append) as dispatcher:
        dispatcher.dispatch(Counted())
        until(lambda: failures and len(hopeful.events) == 2)
    assert len(hopeless.events) == 1
    assert [(failed.handler, failed.attempts) for failed in failures] == [(hopeless, 1)]


@pytest.mark.parametrize("interruption", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
@pytest.mark.parametrize("kind", [Recorder, AsyncRecorder])
def test_an_interrupted_handler_has_failed_and_the_worker_goes_on(
    valkey: str, interruption: BaseException, kind: type[Recorder]
) -> None:
    handler = kind(failures=1, error=interruption)
    failures: list[FailedDelivery] = []
    with working(valkey, {Counted: handler}, on_failure=failures.append, retries=0) as dispatcher:
        dispatcher.dispatch(Counted(number=1))
        until(lambda: failures)
        dispatcher.dispatch(Counted(number=2))
        until(lambda: len(handler.events) == 2)
    assert [(type(failed.exception), failed.attempts) for failed in failures] == [(type(interruption), 1)]


def test_a_sink_that_raises_breaks_nothing(valkey: str, caplog: pytest.LogCaptureFixture) -> None:
    handler = Recorder(failures=1)

    def sink(_: object) -> None:
        raise RuntimeError("the sink is full")

    with working(valkey, {Counted: handler}, on_failure=sink, retries=0) as dispatcher:
        dispatcher.dispatch(Counted(number=1))
        dispatcher.dispatch(Counted(number=2))
        until(lambda: len(handler.events) == 2 and "the failure sink raised RuntimeError" in caplog.text)


def test_a_handler_in_the_worker_may_dispatch(valkey: str) -> None:
    seen: list[int] = []

    class Countdown:
        dispatcher: CeleryEventDispatcher

        def handle(self, event: Counted) -> None:
            seen.append(event.number)
            if event.number:
                self.dispatcher.dispatch(Counted(number=event.number - 1))

    handler = Countdown()
    with working(valkey, {Counted: handler}) as dispatcher:
        handler.dispatcher = dispatcher
        dispatcher.dispatch(Counted(number=20))
        until(lambda: 0 in seen)
    assert seen == list(range(20, -1, -1))


def test_an_event_without_handler_is_accepted_and_not_published(valkey: str) -> None:
    app = app_on(valkey, role="web")
    with dispatching(app, {Counted: []}) as dispatcher:
        dispatcher.dispatch(Counted())
        dispatcher.dispatch(Named(email="ada@example.com"))
    assert queued(valkey, app) == []


def test_what_is_no_event_is_a_type_error_and_what_comes_after_closing_is_refused(valkey: str) -> None:
    app = app_on(valkey, role="web")
    with dispatching(app, {Counted: Recorder()}) as dispatcher, pytest.raises(TypeError, match="only a DomainEvent"):
        dispatcher.dispatch("event")  # type: ignore[arg-type]
    with pytest.raises(DispatcherClosedError):
        dispatcher.dispatch(Counted())
    assert asyncio.run(dispatcher.aclose()) == ()
    assert queued(valkey, app) == []


def test_the_message_has_the_event_s_id_and_its_headers_no_address(valkey: str) -> None:
    app, event = app_on(valkey, role="web"), Named(email="ada@example.com")
    with dispatching(app, {Named: Recorder()}) as dispatcher:
        dispatcher.dispatch(event)
        dispatcher.dispatch(event)  # again, as after an uncertain outcome: recognisable by its id
    messages = queued(valkey, app)
    assert [message["headers"]["id"] for message in messages] == [str(event.event_id)] * 2
    assert "ada@" not in json.dumps([message["headers"] | message["properties"] for message in messages])
    args, kwargs, _ = json.loads(base64.b64decode(messages[0]["body"]))
    assert (args, kwargs) == ([event.to_dict()], {})
    with redis.Redis.from_url(valkey) as client:
        client.delete(app.conf.task_default_queue)


def test_no_log_of_the_worker_shows_an_address(valkey: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    handler = Recorder(failures=99, error=ValueError("ada@example.com has no mailbox"))
    failures: list[FailedDelivery] = []
    with working(valkey, {Named: handler}, on_failure=failures.append, retries=1) as dispatcher:
        dispatcher.dispatch(Named(email="ada@example.com"))
        until(lambda: failures and "raised expected" in caplog.text)
    shown = [record.getMessage() + str(record.exc_text) for record in caplog.records]
    assert not [line for line in shown if "ada@" in line]


def test_listeners_to_celery_s_signals_see_the_message_and_may_add_headers(valkey: str) -> None:
    """This is how tracing is carried along, by OpenTelemetry for one."""
    published: list[str] = []
    received: list[str | None] = []
    handler = Recorder()

    def before(headers: dict[str, Any], **_: object) -> None:
        headers["traceparent"] = "00-trace"

    def after(sender: str, **_: object) -> None:
        published.append(sender)

    def running(task: Any, **_: object) -> None:
        received.append(task.request.get("traceparent"))

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    signals.task_prerun.connect(running)
    try:
        with working(valkey, {Counted: handler}) as dispatcher:
            dispatcher.dispatch(Counted())
            until(lambda: handler.events)
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
        signals.task_prerun.disconnect(running)
    assert (published, received) == (["handle_Counted"], ["00-trace"])


def test_a_stock_celery_worker_understands_the_message(valkey: str) -> None:
    app = app_on(valkey, role="web")
    stock = Celery(broker=valkey, set_as_current=False)
    stock.conf.task_default_queue = app.conf.task_default_queue
    received: list[object] = []
    event = Counted(number=7)

    @stock.task(name="handle_Counted", shared=False)
    def handle(data: object) -> None:
        received.append(data)

    with dispatching(app, {Counted: Recorder()}) as dispatcher, worker_of(stock):
        dispatcher.dispatch(event)
        until(lambda: received)
    assert received == [event.to_dict()]


@pytest.mark.parametrize(
    ("url", "late", "delivery"),
    [
        ("redis://127.0.0.1/0", None, Delivery.AT_MOST_ONCE),
        ("redis://127.0.0.1/0", True, Delivery.AT_MOST_ONCE),
        ("amqp://127.0.0.1//", None, Delivery.AT_LEAST_ONCE),
        ("amqp://127.0.0.1//", False, Delivery.AT_MOST_ONCE),
    ],
)
def test_it_promises_what_its_broker_and_settings_give(url: str, late: bool | None, delivery: Delivery) -> None:
    with dispatching(app_on(url, celery_acks_late=late), {Counted: Recorder()}, retries=5) as dispatcher:
        assert dispatcher.guarantees == Guarantees(
            blocks_caller=False, retries=5, delivery=delivery, ordering=Ordering.NONE
        )


def test_closing_leaves_no_connection_and_no_thread(valkey: str) -> None:
    with redis.Redis.from_url(valkey) as client:

        def connections() -> int:
            return len(client.client_list())

        before, threads = connections(), set(threading.enumerate())
        app = app_on(valkey, role="web")
        with dispatching(app, {Counted: Recorder()}) as dispatcher, ThreadPoolExecutor(4) as pool:
            list(pool.map(dispatcher.dispatch, [Counted() for _ in range(20)]))
            assert connections() > before
        until(lambda: connections() == before)
        assert set(threading.enumerate()) <= threads
        client.delete(app.conf.task_default_queue)


def test_an_event_that_races_with_closing_is_either_refused_or_published(valkey: str) -> None:
    with redis.Redis.from_url(valkey) as client:
        for _ in range(10):
            app = app_on(valkey, role="web")
            dispatcher = CeleryEventDispatcher(app, {Counted: Recorder()})
            accepted: list[Counted] = []
            started = threading.Event()

            def keep_dispatching(
                dispatcher: CeleryEventDispatcher = dispatcher,
                accepted: list[Counted] = accepted,
                started: threading.Event = started,
            ) -> None:
                while True:
                    event = Counted()
                    try:
                        dispatcher.dispatch(event)
                    except DispatcherClosedError:
                        return
                    accepted.append(event)
                    started.set()

            thread = threading.Thread(target=keep_dispatching)
            thread.start()
            assert started.wait(10)
            assert asyncio.run(dispatcher.aclose()) == ()
            thread.join()
            ids = {message["headers"]["id"] for message in queued(valkey, app)}
            assert ids == {str(event.event_id) for event in accepted}
            client.delete(app.conf.task_default_queue)


def test_dispatchers_on_different_brokers_in_one_process_keep_to_their_own_settings() -> None:
    apps = [app_on("redis://127.0.0.1/0"), app_on("amqp://127.0.0.1//")]
    with dispatching(apps[0], {Counted: Recorder()}), dispatching(apps[1], {Counted: Recorder()}):
        tasks = [app.tasks["handle_Counted"] for app in apps]
        assert [task.acks_late for task in tasks] == [False, True]
        assert [task.reject_on_worker_lost for task in tasks] == [False, True]
        assert [task.app for task in tasks] == apps


class AbortError(BaseException):
    """An interruption of a library's own."""


@pytest.mark.parametrize("kind", [Recorder, AsyncRecorder])
def test_an_interruption_of_a_library_s_own_is_a_failed_attempt(valkey: str, kind: type[Recorder]) -> None:
    ill, neighbour, failures = kind(failures=2, error=AbortError("stop")), Recorder(), list[FailedDelivery]()
    event = Counted()
    with working(valkey, {Counted: [ill, neighbour]}, retries=1, on_failure=failures.append) as dispatcher:
        dispatcher.dispatch(event)
        until(lambda: failures)
    assert len(ill.events) == 2
    assert neighbour.events == [event]
    assert [(failed.handler, type(failed.exception), failed.attempts) for failed in failures] == [(ill, AbortError, 2)]


def test_a_handler_whose_result_is_a_generator_has_failed(valkey: str) -> None:
    class Yielding:
        def handle(self, event: DomainEvent) -> object:
            return (each for each in [event])

    failures: list[FailedDelivery] = []
    with working(valkey, {Counted: Yielding()}, retries=0, on_failure=failures.append) as dispatcher:  # type: ignore[dict-item]
        dispatcher.dispatch(Counted())
        until(lambda: failures)
    assert isinstance(failures[0].exception, TypeError)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_built_before_a_fork_it_publishes_from_the_child_and_the_parent(valkey: str) -> None:
    handler = AsyncRecorder()
    with working(valkey, {Counted: handler}) as dispatcher:
        dispatcher.dispatch(Counted(number=1))
        dispatcher._lock.acquire()  # as a thread of the parent may hold it
        child = os.fork()
        if child == 0:
            status = 1
            try:
                signal.alarm(10)
                dispatcher.dispatch(Counted(number=2))
                status = 0 if asyncio.run(dispatcher.aclose(2)) == () else 2
            finally:
                os._exit(status)
        dispatcher._lock.release()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        dispatcher.dispatch(Counted(number=3))
        until(lambda: len(handler.events) == 3)
    assert sorted(event.number for event in handler.events) == [1, 2, 3]


who: ContextVar[str] = ContextVar("who", default="nobody")


class Asks(Recorder):
    """Keeps who asked, and fails the first time."""

    def __init__(self) -> None:
        super().__init__(failures=1)
        self.asked: list[str] = []

    def handle(self, event: DomainEvent) -> None:
        self.asked.append(who.get())
        super().handle(event)


class AsksAsync(Asks):
    async def handle(self, event: DomainEvent) -> None:  # type: ignore[override]
        super().handle(event)


class OddCarrier:
    """A carrier that fails at both ends."""

    def inject(self) -> dict[str, str]:
        raise ValueError

    def extract(self, carried: Mapping[str, str], /) -> None:
        raise ValueError


def test_a_carrier_takes_context_variables_to_the_handlers_and_their_retries(valkey: str) -> None:
    handlers = [Asks(), AsksAsync()]
    with working(valkey, {Counted: handlers}, context=VariableCarrier({"who": who})) as dispatcher:
        token = who.set("somebody")
        dispatcher.dispatch(Counted())
        who.reset(token)
        until(lambda: all(len(handler.events) == 2 for handler in handlers))
        dispatcher.dispatch(Counted())
        until(lambda: all(len(handler.events) == 3 for handler in handlers))
    assert [handler.asked for handler in handlers] == [["somebody", "somebody", "nobody"]] * 2


def test_a_carrier_that_raises_loses_the_context_but_no_event(valkey: str, caplog: pytest.LogCaptureFixture) -> None:
    handler = Recorder()
    with working(valkey, {Counted: handler}, context=OddCarrier()) as dispatcher:
        dispatcher.dispatch(Counted())
        until(lambda: handler.events)
    assert [record.getMessage() for record in caplog.records if "context" in record.getMessage()] == [
        "the context of an event was lost: its carrier raised"
    ] * 2


@dataclass(frozen=True, kw_only=True)
class Tallied(DomainEvent):
    former_names = ("Counted",)
    number: int = 0
    unit: str = "pieces"


def test_a_message_under_a_former_name_is_handled(valkey: str) -> None:
    class Renamed(Recorder):
        former_names = (handler_name(Recorder()),)

    handler = Renamed(failures=1)
    old = app_on(valkey)
    before = Counted(number=5)
    with dispatching(old, {Counted: Recorder()}, consume=False) as dispatcher:
        dispatcher.dispatch(before)
        (message,) = queued(valkey, old)
        body = json.loads(base64.b64decode(message["body"]))
        body[1] = {"only": [handler_name(Recorder())]}
        message["body"] = base64.b64encode(json.dumps(body).encode()).decode()
        with redis.Redis.from_url(valkey) as client:
            client.lset(old.conf.task_default_queue, 0, json.dumps(message))
    app = app_on(valkey, celery_queue=old.conf.task_default_queue)
    with dispatching(app, {Tallied: handler}), worker_of(app):
        until(lambda: len(handler.events) == 2)
    expected = Tallied(event_id=before.event_id, occurred_at=before.occurred_at, number=5)
    assert handler.events == [expected, expected]


@pytest.mark.slow
def test_inspecting_a_worker_shows_ids_only(valkey: str) -> None:
    entered, release = threading.Event(), threading.Event()

    class Holds:
        def handle(self, event: DomainEvent) -> None:
            entered.set()
            assert release.wait(20)

    app = app_on(valkey)
    event = Named(email="ada@example.com")
    with dispatching(app, {Named: Holds()}) as dispatcher, worker_of(app):
        dispatcher.dispatch(event)
        assert entered.wait(10)
        inspect = app.control.inspect(timeout=3)
        answers = [inspect.active(), inspect.query_task(str(event.event_id))]
        release.set()
    assert all(str(event.event_id) in str(answer) for answer in answers)
    assert "ada@" not in str(answers)
