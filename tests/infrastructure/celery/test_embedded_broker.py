"""The embedded broker: a real server that keeps what it was given, and is neither doubled nor left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from support.celery_kit import until

from eventpact.infrastructure.celery.embedded_broker import BrokerError, EmbeddedBroker, running_broker

pytestmark = pytest.mark.slow


def test_what_it_holds_survives_a_stop_and_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    for end in (EmbeddedBroker.stop, EmbeddedBroker.kill):
        broker = EmbeddedBroker(folder)
        broker.start()
        with redis.Redis.from_url(broker.url) as client:
            count = client.incr("starts")
        end(broker)
    with EmbeddedBroker(folder) as broker, redis.Redis.from_url(broker.url) as client:
        assert client.incr("starts") == count + 1 == 3


def test_its_address_stays_so_that_who_used_it_finds_it_again(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        first = broker.url
    with EmbeddedBroker(tmp_path) as broker:
        assert broker.url == first


def test_nobody_gets_in_without_the_password_which_no_other_user_can_read(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        port = int(broker.url.rpartition(":")[2].partition("/")[0])
        with redis.Redis(port=port) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
        password = broker.url.split("@")[0].rpartition(":")[2]
        assert password not in Path(f"/proc/{broker.pid}/cmdline").read_text()
        assert all((tmp_path / name).stat().st_mode & 0o077 == 0 for name in ("url", "address"))


def test_one_that_a_killed_process_left_behind_is_taken_over_and_then_stopped(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, threading; from eventpact.infrastructure.celery.embedded_broker import EmbeddedBroker\n"
        "broker = EmbeddedBroker(pathlib.Path(sys.argv[1])); broker.start()\n"
        "print(broker.pid, broker.url, flush=True); threading.Event().wait()"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid, url = process.stdout.readline().split()
        process.send_signal(signal.SIGKILL)
    assert running_broker(tmp_path) == url
    with EmbeddedBroker(tmp_path) as broker:
        assert (broker.pid, broker.url) == (int(pid), url)
    with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_two_do_not_share_a_folder(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path):
        second = EmbeddedBroker(tmp_path)
        with pytest.raises(BrokerError, match="a data folder of its own"):
            second.start()
        second.stop()
        assert running_broker(tmp_path)
    with pytest.raises(BrokerError, match="eventpact serve --dispatcher celery"):
        running_broker(tmp_path)


def test_it_takes_another_port_if_that_of_last_time_is_taken(tmp_path: Path) -> None:
    import socket

    with EmbeddedBroker(tmp_path) as broker:
        first = broker.url
    port = int(first.rpartition(":")[2].partition("/")[0])
    with socket.create_server(("127.0.0.1", port)), EmbeddedBroker(tmp_path) as broker:
        assert broker.url != first
        with redis.Redis.from_url(broker.url) as client:
            assert client.ping()


def test_a_platform_without_a_server_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(BrokerError, match="--broker redis://"), EmbeddedBroker(tmp_path):
        pass


def test_its_process_is_gone_when_it_has_stopped(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        pid = broker.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    until(lambda: not (tmp_path / "url").exists())
