"""Drive the real server at rising load, with each dispatcher and a slow mail server: ``python -m load --help``.

Every client signs up new addresses, one after another, without a pause. Fails if an answer is missing or is neither 202
nor a 503 that tells when to come back, or if an accepted sign-up is in the end neither mailed nor kept as failed, for
``eventpact failed retry``.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from support.processes import ChildServer, ChildWorker

from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.persistence.failure_store import FailureStore
from eventpact_contracts.demo.mail_server import MailServer
from load.tables import table

CLIENTS: Final = (1, 4, 16, 64, 256)

PER_ADDRESS: Final = 8


@dataclass
class Step:
    """What was answered to so many clients at once. Times in seconds."""

    dispatcher: str
    clients: int
    seconds: float = 0.0
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def row(self) -> list[str]:
        return [
            self.dispatcher,
            str(self.clients),
            f"{len(self.accepted):,}",
            f"{len(self.accepted) / self.seconds:.0f}",
            *_times(self.accepted),
            f"{len(self.refused):,}",
            *_times(self.refused),
            str(len(self.faults)),
        ]


def main() -> int:
    """Returns 0 if everything was answered in order, and nothing that was accepted is lost."""
    parser = argparse.ArgumentParser(prog="python -m load", description=__doc__)
    parser.add_argument("--dispatcher", action="append", choices=("sync", "asyncio", "celery"), help="default: all")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each step takes (4)")
    parser.add_argument("--mail-seconds", type=float, default=0.2, help="how long the mail server takes a mail (0.2)")
    parser.add_argument(
        "--patience", type=float, default=180.0, help="seconds until the last mail must have come (180)"
    )
    options = parser.parse_args()
    steps: list[Step] = []
    ends: list[list[str]] = []
    lost = 0
    for dispatcher in options.dispatcher or ["sync", "asyncio", "celery"]:
        mine, end, missing = _try(dispatcher, options)
        steps += mine
        ends.append(end)
        lost += missing
    print(table(_HEAD, [step.row() for step in steps]))
    print(table(("", "accepted", "mailed", "kept as failed", "lost", "last mail after, s", "most accepted/s"), ends))
    faults = [f"{step.dispatcher}, {step.clients} clients: {fault}" for step in steps for fault in step.faults]
    for fault in faults[:20]:
        print(f"FAILED {fault}")
    return 1 if faults or lost else 0


def _try(dispatcher: str, options: argparse.Namespace) -> tuple[list[Step], list[str], int]:
    """The steps, a row on how it ended, and how many accepted sign-ups were lost."""
    with tempfile.TemporaryDirectory(prefix="eventpact-load-") as folder, ExitStack() as stack:
        mail = stack.enter_context(MailServer(options.mail_seconds))
        server = _start(dispatcher, Path(folder), mail, stack)
        database = Database(f"sqlite:///{folder}/eventpact.db")
        stack.callback(database.close)
        steps, accepted = asyncio.run(_drive(dispatcher, server.port, options.seconds))
        print(f"{dispatcher}: waiting for the mails of {len(accepted):,}", file=sys.stderr, flush=True)
        began = time.monotonic()
        deadline = began + options.patience
        while (left := accepted - mail.received().keys()) and time.monotonic() < deadline:
            if left <= _failed(database):
                break
            expected = len(mail.mails) + min(len(left), 50)
            mail.wait_for(lambda expected=expected: len(mail.mails) >= expected, 1.0)
        waited = f"{time.monotonic() - began:.1f}"
        mailed = accepted & mail.received().keys()
        kept = accepted & _failed(database) - mailed
        lost = len(accepted) - len(mailed) - len(kept)
        end = [dispatcher, *(f"{number:,}" for number in (len(accepted), len(mailed), len(kept), lost)), waited]
        return steps, [*end, _saturation(steps)], lost


def _failed(database: Database) -> set[str]:
    """The addresses whose mail failed for good, which the failure store keeps."""
    return {json.loads(failure.payload)["email"] for failure in FailureStore(database, SubscriptionTable({})).all()}


_HEAD: Final = (
    "", "clients", "202", "202/s", "median ms", "95% ms", "slowest ms",
    "503", "median ms", "95% ms", "slowest ms", "faults",
)  # fmt: skip


def _start(dispatcher: str, folder: Path, mail: MailServer, stack: ExitStack) -> ChildServer:
    environment = {
        "EVENTPACT_DATA_DIR": str(folder),
        "EVENTPACT_SMTP": mail.url,
        "EVENTPACT_SMTP_STARTTLS": "false",
        "EVENTPACT_RATE_LIMIT": "1000000/minute",  # eight clients have one address
        "EVENTPACT_DRAIN_TIMEOUT": "3",
    }
    server = stack.enter_context(ChildServer(folder, environment, dispatcher))
    if dispatcher == "celery":
        stack.enter_context(ChildWorker(folder, environment, "--concurrency", "8"))  # several mails at once
    return server


async def _drive(dispatcher: str, port: int, seconds: float) -> tuple[list[Step], set[str]]:
    names = (f"person{number}@example.com" for number in itertools.count())
    accepted: set[str] = set()
    steps = []
    for clients in CLIENTS:
        step = Step(dispatcher, clients)
        # Given up sooner than by the server, after 5 s, lest a request meets a connection that is being closed.
        limits = httpx.Limits(max_connections=PER_ADDRESS, keepalive_expiry=1)
        async with AsyncExitStack() as stack:
            began = time.monotonic()
            work = []
            for number in range(clients):
                if number % PER_ADDRESS == 0:  # the server bounds what one address may have in flight
                    transport = httpx.AsyncHTTPTransport(
                        local_address=f"127.0.0.{2 + number // PER_ADDRESS}", limits=limits
                    )
                    client = await stack.enter_async_context(
                        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=30)
                    )
                work.append(_client(client, step, names, accepted, began + seconds))
            await asyncio.gather(*work)
            step.seconds = time.monotonic() - began
        print(f"{dispatcher}: {clients} clients, {len(step.accepted):,} accepted", file=sys.stderr, flush=True)
        steps.append(step)
    return steps, accepted


async def _client(
    client: httpx.AsyncClient, step: Step, names: Iterator[str], accepted: set[str], until: float
) -> None:
    while (began := time.monotonic()) < until:
        address = next(names)
        try:
            answer = await client.post("/accounts", json={"email": address, "display_name": "Ada"})
        except httpx.HTTPError as error:
            step.faults.append(f"no answer: {type(error).__name__}")
            continue
        took = time.monotonic() - began
        if answer.status_code == 202:
            step.accepted.append(took)
            accepted.add(address)
        elif answer.status_code == 503 and int(answer.headers.get("Retry-After", 0)) > 0:
            step.refused.append(took)
            await asyncio.sleep(0.05)  # who is refused comes back; sooner than told, or the server would not stay full
        else:
            step.faults.append(f"answered {answer.status_code} {dict(answer.headers)}")


def _times(seconds: list[float]) -> list[str]:
    if not seconds:
        return ["-"] * 3
    ordered = sorted(seconds)
    return [
        f"{value * 1000:.0f}" for value in (statistics.median(ordered), ordered[len(ordered) * 95 // 100], ordered[-1])
    ]


def _saturation(steps: list[Step]) -> str:
    best = max(steps, key=lambda step: len(step.accepted) / step.seconds)
    return f"{len(best.accepted) / best.seconds:.0f} at {best.clients} clients"


if __name__ == "__main__":
    raise SystemExit(main())
