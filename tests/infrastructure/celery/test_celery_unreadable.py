"""What a worker does with messages that are no event of ours: it tells, keeps, and goes on."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import pickle
import time
from typing import Any
from uuid import uuid4

import pytest
import redis
from support.celery_kit import Counted, Named, Recorder, app_on, worker_of
from support.waiting import until

from eventpact.domain.dispatcher import Handlers
from eventpact.infrastructure.celery.consumer import UnreadableMessage
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.persistence.failure_store import FailureStore
from eventpact.infrastructure.persistence.replay import return_readable

pytestmark = pytest.mark.slow

EVENT = Named(email="ada@example.com").to_dict()


def message(
    args: object,
    kwargs: object = None,
    *,
    task: str = "handle_Named",
    content_type: str = "application/json",
    body: bytes | None = None,
    **headers: Any,
) -> str:
    """A message as Celery puts it into Redis."""
    if body is None:
        body = json.dumps([args, {} if kwargs is None else kwargs, {}]).encode()
    task_id = str(uuid4())
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8" if content_type == "application/json" else "binary",
            "content-type": content_type,
            "headers": {"lang": "py", "task": task, "id": task_id, "retries": 0, "root_id": task_id} | headers,
            "properties": {
                "correlation_id": task_id,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "events"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            },
        }
    )


CASES: dict[str, tuple[str, str]] = {
    "unknown name": (message([EVENT], task="handle_Renamed"), "no handler is registered"),
    "no argument": (message([]), "malformed"),
    "two arguments": (message([EVENT, EVENT]), "malformed"),
    "no event": (message(["ada@example.com"]), "malformed"),
    "a field too few": (message([{"event_id": EVENT["event_id"]}]), "malformed"),
    "a newer version": (message([EVENT | {"phone": "123"}]), "malformed"),
    "a wrong type": (message([EVENT | {"email": 7}]), "malformed"),
    "an unknown handler": (message([EVENT], {"only": ["gone.Handler"]}), "no handler 'gone.Handler'"),
    "an unknown argument": (message([EVENT], {"priority": 9}), "malformed"),
    "a garbled body": (message([], body=b"\xff ada@example.com"), "decoded"),
    "a body of another shape": (message([], body=b'{"ada@example.com": 1}'), "decoded"),
    "arguments of another shape": (message({"email": "ada@example.com"}), "decoded"),
    "keyword arguments of another shape": (message([EVENT], []), "decoded"),
    "a task that is to follow": (
        message([], body=json.dumps([[EVENT], {}, {"callbacks": [{"task": "handle_Counted"}]}]).encode()),
        "decoded",
    ),
    "pickle": (
        message([], content_type="application/x-python-serialize", body=pickle.dumps(([EVENT], {}, {}))),
        "refused",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_told_without_quoting_it_and_the_worker_goes_on(
    case: str, valkey: str, caplog: pytest.LogCaptureFixture
) -> None:
    raw, reason = CASES[case]
    told: list[UnreadableMessage] = []
    handler, other = Recorder(), Recorder()
    app = app_on(valkey)
    dispatcher = CeleryEventDispatcher(app, {Named: handler, Counted: other}, on_unreadable=told.append)
    with worker_of(app):
        with redis.Redis.from_url(valkey) as client:
            client.lpush(app.conf.task_default_queue, raw)
        dispatcher.dispatch(Counted())
        until(lambda: told and other.events)
    asyncio.run(dispatcher.aclose())
    assert handler.events == []
    (kept,) = told
    headers: dict[str, Any] = json.loads(raw)["headers"]
    assert (kept.name, kept.message_id) == (headers["task"], headers["id"])
    assert reason in kept.reason
    assert kept.content
    assert "ada@" not in kept.reason
    assert not [record for record in caplog.records if "ada@" in record.getMessage() + str(record.exc_text)]


@pytest.mark.parametrize(
    "raw",
    [
        message([EVENT], task="ada@example.com"),
        message([EVENT], task="x\nFAKE" * 100),
        message([EVENT], id="ada@example.com"),
        message([EVENT], shadow="ada@example.com"),
        message([EVENT | {"ada@example.com": 1}]),
        message([EVENT], {"ada@example.com": 1}),
        message([EVENT], {"only": ["ada@example.com"]}),
        message([EVENT], eventpact={"secret": "ada@example.com"}),
        message([EVENT], **{"ada@example.com\nFAKE": None, "update": 1}),
        message([EVENT], eta="ada@example.com"),
    ],
)
def test_what_is_set_aside_makes_one_short_line_in_the_log_without_an_address(
    raw: str, valkey: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (kept,), _ = set_aside([raw], valkey)
    shown = logging.Formatter("%(name)s %(message)s %(event_id)s", defaults={"event_id": ""})
    counted = [record for record in caplog.records if "handle_Counted" not in record.getMessage()]
    lines = [shown.format(record) for record in counted if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert lines[0].startswith("eventpact a message for ")
    assert "\n" not in lines[0]
    assert len(lines[0]) < 1000
    assert "ada@" not in "".join(map(shown.format, caplog.records)) + kept.reason


HEADERS: dict[str, list[Any]] = {
    "timelimit": [7, "x", ["a", "b"], [None], [-1, None], [True, None]],
    "stamped_headers": [5, [5]],
    "stamps": [[]],
    "expires": ["2020-01-01T00:00:00+00:00", "x", 1],
    "eta": ["x", 5, "9999-01-01T00:00:00", [1]],
    "retries": ["x", -1, 10**20, True],
    "id": [5, [1], None, ""],
    "root_id": [5, {}],
    "group": [[]],
    "ignore_result": ["x"],
    "replaced_task_nesting": ["x"],
    "compression": ["nosuch", 5],
    "eventpact": [[1], "x", {"secret": ["ada@example.com"]}],
    "eventpact_context": ["x", {"request_id": 5}],
    "chord": [{}],  # Celery's own: it would become an attribute of the task's request
    "update": ["x"],
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_no_publisher_of_events_writes_sets_the_message_aside_and_the_worker_goes_on(
    name: str, valkey: str
) -> None:
    told, handler = set_aside([message([EVENT], **{name: value}) for value in HEADERS[name]], valkey)
    assert handler.events == []
    assert {name in kept.reason or "decode" in kept.reason for kept in told} == {True}
    assert {kept.content for kept in told} == {json.dumps([[EVENT], {}, {}]).encode()}


def test_headers_of_those_who_trace_and_of_another_publisher_pass(valkey: str) -> None:
    raw = message([EVENT], traceparent="00-1", timelimit=[None, 30.5], eta=None, headers={"baggage": "x"}, stamps=None)
    _, handler = set_aside([raw], valkey, told=0)
    assert len(handler.events) == 1


def envelope(**changes: object) -> bytes:
    """One with other parts; those that are None are left out."""
    parts = json.loads(message([EVENT])) | changes
    return json.dumps({name: part for name, part in parts.items() if part is not None}).encode()


def properties(**changes: object) -> bytes:
    parts = json.loads(message([EVENT]))["properties"] | changes
    return envelope(properties={name: part for name, part in parts.items() if part is not None})


ENVELOPES: list[bytes] = [
    b"not json",
    b"\xff\xfe",
    b"",
    b"[]",
    b"null",
    b'"x"',
    b"5",
    b"{}",
    b'{"__type__": "uuid", "__value__": 5}',
    b"[" * 100_000,
    *(envelope(**{name: None}) for name in ("body", "properties", "headers", "content-type")),
    envelope(body=5),
    envelope(body="!!!"),
    envelope(properties=[]),
    envelope(headers=[]),
    envelope(**{"content-type": []}),
    properties(delivery_tag=None),
    properties(delivery_tag={}),
    properties(delivery_info=None),
    properties(delivery_info=[]),
    properties(delivery_info={"exchange": "", "routing_key": 5}),
    properties(body_encoding="x"),
]


def test_what_is_no_message_at_all_is_kept_as_it_came_and_the_worker_goes_on(valkey: str) -> None:
    told, handler = set_aside(ENVELOPES, valkey)
    assert [kept.content for kept in told] == ENVELOPES
    assert {(kept.name, kept.message_id, kept.reason) for kept in told} == {(None, None, "it is no task")}
    assert handler.events == []


def test_what_is_no_message_is_left_to_the_next_worker_while_the_sink_raises(valkey: str) -> None:
    app = app_on(valkey)
    calls: list[UnreadableMessage] = []

    def sink(message: UnreadableMessage) -> None:
        calls.append(message)
        raise ConnectionError("the database is unreachable")

    dispatcher = CeleryEventDispatcher(app, {Named: Recorder(), Counted: Recorder()}, on_unreadable=sink)
    with redis.Redis.from_url(valkey) as client:
        client.lpush(app.conf.task_default_queue, b"not json")
        with worker_of(app):
            until(lambda: calls)
        asyncio.run(dispatcher.aclose())
        assert client.llen(app.conf.task_default_queue) == 1
        client.rename(app.conf.task_default_queue, "left")
        told, _ = set_aside([client.rpop("left")], valkey)
    assert [kept.content for kept in told] == [b"not json"]


def set_aside(raws: list[Any], valkey: str, told: int | None = None) -> tuple[list[UnreadableMessage], Recorder]:
    """What a worker tells of these messages, and the handler of those that it handles, once it has handled another."""
    kept: list[UnreadableMessage] = []
    handler, other, app = Recorder(), Recorder(), app_on(valkey)
    dispatcher = CeleryEventDispatcher(
        app, {Named: handler, Counted: other}, on_unreadable=kept.append, agreement={"secret": "ours"}
    )
    with worker_of(app), redis.Redis.from_url(valkey) as client:
        client.lpush(app.conf.task_default_queue, *raws)
        for _ in range(10):  # more than it has threads
            dispatcher.dispatch(Counted())
        until(lambda: len(other.events) == 10 and len(kept) == (len(raws) if told is None else told))
        until(lambda: not client.hlen("unacked"))
    asyncio.run(dispatcher.aclose())
    return kept, handler


@pytest.mark.parametrize("case", ["unknown name", "a garbled body", "no argument"])
def test_while_the_sink_raises_messages_wait_and_are_stored_when_it_takes_them(
    case: str, valkey: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("consumer", "task"):
        monkeypatch.setattr(f"eventpact.infrastructure.celery.{module}.MAX_SINK_WAIT_SECONDS", 1.5)
    calls: list[float] = []
    stored: list[UnreadableMessage] = []

    def sink(message: UnreadableMessage) -> None:
        calls.append(time.monotonic())
        if calls[-1] - calls[0] < 4:
            raise ConnectionError("the database is unreachable")
        stored.append(message)

    other = Recorder()
    app = app_on(valkey)
    dispatcher = CeleryEventDispatcher(app, {Named: Recorder(), Counted: other}, on_unreadable=sink)
    with worker_of(app):
        with redis.Redis.from_url(valkey) as client:
            for _ in range(5):
                raw = json.loads(CASES[case][0])
                raw["properties"]["delivery_tag"] = str(uuid4())
                raw["properties"]["delivery_info"]["routing_key"] = app.conf.task_default_queue
                client.lpush(app.conf.task_default_queue, json.dumps(raw))
        until(lambda: calls)
        dispatcher.dispatch(Counted())
        until(lambda: other.events, 3)  # the worker is free for others
        until(lambda: len(stored) == 5, 20)
    asyncio.run(dispatcher.aclose())
    assert len(calls) <= 5 * 6  # not a hundred a second
    assert len(caplog.records) <= 100


@pytest.mark.parametrize(
    ("sender", "is_known", "returned"), [("elsewhere", True, 0), ("elsewhere", False, 0), ("here", False, 1)]
)
def test_what_a_sender_on_another_database_sent_is_not_returned_however_well_it_can_be_read(
    sender: str, is_known: bool, returned: int, valkey: str, database: Database
) -> None:
    """Else it would succeed here, where there is no such account, and nobody would ever hear of it again."""
    newer: Handlers = {Named: Recorder(), Counted: Recorder()}
    older: Handlers = {Counted: Recorder()}
    table = SubscriptionTable(newer)
    failures = FailureStore(database, table)
    app, agreement = app_on(valkey), {"database": "here"}
    dispatcher = CeleryEventDispatcher(
        app, newer if is_known else older, on_unreadable=failures.keep_unreadable, agreement=agreement
    )
    with worker_of(app), redis.Redis.from_url(valkey) as client:
        client.lpush(app.conf.task_default_queue, message([EVENT], eventpact={"database": sender}))
        until(failures.count)
    asyncio.run(dispatcher.aclose())
    assert return_readable(failures, table, OutboxStore(database)) == returned
    assert failures.count() == 1 - returned
