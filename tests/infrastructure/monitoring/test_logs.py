"""A log record about an event says so in fields; none, in whichever process and format, shows an address or a code."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.application import SECRET, code_of, mails_in, running, settings_for
from support.waiting import until

from eventpact.infrastructure.monitoring.logs import REQUEST_ID, JsonFormatter, TextFormatter, about
from eventpact_contracts.demo.processes import Process, Server, Worker

pytestmark = pytest.mark.slow

HANDLER = "eventpact.application.handlers.VerifyAccountEmailHandler"
ADDRESS = "ada@example.com"


def test_a_record_is_one_line_of_json_with_what_it_is_about() -> None:
    record = logging.LogRecord("eventpact", logging.WARNING, "here", 1, "first\nsecond %s", ("é",), None)
    vars(record).update(about("AccountCreatedEvent", "1", HANDLER, 2), data={"args": ADDRESS})
    line = JsonFormatter().format(record)
    assert "\n" not in line
    written = json.loads(line)
    assert written.pop("time").endswith("Z")
    assert written == {
        "level": "WARNING",
        "logger": "eventpact",
        "message": "first\nsecond é",
        "process": record.process,
        "event": "AccountCreatedEvent",
        "event_id": "1",
        "handler": HANDLER,
        "attempt": 2,
    }


def test_a_record_about_no_event_has_no_such_fields_and_an_exception_has_its_traceback() -> None:
    try:
        raise ValueError("what happened")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "here", 1, "it", (), (ValueError, error, error.__traceback__))
    written = json.loads(JsonFormatter().format(record))
    assert "ValueError: what happened" in written["exception"]
    assert not {"event", "event_id", "handler", "attempt"} & written.keys()


@pytest.mark.parametrize("metrics", [True, False])
@pytest.mark.parametrize("outbox", [True, False])
@pytest.mark.parametrize("dispatcher", ["sync", "asyncio"])
async def test_a_failed_delivery_is_logged_with_its_event_handler_and_attempt(
    tmp_path: Path, dispatcher: str, outbox: bool, metrics: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = settings_for(tmp_path, dispatcher=dispatcher, outbox=outbox, metrics=metrics, retries=0)
    async with running(settings) as client:
        (tmp_path / "mail").rmdir()
        await client.sign_up(ADDRESS)
        await asyncio.to_thread(until, lambda: [record for record in caplog.records if hasattr(record, "attempt")])
    (record,) = [record for record in caplog.records if hasattr(record, "attempt")]
    assert (record.levelname, record.event, record.handler, record.attempt) == (  # type: ignore[attr-defined]
        "ERROR",
        "AccountCreatedEvent",
        HANDLER,
        1,
    )
    assert len(record.event_id) == 36  # type: ignore[attr-defined]
    assert ADDRESS not in caplog.text


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        "EVENTPACT_LOG_FORMAT": "json",
        "EVENTPACT_SECRET": SECRET,
        "EVENTPACT_DATA_DIR": str(tmp_path),
        "EVENTPACT_DISPATCHER": "celery",
        "EVENTPACT_RETRIES": "1",
        "EVENTPACT_RETRY_BACKOFF": "0.1",
    }


class Relay(Process):
    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        super().__init__(folder, environment, "relay")

    def is_ready(self) -> bool:
        return "relaying" in self._log.read_text()


def lines(log: Path) -> Iterator[dict[str, Any]]:
    """The records of a log, to which only what is said to a person at the start is no JSON."""
    for line in log.read_text().splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def test_a_request_id_that_came_with_a_message_is_masked_cut_and_in_one_line() -> None:
    record = logging.LogRecord("eventpact", logging.WARNING, "here", 1, "said", (), None)

    def line() -> str:
        REQUEST_ID.set(f"1\n2026 ERROR FAKE {ADDRESS} {'x' * 10_000}")
        return TextFormatter().format(record)

    shown = contextvars.copy_context().run(line)
    assert "1\\n2026 ERROR FAKE a***@example.com" in shown
    assert "\n" not in shown
    assert len(shown) < 1000


def test_server_and_worker_log_the_same_fields(tmp_path: Path, environment: dict[str, str]) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path, environment, "celery"))
        stack.enter_context(Worker(tmp_path, environment | {"EVENTPACT_SMTP": "smtp://127.0.0.1:1"}))
        assert server.sign_up(ADDRESS)[0] == 202
        until(lambda: json.loads(server.request("GET", "/health/ready")[1])["counts"]["failed"] == 1, 60)
        until(lambda: (tmp_path / "worker.log").read_text().count("raised expected") == 2, 20)  # Celery's last word
    worker = [line for line in lines(tmp_path / "worker.log") if line["logger"] == "eventpact"]
    assert [(line["level"], line["event"], line["handler"], line["attempt"]) for line in worker] == [
        ("WARNING", "AccountCreatedEvent", HANDLER, 1),
        ("ERROR", "AccountCreatedEvent", HANDLER, 2),
    ]
    (event_id,) = {line["event_id"] for line in worker}
    celery = [line for line in lines(tmp_path / "worker.log") if event_id in line["message"] and line not in worker]
    assert len(celery) >= 4  # received and ended, twice
    assert {(line["event"], line["event_id"]) for line in celery} == {("AccountCreatedEvent", event_id)}
    (served,) = [line for line in lines(tmp_path / "serve.log") if "POST /accounts " in line["message"]]
    assert {line["request"] for line in worker} == {served["request"]}
    for log in ("worker.log", "serve.log"):
        assert "ada@" not in (tmp_path / log).read_text()


def test_a_relay_logs_the_same_fields(tmp_path: Path, environment: dict[str, str]) -> None:
    environment |= {
        "EVENTPACT_DISPATCHER": "asyncio",
        "EVENTPACT_OUTBOX": "true",
        "EVENTPACT_SMTP": "smtp://127.0.0.1:1",
    }

    async def sign_up_and_die() -> None:
        async with running(settings_for(tmp_path, dispatcher="celery", broker="redis://127.0.0.1:1")) as client:
            assert (await client.sign_up(ADDRESS)).status_code == 202  # nothing can be published

    asyncio.run(sign_up_and_die())
    log = tmp_path / "relay.log"
    with Relay(tmp_path, environment):
        until(lambda: "attempt" in log.read_text(), 20)
    (line,) = [line for line in lines(log) if line["logger"] == "eventpact"]
    assert (line["event"], line["handler"], line["attempt"]) == ("AccountCreatedEvent", HANDLER, 1)
    assert "ada@" not in log.read_text()


def test_no_log_of_a_sign_up_that_works_shows_the_address_or_the_code(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with Server(tmp_path, environment, "asyncio") as server:
        assert server.sign_up(ADDRESS)[0] == 202
        until(lambda: mails_in(tmp_path))
        code = code_of(mails_in(tmp_path)[0])
        assert server.verify(ADDRESS, code)
    text = (tmp_path / "serve.log").read_text()
    assert "ada@" not in text
    assert code not in text
