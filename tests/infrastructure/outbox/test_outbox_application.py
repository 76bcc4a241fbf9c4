"""The use case with the outbox: an account and its event together, failures kept, and mailed again on request."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from support.application import code_of, mails_in, running, settings_for
from support.waiting import until

from eventpact.bootstrap import build_parts
from eventpact.cli.main import main
from eventpact.domain.dispatcher import FailedDelivery
from eventpact.domain.events import AccountCreatedEvent
from eventpact.infrastructure.persistence.database import Database
from eventpact.settings import load_settings

pytestmark = pytest.mark.slow

SECRET = "0123456789abcdef0123456789abcdef"


async def test_an_account_and_its_event_are_kept_together_or_not_at_all(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, dispatcher="asyncio")) as client:
        with client.application.database.transaction() as connection:
            connection.execute(sa.text("ALTER TABLE outbox RENAME TO elsewhere"))
        assert (await client.sign_up()).status_code == 500  # no table: sending again does not help
        with client.application.database.transaction() as connection:
            assert connection.execute(sa.text("SELECT count(*) FROM accounts")).scalar_one() == 0
            connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO outbox"))
        assert (await client.sign_up()).status_code == 202
        await asyncio.to_thread(until, client.mails)
        answer = await client.verify(code_of(client.mails()[0]))
        assert answer.json()["verified"]


async def test_ready_counts_what_has_failed(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, dispatcher="asyncio", retries=0)) as client:
        (tmp_path / "mail").rmdir()
        assert (await client.sign_up()).status_code == 202
        counts: dict[str, int] = {}

        def failed() -> bool:
            counts.update({name: count() for name, count in client.application.counts.items()})
            return counts == {"failed": 1, "outbox": 0}

        await asyncio.to_thread(until, failed)
        answer = (await client.http.get("/health/ready")).json()
        assert answer == {"status": "ok", "checks": {"database": "ok"}, "counts": {"failed": 1, "outbox": 0}}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {
        "DATA_DIR": str(tmp_path),
        "SECRET": SECRET,
        "OUTBOX_LEASE": "0.5",
        "RATE_LIMIT": "1000/minute",
    }.items():
        monkeypatch.setenv(f"EVENTPACT_{name}", value)
    return tmp_path


@contextmanager
def process(*arguments: str, says: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``eventpact`` with these arguments, once it has said something; and the line in which it did."""
    started = subprocess.Popen(
        [sys.executable, "-m", "eventpact", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert started.stdout is not None
    try:
        seen = []
        for line in started.stdout:
            seen.append(line)
            if says in line:
                break
        else:
            pytest.fail("".join(seen))
        yield started, line
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGTERM)
            started.communicate(timeout=20)
        started.stdout.close()


@contextmanager
def server(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    with (
        process("serve", "--port", "0", *arguments, says="running on") as (started, line),
        httpx.Client(base_url="http://" + line.split("http://")[1].split()[0]) as http,
    ):
        yield started, http


def sign_up(http: httpx.Client, address: str) -> None:
    answer = http.post("/accounts", json={"email": address, "display_name": "Ada"})
    assert answer.status_code == 202


def verify(http: httpx.Client, address: str, code: str) -> httpx.Response:
    return http.post("/accounts/verify", json={"email": address, "code": code})


def test_what_a_killed_server_accepted_is_mailed_by_a_relay_once_it_is_taken_for_dead(settings: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        with server("--smtp", f"smtp://127.0.0.1:{silent.getsockname()[1]}") as (started, http):
            sign_up(http, "ada@example.com")
            talking, _ = silent.accept()  # the handler is half-way
            started.kill()
            started.wait()
        talking.close()
    database = Database(f"sqlite:///{settings / 'eventpact.db'}")
    assert _entries(database) == 1
    with process("relay", says="relaying"):
        until(lambda: _entries(database) == 0)
    [sent] = mails_in(settings)
    database.close()
    with server() as (_, http):
        assert verify(http, "ada@example.com", code_of(sent)).status_code == 200


def _entries(database: Database) -> int:
    with database.transaction() as connection:
        return connection.execute(sa.text("SELECT count(*) FROM outbox")).scalar_one()


@pytest.mark.parametrize("arguments", [["show", "7"], ["retry", "7"], ["drop", "7"]])
def test_a_failure_that_there_is_not_gets_one_clear_line(
    settings: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate"]) == 0
    capsys.readouterr()
    assert main(["failed", *arguments]) == 1
    assert capsys.readouterr().err == "eventpact: there is no failure 7; see eventpact failed list\n"


def test_retry_wants_to_know_what(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["failed", "retry"])
    assert caught.value.code == 64


@pytest.fixture
def failure(settings: Path) -> str:
    """The number of a failure that is kept, though no server runs."""
    parts = build_parts(load_settings())
    event = AccountCreatedEvent(account_id="1", email="ada@example.com")
    parts.failures.keep(FailedDelivery(event, parts.handlers[AccountCreatedEvent], OSError("away"), 1))
    parts.database.close()
    return "1"


def test_what_is_retried_into_an_outbox_that_nobody_serves_is_accepted_and_the_person_told(
    failure: str, settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["failed", "retry", failure]) == 0
    output = capsys.readouterr()
    assert output.out == "1 is dispatched again, from the outbox\n"
    assert output.err == "eventpact: no server with an outbox is running, nor eventpact relay; start one\n"
    with process("relay", says="relaying"):
        database = Database(f"sqlite:///{settings / 'eventpact.db'}")
        until(lambda: _entries(database) == 0)
        database.close()


def test_a_retry_without_the_broker_that_it_needs_is_one_line_and_keeps_the_failure(
    failure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["failed", "retry", failure, "--dispatcher", "celery", "--no-outbox"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert (
        main(["failed", "retry", failure, "--dispatcher", "celery", "--no-outbox", "--broker", "redis://127.0.0.1:1"])
        == 1
    )
    assert "1 stays" in capsys.readouterr().err
    assert main(["failed", "list"]) == 0
    assert "1 attempt(s)" in capsys.readouterr().out
