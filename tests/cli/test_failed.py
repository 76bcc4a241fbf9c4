"""What has failed is listed within 100 columns, as JSON too, with its history; and old rows are pruned."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine

from eventpact.bootstrap import build_parts
from eventpact.cli.main import main
from eventpact.domain.account import Account
from eventpact.domain.dispatcher import FailedDelivery
from eventpact.domain.events import AccountCreatedEvent
from eventpact.settings import load_settings

EVENT = AccountCreatedEvent(account_id="1", email="ada@example.com")


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    build_parts(load_settings()).database.close()


def fail(text: str = "away") -> None:
    parts = build_parts(load_settings())
    parts.failures.keep(FailedDelivery(EVENT, parts.handlers[AccountCreatedEvent], OSError(text), 4))
    parts.database.close()


@pytest.mark.parametrize("command", ["list", "retry --all"])
def test_where_nothing_has_failed_it_says_so(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["failed", *command.split()]) == 0
    assert capsys.readouterr().out == "nothing has failed\n"


def test_the_list_fits_100_columns_and_names_the_event(capsys: pytest.CaptureFixture[str]) -> None:
    fail("the mail server said to ada@example.com: " + "no, \n" * 100)
    assert main(["failed", "list"]) == 0
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) == 100
    assert f"AccountCreatedEvent {EVENT.event_id}" in output
    assert "ada@" not in output
    assert "OSError: the mail server said to a***@example.com" in output


@pytest.mark.parametrize("command", ["list", "show 1"])
def test_a_text_that_a_terminal_would_obey_is_shown_escaped(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    fail("é\x1b]0;title\x07\x9b2J\u202e")
    assert main(["failed", *command.split()]) == 0
    assert r"é\x1b]0;title\x07\x9b2J\u202e" in capsys.readouterr().out


def test_the_list_as_json_is_one_document_with_addresses_masked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["failed", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    fail("ada@example.com")
    assert main(["failed", "list", "--json"]) == 0
    output = capsys.readouterr().out
    (row,) = json.loads(output)
    assert row["event_id"] == str(EVENT.event_id)
    assert row["attempts"] == 4
    assert "ada@" not in output
    assert main(["failed", "show", "1", "--json"]) == 0
    assert "ada@example.com" in json.loads(capsys.readouterr().out)["payload"]


def test_one_that_fails_again_is_one_entry_with_its_history(capsys: pytest.CaptureFixture[str]) -> None:
    with time_machine.travel("2026-01-01T10:00Z"):
        fail("first")
    assert main(["failed", "retry", "1"]) == 0
    assert main(["failed", "list"]) == 0
    assert capsys.readouterr().out.endswith("nothing has failed\n")
    fail("second")
    assert main(["failed", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["failure_id"], row["attempts"], row["error"]) == (1, 8, "second")
    assert row["first_failed_at"] < row["last_failed_at"]


def test_prune_removes_what_is_older_than_the_retention_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = build_parts(load_settings())
    parts.repository.add(Account(account_id="1", email="ada@example.com", display_name="Ada"))
    parts.database.close()
    fail()
    assert main(["prune"]) == 0
    assert "0  failed deliveries removed, older than 30 days" in capsys.readouterr().out
    with parts.database.transaction() as connection:
        for table, column in (("accounts", "mail_reserved_at"), ("failed_deliveries", "last_failed_at")):
            connection.exec_driver_sql(f"UPDATE {table} SET {column} = '2020-01-01 00:00:00'")
    parts.database.close()
    monkeypatch.setenv("EVENTPACT_RETENTION", str(timedelta(days=7).total_seconds()))
    assert main(["prune"]) == 0
    output = capsys.readouterr().out
    assert "1  accounts that were never verified removed, older than 7 days" in output
    assert "1  failed deliveries removed, older than 7 days" in output
    assert main(["failed", "list"]) == 0
    assert capsys.readouterr().out == "nothing has failed\n"
