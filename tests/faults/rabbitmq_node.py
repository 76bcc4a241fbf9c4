"""A RabbitMQ node of one's own, to be killed and frozen."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self
from uuid import uuid4

import kombu
from support.services_kit import steady_port

from faults.world import FaultError

__all__ = ["RabbitNode", "server_script"]

_START_SECONDS: Final = 180.0


def server_script() -> str | None:
    """What starts a node as whoever calls it, if it is installed. The one on PATH may switch to another user."""
    found = shutil.which("rabbitmq-server", path="/usr/lib/rabbitmq/bin:/opt/homebrew/sbin:/usr/local/sbin")
    return found or shutil.which("rabbitmq-server")


class RabbitNode:
    """Runs while the ``with`` block does; its queues are in ``folder`` and survive a kill.

    Args:
        config: a line of ``rabbitmq.conf``.
    """

    def __init__(self, folder: Path, config: str = "") -> None:
        self._folder = folder
        self._config = config
        self._name = f"eventpact-{uuid4().hex[:12]}@localhost"
        self._port, self._distribution = steady_port(), steady_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._port}//"

    @property
    def pid(self) -> int:
        """The process id of the Erlang machine, which leads no group: the script becomes it."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the node and wait until it takes connections.

        Raises:
            FaultError: it does not come up.
        """
        script = server_script()
        assert script is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        plugins = self._folder / "enabled_plugins"
        plugins.write_text("[].")
        # Not those of the machine, which may be for another node.
        config, environment = self._folder / "rabbitmq.conf", self._folder / "rabbitmq-env.conf"
        config.write_text(f"listeners.tcp.1 = 127.0.0.1:{self._port}\n{self._config}\n")
        environment.touch()
        with (self._folder / "node.log").open("ab") as log:
            self._process = subprocess.Popen(
                [script],
                env=os.environ
                | {
                    "HOME": str(self._folder),  # the cookie
                    "RABBITMQ_NODENAME": self._name,
                    "RABBITMQ_CONFIG_FILE": str(config),
                    "RABBITMQ_CONF_ENV_FILE": str(environment),
                    "RABBITMQ_DIST_PORT": str(self._distribution),
                    "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
                    "RABBITMQ_LOG_BASE": str(self._folder / "log"),
                    "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
                    "RABBITMQ_PID_FILE": str(self._folder / "pid"),
                    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                end = (self._folder / "node.log").read_text(errors="replace")[-1000:]
                self.kill()
                raise FaultError(f"the RabbitMQ node did not come up: {end}")
            time.sleep(0.1)  # between two attempts; the deadline is above

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def has_written_down(self, *queues: str) -> bool:
        """Whether it would bring these quorum queues back: it writes down about a second later that there is one."""
        names = b"".join(file.read_bytes() for file in self._folder.glob("mnesia/*/quorum/*/names.dets"))
        return all(queue.encode() + b"m" in names for queue in queues)  # the tag of what follows in Erlang's format

    def freeze(self, frozen: bool) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.kill()

    def _answers(self) -> bool:
        try:
            with kombu.Connection(self.url, connect_timeout=2) as connection:
                connection.connect()
        except OSError:
            return False
        return True
