"""The command says in one line what is wrong with it, and never with a traceback."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest

from eventpact.cli.main import main
from eventpact.settings import Settings
from eventpact_contracts.demo.processes import Server

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["serve", "--dispatcher", "kafka"],
        ["serve", "--port", "many"],
        ["serve", "--port", "70000"],
        ["serve", "--broker", "http://x"],
        ["serve", "--database", "mysql://x"],
        ["serve", "extra"],
        ["migrate", "--nope"],
        ["worker", "--concurrency", "0"],
        ["failed"],
    ],
)
def test_bad_usage_exits_64_with_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = main(arguments)
    except SystemExit as stop:
        code = stop.code
    output = capsys.readouterr()
    assert code == 64
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("eventpact")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--nope", "eventpact: unrecognized arguments: --nope"),
        ("failed --nope", "eventpact: unrecognized arguments: --nope"),
        ("sevre", "there is no 'sevre'; did you mean serve?"),
        ("failed lst", "there is no 'lst'; did you mean list?"),
        ("serve --dispacher sync", "there is no --dispacher; did you mean --dispatcher?"),
        ("failed list --databse=x", "there is no --databse; did you mean --database?"),
        ("--dispacher sync", "--dispacher stands before the command; options follow it"),
        ("serve --dispatcher asincio", "there is no 'asincio'; did you mean asyncio?"),
    ],
)
def test_a_misspelt_word_of_the_command_line_is_named(
    arguments: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments.split())
    assert says in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for command in ("serve", "worker", "migrate", "demo", "verify"):
        assert command in text


def test_migrate_brings_the_schema_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--data-dir", str(tmp_path / "data")]) == 0
    assert "newest schema" in capsys.readouterr().out
    assert (tmp_path / "data" / "eventpact.db").exists()


def test_a_database_that_is_away_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--database", "postgresql://nobody@127.0.0.1:1/none"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", [["serve"], ["relay"], ["migrate"], ["failed", "list"]])
@pytest.mark.parametrize("wrong", ["a file", "a folder of a file"])
def test_a_data_folder_that_is_none_is_one_line(
    tmp_path: Path, command: list[str], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" if wrong == "a file" else tmp_path / "file" / "folder"
    assert main([*command, "--data-dir", str(folder)]) == 1
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert str(tmp_path / "file") in output.err


@pytest.mark.parametrize("content", ["no database", "of the future"])
@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_database_that_is_none_or_of_a_newer_version_is_one_line(
    tmp_path: Path, command: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content == "no database":
        (tmp_path / "eventpact.db").write_text(
            "hello, this is a text, and a long one, so that nobody takes it for empty"
        )
    else:
        with closing(sqlite3.connect(tmp_path / "eventpact.db")) as database:
            database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
            database.execute("INSERT INTO alembic_version VALUES ('9999')")
            database.commit()
    assert main([command, "--data-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_port_that_is_taken_is_said_in_the_last_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "eventpact", "serve", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"eventpact: cannot listen on 127.0.0.1:{port}; is the port taken?"
    assert "Traceback" not in done.stderr


def test_the_server_serves_on_loopback_stops_in_good_order_and_leaves_no_broker(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "log").open("wb")
    server = subprocess.Popen(
        [sys.executable, "-m", "eventpact", "serve", "--dispatcher", "celery", "--port", str(port)],
        stdout=log,
        stderr=log,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5) as answer:
                    assert answer.status == 200
                with pytest.raises(urllib.error.HTTPError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/verified?email=ada@example.com", timeout=5)
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)  # between two looks; the deadline is above
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        log.close()
    assert "GET (unknown) " in (tmp_path / "log").read_text()
    assert "ada@" not in (tmp_path / "log").read_text()
    assert not [entry for entry in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _read(entry)]


def _read(path: Path) -> bytes:
    try:
        return b"" if path.parent.name == str(os.getpid()) else path.read_bytes()
    except OSError:
        return b""


def test_no_log_shows_an_address_that_a_client_put_into_a_path(tmp_path: Path) -> None:
    with Server(tmp_path, {"EVENTPACT_DATA_DIR": str(tmp_path)}, "sync") as server:
        assert server.request("GET", "/zoe@example.com?email=ada@example.com")[0] == 404
        assert server.request("GET", "/health/live?email=ada@example.com")[0] == 200
    log = (tmp_path / "serve.log").read_text()
    assert '"GET (unknown) HTTP/1.1" 404' in log
    assert '"GET /health/live HTTP/1.1" 200' in log
    assert "example.com" not in log


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"eventpact {version('eventpact')}\n"


def test_settings_lists_each_in_force_with_its_source_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text("EVENTPACT_RETRIES=5\nEVENTPACT_PORT=1\n")
    monkeypatch.setenv("EVENTPACT_SECRET", "hunter2-" * 4)
    monkeypatch.setenv("EVENTPACT_SMTP", "smtp://shop:hunter2@mail.example")
    monkeypatch.setenv("EVENTPACT_DATABASE", "postgresql://shop@db.example/shop?password=hunter2&sslmode=require")
    assert main(["settings", "--broker", "amqp://shop:hunter2@mq.example//", "--port", "80"]) == 0
    output = capsys.readouterr().out
    assert "hunter2" not in output
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in output.splitlines()}
    assert set(rows) == {f"EVENTPACT_{name.upper()}" for name in Settings.model_fields}
    for name, value, source in [
        ("SECRET", "***", "the environment"),
        ("SMTP", "smtp://shop:***@mail.example", "the environment"),
        ("DATABASE", "postgresql://shop@db.example/shop?password=***&sslmode=require", "the environment"),
        ("RETRIES", "5", ".env, line 1"),
        ("PORT", "80", "the command line"),
        ("BROKER", "amqp://shop:***@mq.example//", "the command line"),
        ("DISPATCHER", "asyncio", "default"),
        ("CODE_TTL", "600", "default"),
        ("RETENTION", "2592000", "default"),
    ]:
        assert rows[f"EVENTPACT_{name}"].startswith(f"{value} ")
        assert rows[f"EVENTPACT_{name}"].endswith(f" {source}")


@pytest.mark.parametrize("command", ["serve", "worker", "relay", "migrate", "settings", "failed list"])
def test_a_mistyped_setting_stops_every_command(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EVENTPACT_DISPACHER", "celery")
    assert main(command.split()) == 64
    output = capsys.readouterr()
    assert output.err == (
        "eventpact: EVENTPACT_DISPACHER in the environment is no setting; did you mean EVENTPACT_DISPATCHER?\n"
    )
    assert list(tmp_path.iterdir()) == []


BUFFERING = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
"""The error of an output comes with the command's own words, or when all of them are written."""


