"""``POST /accounts`` of a real server on loopback: response times and requests a second, with each dispatcher.

What it is compared with is the same endpoint on FastAPI's ``BackgroundTasks`` (``api_background.py``). All servers run
all the time, so that the cases can be interleaved. A case is only over when its mails were sent, so that none is sent
in the time of the next.
"""

from __future__ import annotations

import http.client
import json
import socket
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from processes import HERE, SECONDS, python
from publishing import QUEUE, sweep
from timing import percentiles, quartiles, ratio, shuffled

from eventpact_contracts.demo.mail_server import MailServer

BASE = "BackgroundTasks"
BUDGET = 40.0
"""Seconds that the rounds of one delay may take together."""
QUIET = 10.0
"""Seconds without a mail after which no more will come; longer than the waits between Celery's first attempts."""
CONNECTIONS = 8
MAILERS = 8
"""How many mails one Celery worker sends at once."""

_people = count()


class Server:
    """One of the servers, and a client of it.

    Attributes:
        refused: how many sign-ups were answered with 503.
        unsent: how many mails of the others never came.
    """

    def __init__(self, mail: MailServer, port: int) -> None:
        self.refused = self.unsent = 0
        self._mail = mail
        self._port = port

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)

    def times(self, requests: int, seconds: float) -> list[float]:
        """How long so many sign-ups took, one after the other over one connection; fewer if time is up."""
        connection, taken, began = self.connect(), [], time.perf_counter()
        while len(taken) < requests and time.perf_counter() - began < seconds:
            body = json.dumps({"email": f"person{next(_people)}@example.com", "display_name": "Bench"})
            start = time.perf_counter()
            try:
                connection.request("POST", "/accounts", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
            except http.client.RemoteDisconnected:  # a machine so busy that the server took the client for idle
                connection.close()
                continue
            answer.read()
            if answer.status == 202:
                taken.append(time.perf_counter() - start)
            elif answer.status == 503:  # the database was locked for longer than a request may wait
                self.refused += 1
            else:
                raise RuntimeError(f"a sign-up was answered with {answer.status}")
        connection.close()
        return taken

    def measure(self, requests: int, seconds: float) -> tuple[list[float], float]:
        """Response times of one client, then answers a second for several, and the mails of both."""
        sent = len(self._mail.mails)
        alone = self.times(requests, seconds)
        self._wait_for(sent + len(alone))
        began = time.perf_counter()
        with ThreadPoolExecutor(CONNECTIONS) as clients:
            each = clients.map(lambda _: self.times(requests, seconds), range(CONNECTIONS))
            together = sum(map(len, each))
        rate = together / (time.perf_counter() - began)
        self._wait_for(sent + len(alone) + together)
        return alone, rate

    def _wait_for(self, mails: int) -> None:
        """Until so many were sent in all, or none for so long that no more will come."""
        while (there := len(self._mail.mails)) < mails:
            if not self._mail.wait_for(lambda there=there: len(self._mail.mails) > there, QUIET):
                self.unsent += mails - there
                return

    def is_ready(self) -> bool:
        connection = self.connect()
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _cases(redis: str | None) -> dict[str, dict[str, str]]:
    """The settings of each case."""
    cases = {
        BASE: {"OUTBOX": "false"},
        "sync": {"DISPATCHER": "sync", "OUTBOX": "false"},
        "asyncio": {"DISPATCHER": "asyncio", "OUTBOX": "false"},
        "asyncio, outbox": {"DISPATCHER": "asyncio", "OUTBOX": "true"},
    }
    if redis is not None:
        for name, outbox in {"celery": "false", "celery, outbox": "true"}.items():
            queue = f"{QUEUE}-api{outbox}"
            cases[name] = {"DISPATCHER": "celery", "OUTBOX": outbox, "BROKER": redis, "CELERY_QUEUE": queue}
    return cases


def _start(name: str, settings: Mapping[str, str], mail: MailServer, folder: Path, stack: ExitStack) -> Server:
    data = folder / name.replace(", ", "-")
    data.mkdir(mode=0o700)
    common = {"DATA_DIR": str(data), "SMTP": mail.url, "SMTP_STARTTLS": "false", "RATE_LIMIT": "1000000/minute"}
    environment = {f"EVENTPACT_{key}": value for key, value in {**common, **settings}.items()}
    port = str(_free_port())
    background = [str(HERE / "api_background.py"), port]
    command = background if name == BASE else ["-m", "eventpact", "serve", "--port", port]
    until, server = stack.enter_context(python(command, environment, data / "server.log")), Server(mail, int(port))
    until(server.is_ready)
    if settings.get("DISPATCHER") == "celery":
        worker = ["-m", "eventpact", "worker", "--concurrency", str(MAILERS)]
        stack.enter_context(python(worker, environment, data / "worker.log"))
    return server


def api(
    redis: str | None, rounds: int, requests: int, seconds: float, delays: Sequence[int] = (0, 20, 200)
) -> dict[str, Any]:
    """Every round, each case has so many sign-ups in a row, and as many on each of several connections.

    Args:
        redis: the broker of Celery, without which it has no part.
        seconds: how long each of the two may take in a round.
        delays: milliseconds that the mail server takes to accept a mail.
    """
    result: dict[str, Any] = {"connections": CONNECTIONS, "base": BASE, "delays_ms": {}}
    with tempfile.TemporaryDirectory(prefix="eventpact-bench-") as folder, ExitStack() as stack:
        if redis is not None:
            stack.callback(sweep, redis)
        mail = stack.enter_context(MailServer(0.0))
        servers = {name: _start(name, settings, mail, Path(folder), stack) for name, settings in _cases(redis).items()}
        for server in servers.values():
            server.measure(5, seconds)  # connections are made, code is loaded, workers have come up
        for delay in delays:
            mail.delay = delay / 1e3
            for server in servers.values():
                server.refused = server.unsent = 0
            result["delays_ms"][delay] = _interleave(servers, rounds, requests, seconds)
    return result


def _interleave(servers: Mapping[str, Server], rounds: int, requests: int, seconds: float) -> dict[str, Any]:
    times: dict[str, list[list[float]]] = {name: [] for name in servers}
    rates: dict[str, list[float]] = {name: [] for name in servers}
    for order in shuffled(servers, rounds, BUDGET):
        for name in order:
            alone, rate = servers[name].measure(requests, seconds)
            times[name].append(alone)
            rates[name].append(rate)
    medians = {name: [statistics.median(each) for each in times[name]] for name in servers}
    return {
        name: {
            "rounds": len(rates[name]),
            "requests": sum(map(len, times[name])),
            "refused": servers[name].refused,
            "unsent": servers[name].unsent,
            "response_ms": percentiles([one for each in times[name] for one in each]),
            **ratio(medians[name], medians[BASE]),
            "requests_a_second": dict(zip(("low", "median", "high"), map(round, quartiles(rates[name])), strict=True)),
        }
        for name in servers
    }
