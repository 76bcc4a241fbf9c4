"""A path that is broken, unreadable or of another kind: one line with the path and the reason, and no wait."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eventpact.cli.main import main

IGNORE_MODES = 1 << 1 | 1 << 2
"""What lets root read, write and enter whatever its mode: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run as an owner to whom the modes of files apply; root does not notice them."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # the version of what follows; this thread
    held = (ctypes.c_uint32 * 6)()  # twice: effective, permitted, inheritable
    assert libc.capget(header, held) == 0
    without = (ctypes.c_uint32 * 6)(*held)
    without[0] &= ~IGNORE_MODES
    assert libc.capset(header, without) == 0
    try:
        yield
    finally:
        assert libc.capset(header, held) == 0


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder that has been used, in a working directory that anybody might be in: pytest's are root's."""
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.chdir(directory)
        monkeypatch.setenv("EVENTPACT_DISPATCHER", "asyncio")  # `worker` sets it, for its child processes
        folder = Path(".eventpact")
        folder.mkdir(mode=0o700)
        (folder / "secret").write_text("0123456789abcdef0123456789abcdef")
        assert main(["migrate"]) == 0
        assert main(["prune"]) == 0
        yield folder
        monkeypatch.chdir("/")


def refused(command: str, capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    """The one line in which the command says why it does not start."""
    capsys.readouterr()
    assert main(command.split()) == code
    output = capsys.readouterr()
    assert output.err.count("\n") == 1, output.err
    assert output.err.startswith("eventpact: ")
    return output.err


def folder(path: Path) -> None:
    path.mkdir(parents=True)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def pipe(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)


def file(path: Path) -> None:
    path.touch()


def unreadable(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch(mode=0)


def empty(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch()


def binary(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"redis://\xff\xfe")


CELERY = "--dispatcher celery"


@pytest.mark.parametrize(
    ("name", "broken", "command"),
    [
        ("secret", folder, "serve"),
        ("secret", folder, "failed list"),
        ("secret", dangling, "serve"),
        ("secret", unreadable, "serve"),
        ("secret", unreadable, "prune"),
        ("secret", pipe, "serve"),
        ("eventpact.db", pipe, "serve"),
        ("mail", file, "serve"),
        ("mail", pipe, "relay"),
        ("broker", file, f"serve {CELERY}"),
        ("broker/lock", folder, f"serve {CELERY}"),
        ("broker/lock", pipe, f"serve {CELERY}"),
        ("broker/url", folder, f"serve {CELERY}"),
        ("broker/valkey.log", folder, f"serve {CELERY}"),
        ("broker/url", folder, f"relay {CELERY}"),
        ("broker/url", unreadable, f"relay {CELERY}"),
        ("broker/url", binary, f"relay {CELERY}"),
        ("broker/url", empty, f"relay {CELERY}"),
        ("broker/url", pipe, f"relay {CELERY}"),
        ("broker/url", empty, "worker"),
    ],
)
def test_a_broken_file_of_the_data_folder_is_one_line_with_its_path(
    name: str, broken: Callable[[Path], None], command: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = data / name
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    broken(path)
    with unprivileged():
        line = refused(f"{command} {'--port 0' if 'serve' in command else ''}", capsys)
    assert str(path) in line


@pytest.mark.parametrize("command", ["serve", "failed list", "migrate", "prune"])
@pytest.mark.parametrize("option", ["--data-dir closed/data", "--database sqlite:///closed/shop.db"])
def test_a_path_below_a_folder_that_cannot_be_entered_is_one_line(
    command: str, option: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("closed").mkdir(mode=0)
    with unprivileged():
        line = refused(f"{command} {option}", capsys)
    assert "closed/" in line
    assert "Permission denied" in line


@pytest.mark.parametrize("command", ["serve", "worker", "relay", "migrate", "prune", "settings", "failed list"])
def test_a_working_directory_that_cannot_be_read_is_one_line(
    command: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with unprivileged():
        here = Path.cwd()
        here.chmod(0)
        try:
            line = refused(command, capsys, 64)
        finally:
            here.chmod(0o700)
    assert ".env cannot be read: Permission denied" in line


@pytest.mark.parametrize("command", ["failed list", "failed drop 1", "prune", "relay", "serve --port 0"])
def test_a_sqlite_file_that_may_only_be_read_is_one_line(
    command: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "eventpact.db").chmod(0o400)
    with unprivileged():
        line = refused(command, capsys)
    assert "readonly database" in line
    assert "check EVENTPACT_DATABASE" in line


@pytest.mark.parametrize("port", ["0", "18080"])
@pytest.mark.parametrize("host", ["no.such.invalid", "203.0.113.9", "300.1.1.1", "::zz", "localhost:80"])
def test_a_host_that_cannot_be_listened_on_is_named(
    host: str, port: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"EVENTPACT_HOST: cannot listen on {host}: " in refused(f"serve --host {host} --port {port}", capsys, 64)


@pytest.mark.parametrize("action", ["show", "drop", "retry"])
@pytest.mark.parametrize("number", [2**31, 2**63, -(2**63), 10**30])
def test_a_number_that_no_failure_can_have_is_none_of_a_failure(
    action: str, number: int, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"there is no failure {number};" in refused(f"failed {action} -- {number}", capsys)
