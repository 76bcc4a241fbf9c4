"""The demo: real processes, a table that was measured, and nothing left behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.waiting import until

from eventpact_contracts.demo.mail_server import MailServer
from eventpact_contracts.demo.processes import Process

pytestmark = pytest.mark.slow


@contextmanager
def demo(folder: Path, cwd: Path | None = None, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """The demo in a process group of its own, whose temporary files go to ``folder``."""
    with subprocess.Popen(
        [sys.executable, "-m", "eventpact", "demo"],
        env=os.environ | {"TMPDIR": str(folder)} | settings,
        cwd=cwd or folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def descendants(folder: Path) -> list[str]:
    """The command lines of processes that work in ``folder`` or were told of it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:  # it has ended, or is not ours
                continue
            if f"TMPDIR={folder}".encode() in environment:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def test_it_prints_its_table_reads_no_setting_of_others_and_leaves_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = tmp_path_factory.mktemp("own")
    (own / ".env").write_text("EVENTPACT_DATA_DIR=from-dotenv\nEVENTPACT_PORT=many\nnonsense\n")
    database = f"sqlite:///{own / 'shop.db'}"
    with demo(tmp_path, own, EVENTPACT_DATABASE=database, EVENTPACT_OUTBOX="maybe", EVENTPACT_X="1") as process:
        out, err = process.communicate(timeout=110)
    assert process.returncode == 0, err
    rows = {re.split(r"\s{2,}", line)[0]: re.split(r"\s{2,}", line)[1:] for line in out.splitlines() if "  " in line}
    assert rows["mails sent"] == ["30 of 30"] * 3
    assert rows["codes redeemed"] == ["30 of 30"] * 3
    assert rows["failures retried with success"] == ["0 of 3", "0 of 3", "3 of 3"]
    # Celery on Redis without the outbox declares at most once (law G3): what it loses is measured, not promised.
    assert rows["lost after the kill"][1] == "4 of 4 accepted"
    assert re.fullmatch(r"[0-4] of 4 accepted", rows["lost after the kill"][2])
    assert all(dispatcher in err for dispatcher in ("sync", "asyncio", "celery"))
    assert list(tmp_path.iterdir()) == []
    assert descendants(tmp_path) == []
    assert [path.name for path in own.iterdir()] == [".env"]


def test_a_process_that_is_there_when_a_signal_comes_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def interrupted(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))  # type: ignore[call-overload]
        signal.raise_signal(signal.SIGINT)
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt), Process(tmp_path, {}, "serve", "--port", "0"):
        pass
    assert [process.poll() for process in started] == [-signal.SIGKILL]


def test_its_mail_server_ends_without_an_error_in_the_midst_of_a_mail(caplog: pytest.LogCaptureFixture) -> None:
    with MailServer(0) as mail, socket.create_connection(("127.0.0.1", urlsplit(mail.url).port or 0)) as client:
        client.sendall(b"RCPT TO:<held@example.com>\r\n")
        assert mail.wait_for(mail.holding, 30)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("sync     30 people", signal.SIGINT, 130),
        ("celery   starting", signal.SIGINT, 130),
        ("celery   30 people", signal.SIGTERM, 143),
    ],
)
def test_interrupted_it_leaves_nothing_either(moment: str, number: int, code: int, tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if moment in line:
                break
        os.killpg(process.pid, number)
        process.communicate(timeout=60)
    assert process.returncode == code
    until(lambda: descendants(tmp_path) == [])
    assert list(tmp_path.iterdir()) == []
