"""A wrong folder, a wrong database: one line with the reason and the next step, and nothing is made."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from support.services_kit import own_database

from eventpact.cli.main import main
from eventpact.settings import load_settings

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENTPACT_SECRET", SECRET)


def refused(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line in which the command says why it does not start."""
    assert main(command.split()) == 1
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert output.err.startswith("eventpact: ")
    return output.err


@pytest.mark.parametrize("command", ["failed list", "failed retry --all", "relay", "failed drop 1"])
@pytest.mark.parametrize("secret", [SECRET, None])
def test_where_there_is_no_eventpact_a_command_says_so_and_makes_nothing(
    command: str,
    secret: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if secret is None:
        monkeypatch.delenv("EVENTPACT_SECRET")
    assert "there is no eventpact here: .eventpact/eventpact.db does not exist" in refused(command, capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["serve", "failed list", "relay"])
@pytest.mark.parametrize(
    ("url", "reason", "step"),
    [
        ("postgresql://shop:hunter2@127.0.0.1:1/shop", "port 1 failed: Connection refused", "is it up"),
        ("postgresql://shop:hunter2@nowhere.invalid/shop", "failed to resolve host", "EVENTPACT_DATABASE right?"),
    ],
)
@pytest.mark.parametrize("secret", [SECRET, None])
def test_an_unreachable_database_is_named_in_the_driver_s_words(
    command: str,
    url: str,
    reason: str,
    step: str,
    secret: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if secret is None and command == "failed list":
        monkeypatch.delenv("EVENTPACT_SECRET")
    line = refused(f"{command} --database {url}", capsys)
    assert reason in line
    assert step in line
    assert "hunter2" not in line


@pytest.mark.services
@pytest.mark.parametrize("command", ["serve", "migrate", "failed list"])
@pytest.mark.parametrize(
    ("change", "reason", "step"),
    [
        ({"path": "/nope"}, 'database "nope" does not exist', "create it, and run eventpact migrate"),
        ({"netloc": "nobody:hunter2@127.0.0.1:5432"}, 'role "nobody" does not exist', "check EVENTPACT_DATABASE"),
    ],
)
def test_a_database_or_user_that_there_is_not_is_named(
    command: str,
    change: dict[str, str],
    reason: str,
    step: str,
    postgres_service: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refused(f"{command} --database {urlunsplit(urlsplit(postgres_service)._replace(**change))}", capsys)
    assert reason in line
    assert step in line
    assert "hunter2" not in line


@pytest.mark.services
def test_a_postgresql_that_is_not_migrated_is_sent_to_migrate(
    postgres_service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with own_database(postgres_service) as url:
        assert "run eventpact migrate" in refused(f"serve --database {url}", capsys)
        assert main(["migrate", "--database", url]) == 0
        assert main(["failed", "list", "--database", url]) == 0


@pytest.fixture
def used_database(postgres_service: str) -> Iterator[str]:
    """A database of its own that a server has used."""
    with own_database(postgres_service) as url:
        assert main(["migrate", "--database", url]) == 0
        assert main(["prune", "--database", url]) == 0
        yield url


@pytest.mark.services
@pytest.mark.parametrize("command", ["serve", "failed list", "prune", "relay"])
def test_a_postgresql_that_takes_no_writes_is_one_line(
    command: str, used_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    database = f"{used_database}?options=-cdefault_transaction_read_only%3Don"
    line = refused(f"{command} --database {database}", capsys)
    assert "must take writes, and refuses them: cannot execute INSERT in a read-only transaction" in line


@pytest.mark.services
@pytest.mark.parametrize("command", ["serve", "failed list", "prune", "relay"])
def test_a_role_that_may_only_read_is_one_line(
    command: str, used_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    role = f"reader_{uuid4().hex}"
    with psycopg.connect(used_database, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hunter2'")
        admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        try:
            parts = urlsplit(used_database)
            url = urlunsplit(parts._replace(netloc=f"{role}:hunter2@{parts.netloc.rpartition('@')[2]}"))
            line = refused(f"{command} --database {url}", capsys)
        finally:
            admin.execute(f"DROP OWNED BY {role}")
            admin.execute(f"DROP ROLE {role}")
    assert "must take writes, and refuses them: permission denied for" in line
    assert "hunter2" not in line


@pytest.mark.parametrize("command", ["serve", "failed list", "relay"])
def test_a_sqlite_file_of_another_schema_is_sent_to_migrate(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.commit()
        assert "not migrated; run eventpact migrate" in refused(f"{command} --database sqlite:///shop.db", capsys)
        database.execute("INSERT INTO alembic_version VALUES ('0001')")
        database.commit()
        assert "older version; run eventpact migrate" in refused(f"{command} --database sqlite:///shop.db", capsys)
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
        assert "newer version; upgrade eventpact" in refused(f"{command} --database sqlite:///shop.db", capsys)


@pytest.mark.parametrize("command", ["serve", "migrate", "failed list"])
def test_a_folder_is_no_database(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop").mkdir()
    assert "shop is a folder" in refused(f"{command} --database sqlite:///shop", capsys)


def test_a_sqlite_file_that_was_named_and_is_missing_is_not_made_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "run eventpact migrate" in refused("serve --database sqlite:///shop.db", capsys)
    assert not (tmp_path / "shop.db").exists()
    assert main(["migrate", "--database", "sqlite:///shop.db"]) == 0
    assert stat.S_IMODE((tmp_path / "shop.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o704])
def test_a_data_folder_that_others_can_read_is_refused(
    mode: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(mode)
    assert f"run chmod 700 {folder}" in refused(f"serve --data-dir {folder}", capsys)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("secret", ["", "\n", "short\n", " " * 40])
def test_a_secret_file_that_is_empty_or_short_is_refused(
    secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EVENTPACT_SECRET")
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    (folder / "secret").write_text(secret)
    assert f"the secret in {folder / 'secret'} has" in refused(f"serve --data-dir {folder}", capsys)


def test_everything_in_the_data_folder_is_private_and_no_repository_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eventpact.bootstrap import build_parts

    monkeypatch.delenv("EVENTPACT_SECRET")
    before = os.umask(0)
    try:
        build_parts(load_settings()).database.close()
    finally:
        os.umask(before)
    folder = tmp_path / ".eventpact"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("secret", "eventpact.db"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert (folder / ".gitignore").read_text() == "*\n"


def test_no_data_folder_is_made_where_nothing_needs_one(tmp_path: Path) -> None:
    assert main(["migrate", "--database", f"sqlite:///{tmp_path / 'shop.db'}"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["shop.db"]


@pytest.fixture
def first_secret() -> None:
    """A database that was used with another secret than the one of today."""
    from eventpact.bootstrap import build_parts

    build_parts(load_settings(secret="another secret, of 32 characters or more")).database.close()


@pytest.mark.usefixtures("first_secret")
@pytest.mark.parametrize("command", ["serve --port 0", "relay", "failed list"])
def test_another_secret_than_the_database_was_first_used_with_is_refused(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(command, capsys)
    assert "is not the one that the database was first used with" in line
    assert SECRET not in line


@pytest.mark.slow
@pytest.mark.usefixtures("first_secret")
def test_a_worker_with_another_secret_is_refused(valkey: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eventpact", "worker", "--broker", valkey], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1
    assert "is not the one that the database was first used with" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("first_secret")
def test_a_new_secret_is_accepted_when_somebody_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    refused("failed list", capsys)
    assert main(["migrate", "--new-secret"]) == 0
    assert main(["failed", "list"]) == 0


def test_a_server_that_cannot_listen_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EVENTPACT_SECRET")
    assert main(["serve", "--host", "no.such.invalid"]) == 64
    assert "cannot listen on no.such.invalid" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
