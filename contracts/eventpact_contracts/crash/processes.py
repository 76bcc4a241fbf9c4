"""The processes of a target, in a group: they are started, given orders and killed, and their journals are read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eventpact_contracts.crash.child import KINDS, Journal
from eventpact_contracts.driver.trace import Entry, Kind, read_journal
from eventpact_contracts.scenarios.events import ROLES
from eventpact_contracts.subjects.subject import CouldNotRunError

__all__ = ["ProcessGroup"]

_TICK_SECONDS: Final = 0.005
_START_SECONDS: Final = 20.0

_DOES: Final = {"dispatch": "dispatches", "work": "works"}


@dataclass
class _Process:
    what: str
    name: str
    popen: subprocess.Popen[bytes]


class ProcessGroup:
    """Starts, watches and kills the processes of one run."""

    def __init__(self, folder: Path, target: str, where: str, kinds: str, patience: float) -> None:
        self._folder = folder
        self._arguments = str(folder), target, where, kinds
        self._patience = patience
        self._own = Journal(folder, "suite")
        self._started = 0
        self.processes: dict[str, _Process] = {}

    def start(self, what: str) -> None:
        """Start a process that dispatches or works, and wait until it is ready."""
        self._started += 1
        name = f"{what}-{self._started}"
        (self._folder / f"orders-{name}").touch()
        with (self._folder / f"output-{name}").open("wb") as output:
            popen = subprocess.Popen(  # noqa: S603 - this interpreter, and the test class's target
                [sys.executable, "-m", "eventpact_contracts.crash.child", what, name, *self._arguments],
                stdin=subprocess.PIPE,  # which ends when this process does, however that is
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self.processes[what] = _Process(what, name, popen)
        ready = self._folder / f"ready-{name}"
        self.until(lambda: ready.exists() or popen.poll() is not None, _START_SECONDS)
        if not ready.exists():
            output_text = (self._folder / f"output-{name}").read_text(errors="replace").strip()[-1500:]
            raise CouldNotRunError(
                f"the process that should {what} with {self._arguments[1]} did not come up:\n{output_text}"
            )

    def kill(self, what: str) -> None:
        """SIGKILL the process, and all that it started."""
        process = self.processes.pop(what)
        os.killpg(process.popen.pid, signal.SIGKILL)
        process.popen.communicate()
        self._own.write(Kind.CRASHED, caller="suite", note=f"the process that {_DOES[what]}")

    def restart(self, what: str) -> None:
        self._own.write(Kind.RESTARTED, caller="suite", note=f"the process that {_DOES[what]}")
        self.start(what)

    def engine(self, restart: Callable[[], object]) -> None:
        """Kill the engine and start it again."""
        self._own.write(Kind.CRASHED, caller="suite", note="the engine")
        restart()
        self._own.write(Kind.RESTARTED, caller="suite", note="the engine")

    def order(self, kind: str, event: str) -> None:
        """Have an event dispatched."""
        with (self._folder / f"orders-{self.processes['dispatch'].name}").open("a") as orders:
            orders.write(f"{json.dumps({'kind': kind, 'id': event})}\n")

    def add_child(self, parent: str, kind: str, event: str) -> None:
        """Have the handler of one event dispatch another."""
        (self._folder / f"child-{parent}").write_text(json.dumps({"kind": kind, "id": event}))

    def close_gates(self, kind: str, event: str) -> None:
        """Have each handler of an event wait."""
        for role in ROLES[KINDS[kind]]:
            (self._folder / f"gate-{event}-{kind}.{role}").touch()

    def fail_once(self, kind: str, event: str) -> None:
        """Have the first attempt of each handler of an event fail."""
        for role in ROLES[KINDS[kind]]:
            (self._folder / f"fails-{event}-{kind}.{role}").touch()

    def open_gate(self, event: str, handler: str) -> None:
        (self._folder / f"gate-{event}-{handler}").unlink()

    def open_all(self) -> None:
        for gate in self._folder.glob("gate-*"):
            gate.unlink()

    def entries(self) -> tuple[Entry, ...]:
        return read_journal(*sorted(self._folder.glob("*.jsonl")))

    def entries_of(self, kind: Kind) -> list[Entry]:
        return [entry for entry in self.entries() if entry.kind is kind]

    def until(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait for a condition on the journals of other processes."""
        deadline = time.monotonic() + (self._patience if seconds is None else seconds)
        tick = threading.Event()
        while not condition():
            if time.monotonic() > deadline:
                return False
            tick.wait(_TICK_SECONDS)
        return True

    def until_accepted(self, *events: str) -> None:
        self.until(lambda: {entry.event for entry in self.entries_of(Kind.ACCEPTED)}.issuperset(events))

    def idle(self) -> None:
        self._own.write(Kind.IDLE, caller="suite")

    def overdue(self) -> None:
        self._own.write(Kind.OVERDUE, caller="suite", timeout=self._patience)

    def end(self) -> None:
        for process in self.processes.values():
            if process.popen.poll() is None:
                os.killpg(process.popen.pid, signal.SIGKILL)
            process.popen.communicate()
