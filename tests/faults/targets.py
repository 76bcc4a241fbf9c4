"""The server and the worker of a cell: child processes that kill or freeze themselves at a step."""

from __future__ import annotations

from support.processes import ChildProcess, ChildServer, ChildWorker

__all__ = ["Server", "Target", "Worker"]


class Target(ChildProcess):
    """A child process with failpoints."""

    module = "faults.child"
    role: str

    def arm(self, step: str, scope: str = "self") -> None:
        """Have it kill itself (or its ``parent``, its ``group``), or ``freeze``, when it next reaches a step."""
        draft = self.folder / f"arm-{self.role}.new"
        draft.write_text(f"{step} {scope}")
        draft.rename(self.folder / f"arm-{self.role}")

    def is_armed(self) -> bool:
        """Whether it has not reached that step yet."""
        return (self.folder / f"arm-{self.role}").exists()

    def disarm(self) -> None:
        (self.folder / f"arm-{self.role}").unlink(missing_ok=True)


class Server(Target, ChildServer):
    """``eventpact serve``."""

    role = "serve"


class Worker(Target, ChildWorker):
    """``eventpact worker``."""

    role = "worker"
