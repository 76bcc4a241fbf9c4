"""The real server: ``eventpact serve`` in a process of its own, spoken to over real sockets."""

from __future__ import annotations

import itertools
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx

from support.application import SECRET, mails_in
from support.waiting import until

SECONDS = 60.0


@dataclass
class Served:
    """A running server.

    Attributes:
        http: a client whose connections are new for each request, from ``127.0.0.1``.
    """

    process: subprocess.Popen[bytes]
    folder: Path
    port: int = 0
    http: httpx.Client = field(init=False)
    others: Iterator[int] = field(default_factory=lambda: itertools.count(256))

    def __post_init__(self) -> None:
        self.port = int(self._until_logged(r"Uvicorn running on http://\S+:(\d+)")[1])
        self.http = self.client("127.0.0.1")

    def client(self, address: str | None = None) -> httpx.Client:
        """A client with this address of this machine, by default with one that no other has."""
        address = address or str(ip_address("127.0.0.0") + next(self.others))
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            transport=httpx.HTTPTransport(local_address=address, limits=httpx.Limits(max_keepalive_connections=0)),
            timeout=SECONDS,
            trust_env=False,
        )

    def connect(self, address: str = "127.0.0.1") -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS, source_address=(address, 0))

    def sign_up(self, email: str = "ada@example.com", *, client: httpx.Client | None = None, **more: Any) -> int:
        """Sign up; returns the status of the answer."""
        body = {"email": email, "display_name": "Ada"}
        return (client or self.http).post("/accounts", json=body, **more).status_code

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def mails(self) -> list[EmailMessage]:
        return mails_in(self.folder)

    def mail(self) -> EmailMessage:
        """The first mail, once it has come."""
        until(self.mails)
        return self.mails()[0]

    def stop(self) -> int:
        """End it in good order; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)

    def _until_logged(self, pattern: str) -> re.Match[str]:
        def found() -> re.Match[str] | None:
            assert self.process.poll() is None, self.log()
            return re.search(pattern, self.log())

        return until(found)


@contextmanager
def serving(folder: Path, *, files: int | None = None, **settings: object) -> Iterator[Served]:
    """Start a server in ``folder``, with these settings, and kill it at the end if it still runs.

    Args:
        files: how many files it may open.
    """
    given = {"data_dir": folder, "port": 0, "secret": SECRET, **settings}
    names = {f"EVENTPACT_{name.upper()}": str(value) for name, value in given.items() if value is not None}
    limit = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))) if files else None
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "eventpact", "serve"],
            env={**os.environ, **names},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=limit,
        )
    try:
        served = Served(process, folder)
        yield served
        served.http.close()
    finally:
        if "COVERAGE_RUN" in os.environ:  # a process that is killed does not write down what it ran
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
