"""Sign-up to verified address, through real servers and workers, on PostgreSQL, SMTP, and RabbitMQ or Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.services_kit import MailServer, Proxy, own_database, own_queue
from support.waiting import until

from eventpact_contracts.demo.processes import Process, Server, Worker

pytestmark = pytest.mark.services


@dataclass
class World:
    """Everything that a sign-up needs. The broker is behind a proxy."""

    server: Server
    worker: Process
    mail: MailServer
    broker: Proxy

    def sign_up(self, *addresses: str) -> None:
        for address in addresses:
            assert self.server.sign_up(address)[0] == 202

    def is_mailed(self, *addresses: str, seconds: float = 20) -> None:
        until(lambda: all(self.mail.codes(address) for address in addresses), seconds)


@pytest.fixture(params=["rabbitmq", "redis"])
def broker_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_service")
    return url


@pytest.fixture
def world(broker_url: str, postgres_service: str, tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        mail = stack.enter_context(MailServer())
        queue = stack.enter_context(own_queue(broker_url))
        proxy = stack.enter_context(Proxy(broker_url))
        environment = {
            "EVENTPACT_ENVIRONMENT": "production",
            "EVENTPACT_BASE_URL": "https://shop.example",
            "EVENTPACT_MAIL_FROM": "Shop <no-reply@shop.example>",
            "EVENTPACT_SECRET": "0123456789abcdef0123456789abcdef",
            "EVENTPACT_DATA_DIR": str(tmp_path),
            "EVENTPACT_DATABASE": stack.enter_context(own_database(postgres_service)),
            "EVENTPACT_BROKER": proxy.url,
            "EVENTPACT_SMTP": mail.url,
            "EVENTPACT_SMTP_STARTTLS": "false",
            "EVENTPACT_OUTBOX": "false",  # what Celery does by itself
            "EVENTPACT_CELERY_QUEUE": queue,
            "EVENTPACT_CELERY_ACKS_LATE": "true",
            "EVENTPACT_CELERY_VISIBILITY_TIMEOUT": "3",
            "EVENTPACT_RATE_LIMIT": "1000/minute",
            "EVENTPACT_RETRY_BACKOFF": "0.2",
        }
        Once(tmp_path, environment, "migrate").start()
        server = stack.enter_context(Server(tmp_path, environment, "celery"))
        worker = stack.enter_context(Worker(tmp_path, environment))
        yield World(server, worker, mail, proxy)


class Once(Process):
    """A command that ends by itself."""

    def is_ready(self) -> bool:
        assert self._process is not None
        return self._process.wait(30) == 0


def test_a_sign_up_is_mailed_by_the_worker_and_its_code_verifies_once(world: World) -> None:
    addresses = [f"person{number}@example.com" for number in range(10)]
    world.sign_up(*addresses)
    world.is_mailed(*addresses)
    for address in addresses:
        (code,) = world.mail.codes(address)
        assert world.server.verify(address, code)
        assert not world.server.verify(address, code)


def test_a_mail_that_is_refused_for_now_is_tried_again(world: World) -> None:
    world.mail.refuse["ada@example.com"] = 2
    world.sign_up("ada@example.com")
    world.is_mailed("ada@example.com")
    assert world.mail.refused["ada@example.com"] == 2
    assert world.server.verify("ada@example.com", world.mail.codes("ada@example.com")[0])


def test_what_is_accepted_while_no_worker_runs_is_handled_by_the_next(world: World) -> None:
    world.worker.stop()
    world.sign_up("ada@example.com")
    assert world.mail.mails == []
    world.worker.start()
    world.is_mailed("ada@example.com")


def test_a_worker_that_is_killed_half_way_is_made_up_for(world: World) -> None:
    addresses = [f"held{number}@example.com" for number in range(4)]
    world.mail.hold()
    world.sign_up(*addresses)
    until(lambda: world.mail.waiting)
    world.worker.kill()
    world.worker.start()
    world.mail.release()
    world.is_mailed(*addresses, seconds=30)
    for address in addresses:
        assert world.server.verify(address, world.mail.codes(address)[-1])


def test_without_its_broker_the_server_says_so_in_time_and_recovers(world: World) -> None:
    world.sign_up("before@example.com")
    world.is_mailed("before@example.com")
    world.broker.cut()
    for _ in range(3):
        started = time.monotonic()
        status, body = world.server.request("POST", "/accounts", {"email": "ada@example.com", "display_name": "Ada"})
        assert time.monotonic() - started < 3
        assert status == 503
        assert json.loads(body)["detail"]
    assert world.server.request("GET", "/health/live")[0] == 200
    assert world.server.request("GET", "/health/ready")[0] == 503
    world.broker.open()
    until(lambda: world.server.request("GET", "/health/ready")[0] == 200)
    world.sign_up("ada@example.com")
    world.is_mailed("ada@example.com", seconds=40)
    assert world.server.verify("ada@example.com", world.mail.codes("ada@example.com")[-1])
