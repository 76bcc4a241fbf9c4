"""The real server and the real worker, as processes of their own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from eventpact.infrastructure.processes import deferred_signals

__all__ = ["DemoError", "Process", "Server", "Worker"]

_STOP_SECONDS: Final = 15.0


class DemoError(Exception):
    """A part of the demo failed; the message holds the end of its log.

    Attributes:
        exit_code: of a process that ended while it came up.
    """

    exit_code: int | None = None


class Process:
    """``eventpact`` with some arguments, in a process group of its own, for the time of a ``with`` block.

    It reads no setting but those of ``environment``.

    Attributes:
        module: the name of the module that is run.
        start_seconds: how long it may take to come up.
    """

    module = "eventpact"
    start_seconds = 60.0

    def __init__(self, folder: Path, environment: dict[str, str], *arguments: str) -> None:
        self._arguments = arguments
        self._folder = folder
        self._environment = environment
        self._log = folder / f"{arguments[0]}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log, deferred_signals():  # else it may be there, and nobody's
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", self.module, *self._arguments],
                env=_without_settings(os.environ) | self._environment,
                cwd=self._folder,  # where there is no .env but one that the caller wrote
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        deadline = time.monotonic() + self.start_seconds
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                end = self._log.read_text(errors="replace")[-2000:]
                error = DemoError(f"eventpact {self._arguments[0]} did not come up:\n{end}")
                error.exit_code = self._process.poll()
                self.kill()
                raise error
            time.sleep(0.02)  # between two looks; the deadline is above

    def is_ready(self) -> bool:
        return True

    @property
    def is_running(self) -> bool:
        """Return whether it has been started, and has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it and its children at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Let it end in good order."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # interrupted while it comes up, it would be nobody's
            self.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        (self.stop if kind is None else self.kill)()


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.upper().startswith("EVENTPACT")}


class Server(Process):
    """``eventpact serve``, and a client of it."""

    def __init__(self, folder: Path, environment: dict[str, str], dispatcher: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        super().__init__(folder, environment, "serve", "--dispatcher", dispatcher, "--port", str(self.port))

    def is_ready(self) -> bool:
        try:
            return self.request("GET", "/health/ready")[0] == 200
        except OSError:
            return False

    def sign_up(self, address: str) -> tuple[int, float]:
        """The status, and how many seconds the answer took."""
        start = time.perf_counter()
        status, _ = self.request("POST", "/accounts", {"email": address, "display_name": "Demo"})
        return status, time.perf_counter() - start

    def verify(self, address: str, code: str) -> bool:
        """Return whether the code was right."""
        return self.request("POST", "/accounts/verify", {"email": address, "code": code})[0] == 200

    def request(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """The status and the body of an answer.

        Raises:
            OSError: there is no answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(
                method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError("the answer broke off") from error
        finally:
            connection.close()


class Worker(Process):
    """``eventpact worker``."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        super().__init__(folder, environment, "worker")

    def is_ready(self) -> bool:
        return " ready." in self._log.read_text(errors="replace")
