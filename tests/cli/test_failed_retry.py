"""A mail that failed is delivered again by ``eventpact failed retry``: real processes, a mail server that refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.application import SECRET
from support.services_kit import MailServer, own_queue
from support.waiting import until

from eventpact_contracts.demo.processes import Server, Worker

pytestmark = pytest.mark.slow

ADDRESS = "ada@example.com"
ENGINES = [
    *((dispatcher, outbox) for dispatcher in ("sync", "asyncio", "celery") for outbox in ("--no-outbox", "--outbox")),
    pytest.param(("rabbitmq", "--no-outbox"), marks=pytest.mark.services),
    pytest.param(("rabbitmq", "--outbox"), marks=pytest.mark.services),
]


@dataclass
class World:
    """A server with one of the dispatchers, a worker if it needs one, and a mail server."""

    server: Server
    mail: MailServer
    environment: dict[str, str]
    in_worker: bool
    uses_outbox: bool

    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = json.loads(self.server.request("GET", "/health/ready")[1])["counts"]
        return counts

    def has_failed(self, times: int) -> bool:
        return self.counts()["failed"] == 1 and self.mail.refused[ADDRESS] == times

    def failed(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "eventpact", "failed", *arguments],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=30,
        )


@pytest.fixture(params=ENGINES, ids=lambda engine: " ".join(engine))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    dispatcher, outbox = request.param
    with ExitStack() as stack:
        mail = stack.enter_context(MailServer())
        mail.refusal = "550 no such user here"
        environment = {
            "EVENTPACT_DATA_DIR": str(tmp_path),
            "EVENTPACT_SECRET": SECRET,
            "EVENTPACT_SMTP": mail.url,
            "EVENTPACT_SMTP_STARTTLS": "false",
            "EVENTPACT_OUTBOX": str(outbox == "--outbox").lower(),
            "EVENTPACT_RETRY_BACKOFF": "0.1",
        }
        if dispatcher == "rabbitmq":
            environment["EVENTPACT_BROKER"] = request.getfixturevalue("rabbitmq_service")
            environment["EVENTPACT_CELERY_QUEUE"] = stack.enter_context(own_queue(environment["EVENTPACT_BROKER"]))
            dispatcher = "celery"
        environment["EVENTPACT_DISPATCHER"] = dispatcher
        server = stack.enter_context(Server(tmp_path, environment, dispatcher))
        if dispatcher == "celery":
            stack.enter_context(Worker(tmp_path, environment))
        yield World(server, mail, environment, dispatcher == "celery", outbox == "--outbox")


def test_it_arrives_once_with_a_code_that_works(world: World) -> None:
    world.mail.refuse[ADDRESS] = 2
    assert world.server.sign_up(ADDRESS)[0] == 202
    until(lambda: world.has_failed(1), 20)

    listed = world.failed("list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "AccountCreatedEvent" in listed.stdout
    assert "VerifyAccountEmailHandler  1 attempt(s)" in listed.stdout  # permanent: tried once
    assert "MailRejectedError: the mail server refused the mail (550)" in listed.stdout
    assert "ada@" not in listed.stdout
    shown = world.failed("show", "1")
    assert shown.returncode == 0
    assert ADDRESS in shown.stdout

    again = world.failed("retry", "1")  # which is refused once more
    if world.in_worker or world.uses_outbox:
        assert (again.returncode, again.stderr) == (0, "")
        assert again.stdout.startswith("1 is dispatched again")
    else:
        assert (again.returncode, again.stdout) == (1, "")
        assert again.stderr == (
            "eventpact: 1 stays: it failed again: MailRejectedError: the mail server refused the mail (550)\n"
        )
    until(lambda: world.has_failed(2), 20)
    assert world.mail.mails == []

    (number,) = re.findall(r"^ *(\d+)  ", world.failed("list").stdout, flags=re.M)
    again = world.failed("retry", number, number)  # named twice, it is still one
    assert (again.returncode, again.stderr) == (0, "")
    until(lambda: world.mail.mails and not any(world.counts().values()), 20)
    assert world.failed("list").stdout == "nothing has failed\n"
    assert world.failed("retry", "--all").returncode == 0
    ((recipient, code),) = world.mail.mails
    assert recipient == ADDRESS
    assert world.server.verify(ADDRESS, code)
    assert not world.server.verify(ADDRESS, code)


@pytest.mark.parametrize("world", [("sync", "--no-outbox")], indirect=True)
def test_what_is_dropped_is_gone(world: World) -> None:
    world.mail.refuse[ADDRESS] = 1
    assert world.server.sign_up(ADDRESS)[0] == 202
    until(lambda: world.has_failed(1), 20)
    assert world.failed("drop", "1").returncode == 0
    assert world.failed("list").stdout == "nothing has failed\n"
    assert world.failed("retry", "1").stderr == "eventpact: there is no failure 1; see eventpact failed list\n"
    assert world.counts()["failed"] == 0
    assert world.mail.mails == []
