"""A signal that means an end ends a command in good order: what runs is finished, and nothing is left running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.waiting import until

from eventpact.infrastructure.celery.embedded_broker import EmbeddedBroker

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _quit_is_heard() -> Iterator[None]:
    """A shell without job control starts its background with SIGQUIT ignored, which commands would inherit and obey."""
    before = signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGQUIT, before)


@contextmanager
def running(folder: Path, arguments: str, says: str, nohup: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """The command, once its log says so."""
    log = folder / f"{arguments.split()[0]}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*(["nohup"] if nohup else []), sys.executable, "-m", "eventpact", *arguments.split()],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            process_group=0,
        )
    try:
        until(lambda: says in log.read_text() or process.poll() is not None, 120)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ends(process: subprocess.Popen[bytes], number: int) -> int:
    process.send_signal(number)
    return process.wait(60)


SERVE, RELAY = "serve --port 0", "relay"
IS_UP = {SERVE: "Uvicorn running on", RELAY: "relaying the outbox"}


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM])
def test_a_server_whose_terminal_is_gone_drains_and_leaves_no_broker(tmp_path: Path, number: int) -> None:
    with running(tmp_path, f"{SERVE} --dispatcher celery", IS_UP[SERVE]) as process:
        assert ends(process, number) == 0
    assert "Application shutdown complete" in (tmp_path / "serve.log").read_text()
    assert not (tmp_path / ".eventpact" / "broker" / "url").exists()
    assert not [path for path in Path("/proc").glob("[0-9]*/cwd") if _is_in(path, tmp_path)]


def _is_in(link: Path, folder: Path) -> bool:
    try:
        return Path(os.readlink(link)).is_relative_to(folder)
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM])
def test_a_relay_whose_terminal_is_gone_ends_in_good_order(tmp_path: Path, number: int) -> None:
    with running(tmp_path, SERVE, IS_UP[SERVE]), running(tmp_path, RELAY, IS_UP[RELAY]) as relay:
        assert ends(relay, number) == 0
    assert (tmp_path / "relay.log").read_text() == "relaying the outbox\n"


def test_under_nohup_a_server_outlives_its_terminal(tmp_path: Path) -> None:
    with running(tmp_path, SERVE, IS_UP[SERVE], nohup=True) as process:
        status = Path(f"/proc/{process.pid}/status").read_text()
        ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
        assert ignored & 1 << (signal.SIGHUP - 1)
        assert ends(process, signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_is_told_to_end_once_ends_with_0(tmp_path: Path, number: int) -> None:
    with (
        running(tmp_path, f"{SERVE} --dispatcher celery", IS_UP[SERVE]),
        running(tmp_path, "worker --concurrency 1", " ready.") as worker,
    ):
        assert ends(worker, number) == 0
    assert "Warm shutdown" in (tmp_path / "worker.log").read_text()


@pytest.mark.parametrize("scheme", ["redis", "rediss", "amqp"])
def test_a_worker_tells_of_a_broker_that_never_answers_tries_again_and_ends_when_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with running(tmp_path, SERVE, IS_UP[SERVE]) as server:  # makes the secret and the database
        ends(server, signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("EVENTPACT_BROKER", f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/")
        with running(tmp_path, "worker --concurrency 1", "Trying again in 4") as worker:
            assert ends(worker, signal.SIGTERM) == 0


def test_a_worker_whose_redis_is_frozen_says_so_goes_on_with_it_and_ends_when_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "worker.log"
    with (
        EmbeddedBroker(tmp_path / "broker") as broker,
        running(tmp_path, f"{SERVE} --dispatcher celery --broker {broker.url}", IS_UP[SERVE]),
    ):
        monkeypatch.setenv("EVENTPACT_BROKER", broker.url)
        frozen = broker.pid
        try:
            with running(tmp_path, "worker --concurrency 1", " ready.") as worker:
                os.kill(frozen, signal.SIGSTOP)
                until(lambda: "Redis does not answer" in log.read_text(), 60)
                os.kill(frozen, signal.SIGCONT)
                until(lambda: "goes on" in log.read_text(), 60)
                os.kill(frozen, signal.SIGSTOP)
                until(lambda: log.read_text().count("Redis does not answer") == 2, 60)
                assert ends(worker, signal.SIGTERM) == 1
                until(lambda: not _runs(worker.pid))  # nor its child processes
        finally:
            os.kill(frozen, signal.SIGCONT)


def _runs(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
