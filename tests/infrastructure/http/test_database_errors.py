"""An answer says "send it again later" only where that may help."""

import logging
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from support.application import running, settings_for


@pytest.mark.parametrize(("table", "outbox"), [("accounts", True), ("accounts", False), ("outbox", True)])
async def test_a_missing_table_is_no_reason_to_send_again(
    tmp_path: Path, table: str, outbox: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(settings_for(tmp_path, dispatcher="asyncio", outbox=outbox)) as client:
        with closing(sqlite3.connect(tmp_path / "eventpact.db")) as database:
            database.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
            database.commit()
        with caplog.at_level(logging.ERROR):
            answer = await client.sign_up()
        with closing(sqlite3.connect(tmp_path / "eventpact.db")) as database:
            database.execute(f"ALTER TABLE elsewhere RENAME TO {table}")
            database.commit()
    assert answer.status_code == 500
    assert "sending again does not help" in answer.json()["detail"]
    assert f"no such table: {table}" in caplog.text
    assert "run eventpact migrate" in caplog.text
    assert "ada@" not in caplog.text


async def test_a_missing_table_of_what_is_counted_is_a_failed_check_of_the_database(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, dispatcher="asyncio", outbox=True)) as client:
        with closing(sqlite3.connect(tmp_path / "eventpact.db")) as database:
            database.execute("ALTER TABLE outbox RENAME TO elsewhere")
            database.commit()
        answer = await client.http.get("/health/ready")
        with closing(sqlite3.connect(tmp_path / "eventpact.db")) as database:
            database.execute("ALTER TABLE elsewhere RENAME TO outbox")
            database.commit()
    assert answer.status_code == 503
    assert answer.json()["checks"] == {"database": "SQLITE_ERROR"}


async def test_a_database_that_is_locked_is_worth_trying_again(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, dispatcher="sync")) as client:
        with closing(sqlite3.connect(tmp_path / "eventpact.db", isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            answer = await client.sign_up()
            database.execute("ROLLBACK")
    assert answer.status_code == 503
    assert answer.json()["detail"].endswith("send the same request again later")
    assert "Retry-After" in answer.headers


async def test_mails_in_the_folder_are_for_nobody_else(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with running(settings_for(tmp_path, dispatcher="sync")) as client:
            assert (await client.sign_up()).status_code == 202
    finally:
        os.umask(before)
    (mail,) = (tmp_path / "mail").glob("*.eml")
    assert stat.S_IMODE(mail.stat().st_mode) == 0o600
