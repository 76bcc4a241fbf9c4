"""The server and the worker as processes that can be killed at a step, frozen, and waited for."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from support.services_kit import steady_port

from eventpact_contracts.demo.processes import Process, Server, Worker

__all__ = ["Mortal", "MortalServer", "MortalWorker"]


class Mortal(Process):
    """A process that dies when it is told to."""

    module = "faults.child"
    start_seconds = 60.0  # several cells may start at once
    folder: Path
    role: str
    _left: list[int]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def arm(self, step: str, scope: str = "self") -> None:
        """Have it kill itself (or its ``parent``, or its ``group``) when it next reaches a step."""
        draft = self.folder / f"arm-{self.role}.new"
        draft.write_text(f"{step} {scope}")
        draft.rename(self.folder / f"arm-{self.role}")

    def is_armed(self) -> bool:
        """Whether it has not reached that step yet."""
        return (self.folder / f"arm-{self.role}").exists()

    def disarm(self) -> None:
        (self.folder / f"arm-{self.role}").unlink(missing_ok=True)

    def signal(self, number: int, *, group: bool = True) -> None:
        (os.killpg if group else os.kill)(self.pid, number)

    def ended(self, seconds: float) -> bool:
        """Whether it ends in time. Children that outlive it are ended by :meth:`sweep`."""
        if self._process is None:
            return True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._left.append(self._process.pid)
        self._process = None
        return True

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def sweep(self) -> None:
        """End what is left of processes that have ended."""
        for group in self._left:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._left.clear()

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._left.append(self._process.pid)
        super()._end(number)

    def __exit__(self, *exc: Any) -> None:
        try:
            super().__exit__(*exc)
        finally:
            self.sweep()


class MortalServer(Mortal, Server):
    """``eventpact serve``."""

    role = "serve"

    def __init__(self, folder: Path, environment: dict[str, str], dispatcher: str) -> None:
        self.port = steady_port()
        Process.__init__(self, folder, environment, "serve", "--dispatcher", dispatcher, "--port", str(self.port))
        self.folder, self._left = folder, []


class MortalWorker(Mortal, Worker):
    """``eventpact worker``."""

    role = "worker"

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        super().__init__(folder, environment)
        self.folder, self._left, self._read = folder, [], 0

    def start(self) -> None:
        self._read = self._log.stat().st_size if self._log.exists() else 0
        super().start()

    def is_ready(self) -> bool:
        with self._log.open(errors="replace") as log:
            log.seek(self._read)  # what a former one wrote does not count
            return " ready." in log.read()

    def deaths(self) -> int:
        """How many children died of SIGKILL, by the worker's own log since it was started."""
        with self._log.open(errors="replace") as log:
            log.seek(self._read)
            return log.read().count("exited with 'signal 9 (SIGKILL)'")

    def children(self) -> list[int]:
        """The processes in which handlers run."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
