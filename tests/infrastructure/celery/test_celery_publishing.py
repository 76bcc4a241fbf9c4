"""How the Celery dispatcher refuses, in time, when its broker does not take an event."""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
import redis
from kombu import Queue
from support.celery_kit import Counted, Recorder, app_on, worker_of
from support.waiting import until

from eventpact.domain.dispatcher import DispatchError, DispatchUncertainError, FailedDelivery
from eventpact.infrastructure.celery.app import ping
from eventpact.infrastructure.celery.embedded_broker import EmbeddedBroker
from eventpact.infrastructure.celery.publisher import BrokerConnection, Connector, Publisher
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher

pytestmark = pytest.mark.slow

BOUND = 2.0
"""Seconds: law A5."""


@contextmanager
def dispatcher_on(url: str) -> Iterator[CeleryEventDispatcher]:
    dispatcher = CeleryEventDispatcher(app_on(url, role="web"), {Counted: Recorder()})
    try:
        yield dispatcher
    finally:
        asyncio.run(dispatcher.aclose())


def refused(dispatcher: CeleryEventDispatcher) -> DispatchError:
    """The refusal, which came within the bound."""
    started = time.monotonic()
    with pytest.raises(DispatchError) as caught:
        dispatcher.dispatch(Counted())
    assert time.monotonic() - started < BOUND
    return caught.value


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def peer(answer: bytes, every: float) -> Iterator[int]:
    """The port of something that takes connections, and says a piece of ``answer`` every so many seconds."""
    stop = threading.Event()
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server, selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)

        def serve() -> None:
            at = 0
            while not stop.wait(every):
                if selector.select(0):
                    connections.append(server.accept()[0])
                for connection in connections:
                    with_piece = answer[at % len(answer) : at % len(answer) + 1] if answer else b""
                    try:
                        connection.sendall(with_piece)
                    except OSError:
                        connections.remove(connection)
                        connection.close()
                at += 1

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            thread.join()
            for connection in connections:
                connection.close()


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_not_there_is_told_at_once(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with dispatcher_on(f"{scheme}://127.0.0.1:{port}//") as dispatcher:
        error = refused(dispatcher)
    assert not isinstance(error, DispatchUncertainError)
    assert "the broker cannot be reached (" in str(error)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
@pytest.mark.parametrize(
    ("answer", "every"), [(b"", 0.01), (b"+OK\r\n", 0.3), (b"\x01", 0.05)], ids=["black hole", "drip", "nonsense"]
)
def test_a_broker_that_takes_the_connection_and_no_more_is_not_waited_for(
    scheme: str, answer: bytes, every: float
) -> None:
    with peer(answer, every) as port, dispatcher_on(f"{scheme}://127.0.0.1:{port}//") as dispatcher:
        assert not isinstance(refused(dispatcher), DispatchUncertainError)


def test_a_frozen_broker_leaves_it_in_doubt_on_a_held_connection(own_valkey: EmbeddedBroker) -> None:
    with dispatcher_on(own_valkey.url) as dispatcher:
        dispatcher.dispatch(Counted())
        with frozen(own_valkey.pid):
            in_doubt = refused(dispatcher)
            assert isinstance(in_doubt, DispatchUncertainError)
            assert str(in_doubt).endswith("); dispatch the same event again, which does no harm")
            assert not isinstance(refused(dispatcher), DispatchUncertainError)  # nothing was sent: no connection
        dispatcher.dispatch(Counted())


def test_a_broker_that_stops_and_comes_back_is_used_again(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path, 0) as broker:
        port = int(broker.url.rpartition(":")[2].partition("/")[0])
        with dispatcher_on(broker.url) as dispatcher:
            dispatcher.dispatch(Counted())
            broker.stop()
            assert not isinstance(refused(dispatcher), DispatchUncertainError)
            with EmbeddedBroker(tmp_path, port):
                dispatcher.dispatch(Counted())  # on a new connection, without the caller's doing
            with EmbeddedBroker(tmp_path, port):
                dispatcher.dispatch(Counted())  # although the held one is dead
                with redis.Redis.from_url(broker.url) as client:
                    assert client.llen(dispatcher._app.conf.task_default_queue) == 3


def test_a_broker_that_is_full_refuses_and_nothing_is_in_doubt(own_valkey: EmbeddedBroker) -> None:
    with redis.Redis.from_url(own_valkey.url) as client, dispatcher_on(own_valkey.url) as dispatcher:
        dispatcher.dispatch(Counted())
        client.config_set("maxmemory", 1)
        error = refused(dispatcher)
        client.config_set("maxmemory", 0)
        assert not isinstance(error, DispatchUncertainError)
        assert "refused by the broker" in str(error)
        dispatcher.dispatch(Counted())


def test_a_retry_that_cannot_be_published_is_reported_instead_of_lost(own_valkey: EmbeddedBroker) -> None:
    """With early acknowledgement the broker has forgotten the event, so its failure must be told here."""
    failures: list[FailedDelivery] = []
    broker = own_valkey.pid  # a frozen one is not asked

    class Freezer(Recorder):
        def handle(self, event: object) -> None:
            os.kill(broker, signal.SIGSTOP)
            raise ValueError

    app = app_on(own_valkey.url)
    handler, event = Freezer(), Counted()
    dispatcher = CeleryEventDispatcher(app, {Counted: handler}, on_failure=failures.append, retries=3)
    with worker_of(app):
        try:
            dispatcher.dispatch(event)
            until(lambda: failures)
        finally:
            os.kill(broker, signal.SIGCONT)
    asyncio.run(dispatcher.aclose())
    assert [(failed.event, failed.attempts) for failed in failures] == [(event, 1)]


def test_a_held_connection_needs_no_new_client_for_each_event(
    own_valkey: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kombu makes one for each command, which costs more than the command does."""
    made: list[object] = []
    make = redis.Redis.__init__

    def counting(self: object, *args: object, **kwargs: object) -> None:
        made.append(self)
        make(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(redis.Redis, "__init__", counting)
    with dispatcher_on(own_valkey.url) as dispatcher:
        dispatcher.dispatch(Counted())
        before = len(made)
        for _ in range(10):
            dispatcher.dispatch(Counted())
    assert before
    assert len(made) == before


def test_a_retry_waits_for_a_broker_that_is_slow_to_confirm_it(own_valkey: EmbeddedBroker) -> None:
    """A caller cannot wait that long; a worker can, and to give up would make an attempt too many."""
    failures: list[FailedDelivery] = []
    thaw = threading.Timer(1.5, os.kill, (own_valkey.pid, signal.SIGCONT))

    class Freezer(Recorder):
        def handle(self, event: Counted) -> None:
            super().handle(event)
            if len(self.events) == 1:
                os.kill(own_valkey.pid, signal.SIGSTOP)
                thaw.start()
                raise ValueError

    app = app_on(own_valkey.url)
    handler = Freezer()
    dispatcher = CeleryEventDispatcher(app, {Counted: handler}, on_failure=failures.append, backoff=0.1)
    with worker_of(app):
        try:
            dispatcher.dispatch(Counted(number=1))
            until(lambda: len(handler.events) == 2)
        finally:
            thaw.join()
        dispatcher.dispatch(Counted(number=2))
        until(lambda: len(handler.events) == 3)
    asyncio.run(dispatcher.aclose())
    assert [event.number for event in handler.events] == [1, 1, 2]
    assert failures == []


def test_ping_tells_whether_the_broker_answers(own_valkey: EmbeddedBroker) -> None:
    app = app_on(own_valkey.url, role="web")
    ping(app)
    with frozen(own_valkey.pid):
        started = time.monotonic()
        with pytest.raises(DispatchError, match="asking the broker was refused"):
            ping(app)
        assert time.monotonic() - started < BOUND


def test_ping_tells_whether_redis_takes_writes_and_leaves_none(own_valkey: EmbeddedBroker) -> None:
    """A full one accepts no sign-up without the outbox, so that a server in front of it is not ready."""
    app = app_on(own_valkey.url, role="web")
    with redis.Redis.from_url(own_valkey.url.replace("redis+socket://", "unix://")) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            ping(app)
        client.config_set("maxmemory", 0)
        ping(app)
        assert not client.keys("*ready*")


def test_a_second_try_that_is_refused_does_not_unsay_that_the_first_may_have_been_accepted(valkey: str) -> None:
    publisher = Publisher(app_on(valkey, role="web"))
    publisher.use(lambda _: None, "a first one, whose connection is held")
    errors: list[Exception] = [redis.ResponseError("OOM"), redis.ConnectionError("Connection reset by peer")]

    def action(_: BrokerConnection) -> None:
        raise errors.pop()

    with pytest.raises(DispatchUncertainError):
        publisher.use(action, "an event")
    assert errors == []
    publisher.close(1.0)


def test_a_connection_that_is_in_use_when_the_publisher_is_closed_is_closed_when_it_is_given_back(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Mock(spec=BrokerConnection)
    monkeypatch.setattr(Connector, "connect", lambda *_: connection)
    publisher = Publisher(app_on(valkey, role="web"))

    def close(_: BrokerConnection) -> None:
        publisher.close(1.0)
        connection.close.assert_not_called()

    publisher.use(close, "an event")
    connection.close.assert_called_once_with()


def test_rabbitmq_is_asked_to_tell_in_time_of_a_message_that_no_queue_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is asked, a message to a queue that was deleted is lost without a word."""
    app = app_on("amqp://127.0.0.1//", role="web")
    monkeypatch.setattr(Connector, "connect", lambda *_: Mock(spec=BrokerConnection, producer=None))
    monkeypatch.setattr(app.amqp, "send_task_message", sent := Mock())
    Publisher(app, step=0.7).publish("Counted", None, Queue("events"))
    asked = sent.call_args.kwargs
    assert (asked["mandatory"], asked["timeout"], asked["confirm_timeout"]) == (True, 0.7, 0.7)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_publishes_over_connections_of_its_own_and_leaves_its_ancestors_open(valkey: str) -> None:
    publisher = Publisher(app_on(valkey, role="web"))
    used: list[weakref.ref[BrokerConnection]] = []

    def use() -> None:
        publisher.use(lambda connection: used.append(weakref.ref(connection)), "an event")

    def alive_and_different() -> bool:
        gc.collect()  # one that is collected hangs up, for the process that it belongs to as well
        connections = [connection() for connection in used]
        return None not in connections and len(set(connections)) == len(connections)

    def in_a_child(act: Callable[[], bool]) -> bool:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                use()
                status = 0 if alive_and_different() and act() else 2
            finally:
                os._exit(status)
        return os.waitpid(child, 0)[1] == 0

    use()
    assert in_a_child(lambda: in_a_child(lambda: True))
    use()
    assert used[0]() is used[1]() is not None
    publisher.close(1.0)


def test_closing_a_connection_leaves_the_time_outs_of_other_sockets_alone(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the process's, so between setting and resetting them another thread would get ours."""
    changed: list[object] = []
    monkeypatch.setattr(socket, "setdefaulttimeout", changed.append)
    with dispatcher_on(valkey) as dispatcher:
        dispatcher.dispatch(Counted())
    assert changed == []