@BUFFERING
@pytest.mark.parametrize("arguments", ["settings", "migrate", "serve --help", "verify --list", "--version"])
@pytest.mark.parametrize(
    ("shell", "code", "says"),
    [
        ("exec {} >/dev/full", 1, "eventpact: the output cannot be written: No space left on device\n"),
        ("exec {} >&-", 0, ""),
        ("exec {} <&- >&- 2>&-", 0, ""),
        ("PYTHONIOENCODING=ascii exec {} >/dev/null", 0, ""),
    ],
)
def test_whatever_its_output_is_a_command_ends_without_a_traceback(
    arguments: str, shell: str, code: int, says: str, unbuffered: str
) -> None:
    command = shell.format(f"{sys.executable} -m eventpact {arguments}")
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(["/bin/sh", "-c", command], env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (code, says)


def test_a_broker_that_no_connection_can_be_made_with_stops_every_command_in_one_line(tmp_path: Path) -> None:
    for command in ("serve", "worker", "settings"):
        arguments = [sys.executable, "-m", "eventpact", command, "--broker", "redis://:hunter2@127.0.0.1:1/0?foo=1"]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
        assert done.returncode == 64
        assert done.stderr == (
            "eventpact: EVENTPACT_BROKER: has a wrong option behind its ?, or one with a wrong value: 'foo'\n"
        )


def test_an_output_that_cannot_be_written_is_said_though_a_library_ignores_it(tmp_path: Path) -> None:
    program = """
import contextlib, sys
from eventpact.cli import migrate
from eventpact.cli.main import main

def run(*_):
    with contextlib.suppress(Exception):
        print("a banner", file=sys.__stdout__, flush=True)
    return 0

migrate.run = run
sys.exit(main(["migrate"]))
"""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert (done.returncode, done.stderr) == (
        1,
        "eventpact: the output cannot be written: No space left on device\n",
    )


@pytest.mark.parametrize("error", [BrokenPipeError, ConnectionResetError])
def test_an_error_of_something_else_is_not_taken_for_one_of_the_output(
    error: type[OSError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> int:
        raise error(1, "the other end is gone", "socket")

    monkeypatch.setattr("eventpact.cli.migrate.run", run)
    assert main(["migrate"]) == 1
    assert capsys.readouterr() == ("", "eventpact: socket: the other end is gone\n")


@pytest.mark.slow
@BUFFERING
@pytest.mark.parametrize("arguments", ["settings", "migrate", "verify --list"])
def test_a_reader_that_has_read_enough_ends_a_command_without_a_word(
    arguments: str, unbuffered: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "eventpact", *arguments.split()]
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
