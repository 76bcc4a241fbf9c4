"""The server and the worker as child processes that are killed, frozen, waited for and measured.

They are those of ``eventpact demo``, with what only tests need.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventpact_contracts.demo.processes import DemoError, Process, Server, Worker
from support.services_kit import steady_port

__all__ = ["ChildProcess", "ChildServer", "ChildWorker", "Usage"]


@dataclass(frozen=True)
class Usage:
    """Resources that a process and its children hold.

    Attributes:
        memory: resident bytes that are not shared with a file.
        descriptors: open files and sockets.
    """

    memory: int
    descriptors: int


class ChildProcess(Process):
    """A child process in a group of its own.

    Attributes:
        environment: read at each start, and this process's own.
    """

    start_seconds = 180.0  # several start at once, on a machine that does other work, too

    def __init__(self, folder: Path, environment: Mapping[str, str], *arguments: str) -> None:
        self.environment = dict(environment)
        Process.__init__(self, folder, self.environment, *arguments)
        self.folder = folder
        self._ended_groups: list[int] = []
        self._log_start = 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self._log_start = self.log_size()
        super().start()

    def try_to_start(self) -> int | None:
        """Start it. Returns the exit code if it ends instead, and None if it comes up.

        Raises:
            DemoError: it neither came up in time nor ended.
        """
        try:
            self.start()
        except DemoError as error:
            if error.exit_code is None:
                raise
            return error.exit_code
        return None

    def signal(self, number: int, *, group: bool = True) -> None:
        (os.killpg if group else os.kill)(self.pid, number)

    def ended(self, seconds: float) -> bool:
        """Whether it ends in time. Children that outlive it are ended by :meth:`sweep`."""
        return self._process is None or self.exit_code(seconds) is not None

    def exit_code(self, seconds: float) -> int | None:
        """Wait for its end and return its code; None if it does not end in time."""
        assert self._process is not None
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._ended_groups.append(self._process.pid)
        self._process = None
        return code

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """The log since the last start."""
        if not self._log.exists():
            return ""
        with self._log.open(errors="replace") as log:
            log.seek(self._log_start)
            return log.read()

    def log_size(self) -> int:
        """The bytes that were logged, over all starts."""
        return self._log.stat().st_size if self._log.exists() else 0

    def children(self) -> list[int]:
        """Its child processes."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def usage(self) -> Usage:
        """Its resources and its children's."""
        pids = [self.pid, *self.children()]
        return Usage(sum(map(_anonymous_bytes, pids)), sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids))

    def sweep(self) -> None:
        """End what is left of processes that have ended."""
        for group in self._ended_groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._ended_groups.clear()

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._ended_groups.append(self._process.pid)
        super()._end(number)

    def __exit__(self, *exc: Any) -> None:
        try:
            super().__exit__(*exc)
        finally:
            self.sweep()


class ChildServer(ChildProcess, Server):
    """``eventpact serve``, at a port that it keeps over its starts."""

    def __init__(self, folder: Path, environment: Mapping[str, str], dispatcher: str, port: int | None = None) -> None:
        self.port = port or steady_port()
        super().__init__(folder, environment, "serve", "--dispatcher", dispatcher, "--port", str(self.port))


class ChildWorker(ChildProcess, Worker):
    """``eventpact worker``."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *arguments: str) -> None:
        super().__init__(folder, environment, "worker", *arguments)

    def is_ready(self) -> bool:
        return " ready." in self.log()  # not in that of a former start

    def crashes(self) -> int:
        """How many children were killed, by the worker's own log since it was started."""
        return self.log().count("exited with 'signal 9 (SIGKILL)'")


def _anonymous_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
