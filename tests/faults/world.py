"""Everything that a sign-up needs. Each part is real, and a fault can be done to it."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import amqp.exceptions
import kombu
import kombu.exceptions
import redis
from support.services_kit import Proxy, own_queue, steady_port

from eventpact.infrastructure.celery.embedded_broker import EmbeddedBroker
from faults.accounts import Answer, Evidence, Ledger
from faults.columns import Column
from faults.mail import FaultyMailServer
from faults.targets import Server, Target, Worker

__all__ = ["FaultError", "Options", "World", "opened"]

_RETRIES: Final = 3
_OUTBOX_RETRIES: Final = 6
"""Their waits add up to 12 s at least: longer than any fault that passes."""
_TICK_SECONDS: Final = 0.1
"""Between two looks, each of which may open a connection; recovery is measured no finer."""


class FaultError(Exception):
    """The fault could not be done to the system, or the system did not come back; the text says why."""


@dataclass(frozen=True)
class Options:
    """How the cells are run.

    Attributes:
        freeze: seconds that a broker is frozen, cut off or in a black hole.
        patience: seconds that a column that promises has to recover.
        logs: where the logs of each cell are kept; nowhere if None.
        sweeper: False switches off the part of the outbox that makes its promise true.
        rabbitmq: the URL of a RabbitMQ that is never harmed; None where there is none.
        postgres: likewise.
    """

    freeze: float = 20.0
    patience: float = 60.0
    sweeper: bool = True
    logs: Path | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    rabbitmq: str | None = None
    postgres: str | None = None


@dataclass
class World:
    """The parts of one cell.

    Attributes:
        smtp: in front of the mail server.
        broker: in front of the broker.
        own: the broker itself, where it may be killed.
        stores: other databases in which a worker may have stored failures.
        findings: complaints of the fault about something else than the accounting.
        kills: how many processes, or groups of them, were killed with SIGKILL.
        round: which repetition of the fault this is, from 0.
    """

    column: Column
    options: Options
    random: random.Random
    folder: Path
    environment: dict[str, str]
    mail: FaultyMailServer
    smtp: Proxy
    server: Server
    worker: Worker
    evidence: Evidence
    broker: Proxy
    own: Any
    queue: str
    database: Proxy | None = None
    ledger: Ledger = field(default_factory=Ledger)
    stores: list[Evidence] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    kills: int = 0
    round: int = 0
    unreadable: int = 0
    poisoned: set[str] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)
    _signed_up: int = 0

    def expect(self, holds: object, complaint: str) -> None:
        """Note a complaint, unless something holds."""
        if not holds:
            self.findings.append(complaint)

    def addresses(self, count: int, name: str = "ada") -> list[str]:
        """Addresses that nobody has signed up with."""
        self._signed_up += count
        return [f"{name}{number}@example.com" for number in range(self._signed_up - count, self._signed_up)]

    def sign_up(self, count: int, *, together: bool = True, name: str = "ada") -> list[str]:
        """Have so many people sign up, at once or one by one, and write down each answer."""
        addresses = self.addresses(count, name)
        if together:
            self.begin_sign_up(addresses)()
        else:
            for address in addresses:
                self._sign_up(address)
        return addresses

    def begin_sign_up(self, addresses: list[str]) -> Callable[[], None]:
        """The same, without waiting for the answers; what is returned does."""
        threads = [threading.Thread(target=self._sign_up, args=(address,)) for address in addresses]
        for thread in threads:
            thread.start()

        def join() -> None:
            for thread in threads:
                thread.join()

        return join

    def _sign_up(self, address: str) -> None:
        started = time.monotonic()
        try:
            status, body = self.server.request("POST", "/accounts", {"email": address, "display_name": "Ada"})
        except ConnectionRefusedError:
            answer = Answer.REFUSED
        except OSError:
            answer = Answer.IN_DOUBT
        else:
            answer = _meaning(status, body)
        self.ledger.write(address, answer, time.monotonic() - started)

    def accepted(self) -> set[str]:
        """Whose sign-up was accepted, as far as is known."""
        if self.column.outbox:
            self.ledger.resolve(self.evidence.accounts())
        return self.ledger.of(Answer.ACCEPTED)

    def is_settled(self) -> bool:
        """Whether all that was accepted is delivered or kept, but for what was given up and for poison."""
        wanted = self.accepted() - self.given_up - self.poisoned
        left = wanted - {address for address, _ in self.mail.mails}
        return not left or left <= self.kept()

    def kept(self) -> set[str]:
        """Whose mail is stored as failed: in a failure store, or in the dead-letter queue of RabbitMQ."""
        return self.evidence.failed().union(self._dead_letters(), *(store.failed() for store in self.stores))

    def is_kept(self, addresses: set[str]) -> bool:
        return self.accepted() & addresses <= self.kept()

    def _dead_letters(self) -> set[str]:
        if self.column.broker != "amqp":
            return set()
        found: set[str] = set()
        wanted = self.ledger.of(Answer.ACCEPTED)
        with kombu.Connection(self.broker.url) as connection:
            channel = connection.channel()
            while (message := channel.basic_get(f"{self.queue}.dead")) is not None:
                body = message.body if isinstance(message.body, str) else bytes(message.body).decode("utf-8", "replace")
                found |= {address for address in wanted if address in body}
        return found  # closing the channel puts them back

    def hold_mail(self) -> None:
        """Let no mail through, unless the one who signs up would wait for it."""
        if not self.column.guarantees.blocks_caller:
            self.mail.hold()

    def until(self, condition: Callable[[], object], name: str, seconds: float = 60.0) -> None:
        """Wait until other processes have made a condition true.

        Raises:
            FaultError: it does not come true in time; the error names it.
        """
        if not self.comes_about(condition, seconds):
            raise FaultError(f"{name} did not come about in {seconds:.0f} s")

    def comes_about(self, condition: Callable[[], object], seconds: float) -> bool:
        """The same; False where it does not come true in time."""
        deadline = time.monotonic() + seconds
        tick = threading.Event()
        while not condition():
            if self.options.stop.is_set():
                raise FaultError("it was interrupted")
            if time.monotonic() > deadline:
                return False
            tick.wait(_TICK_SECONDS)
        return True

    def backlog(self) -> int:
        """How many messages wait in the broker."""
        if self.column.broker == "redis":
            with redis.Redis.from_url(self._broker_url()) as client:
                return sum(int(client.llen(key)) for key in client.scan_iter(f"{self.queue}*", _type="list"))
        with kombu.Connection(self._broker_url()) as connection:
            return int(connection.channel().queue_declare(self.queue, passive=True).message_count)

    broker_errors: ClassVar = (redis.RedisError, kombu.exceptions.KombuError, amqp.exceptions.AMQPError)
    """Raised by :meth:`backlog`, beside :class:`OSError`, while the broker is unreachable."""

    def _broker_url(self) -> str:
        return str(self.own.url if self.own is not None else self.options.rabbitmq)

    def longest_dispatch(self) -> dict[str, float]:
        """The longest that dispatching took, in seconds, by the class of the dispatcher."""
        longest: dict[str, float] = {}
        for line in (self.folder / "dispatched").read_text().splitlines():
            name, seconds = line.split()
            longest[name] = max(longest.get(name, 0.0), float(seconds))
        return longest

    def killed(self, part: Target, step: str) -> None:
        """Wait until ``part`` has killed itself at a step, and count it."""
        if not part.ended(60.0):
            part.disarm()
            raise FaultError(f"the step {step!r} was not reached")
        self.kills += 1


def _meaning(status: int, body: bytes) -> Answer:
    if status == 202:
        return Answer.ACCEPTED
    if status == 503 and b"not known whether" in body:
        return Answer.IN_DOUBT
    if status in {429, 503}:
        return Answer.REFUSED
    raise FaultError(f"a sign-up was answered {status}: {json.loads(body).get('detail')}")


@contextmanager
def opened(
    column: Column,
    options: Options,
    seed: str,
    *,
    own_broker: Any = None,
    breaks_broker: bool = False,
    postgres: bool = False,
    embedded: bool = False,
    settings: Mapping[str, str] | None = None,
) -> Generator[World]:
    """A world of this column, with the server and the worker running.

    Args:
        own_broker: makes a RabbitMQ in a folder, where the fault is to kill it.
        breaks_broker: whether it is.
        postgres: keep the data in PostgreSQL, behind a proxy.
        embedded: leave the broker to the server, which starts one.
        settings: of the server and the worker, besides those of every world.
    """
    with tempfile.TemporaryDirectory(prefix="eventpact-faults-") as name, ExitStack() as stack:
        folder = Path(name)
        mail = stack.enter_context(FaultyMailServer())
        smtp = stack.enter_context(Proxy(mail.url))
        environment = {
            "EVENTPACT_DATA_DIR": name,
            "EVENTPACT_SECRET": "0123456789abcdef0123456789abcdef",
            "TMPDIR": name,
            "EVENTPACT_SMTP": smtp.url,
            "EVENTPACT_SMTP_STARTTLS": "false",
            "EVENTPACT_RATE_LIMIT": "100000/minute",
            "EVENTPACT_RETRIES": str(_OUTBOX_RETRIES if column.outbox else _RETRIES),
            "EVENTPACT_RETRY_BACKOFF": "0.4",
            "EVENTPACT_DRAIN_TIMEOUT": "3",
            "EVENTPACT_OUTBOX": str(column.outbox),
            # Short, so that a run is: what is measured scales with them.
            "EVENTPACT_OUTBOX_LEASE": "2",
            "EVENTPACT_OUTBOX_RESEND": "5",
            "FAULTS_FOLDER": name,
            "FAULTS_SWEEPER": "on" if options.sweeper else "off",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])),
            **(settings or {}),
        }
        own, broker, queue = None, Proxy("redis://127.0.0.1:1"), ""
        if column.broker and not embedded:
            if column.broker == "redis":
                own = stack.enter_context(EmbeddedBroker(folder / "broker", steady_port()))
            elif breaks_broker:
                own = stack.enter_context(own_broker(folder / "broker"))
            url = own.url if own is not None else options.rabbitmq
            assert url is not None
            queue = stack.enter_context(own_queue(url))
            broker = stack.enter_context(Proxy(url))
            # A broker that is killed is reached directly: a proxy would take connections while it is unreachable.
            environment |= {"EVENTPACT_BROKER": url if breaks_broker else broker.url, "EVENTPACT_CELERY_QUEUE": queue}
        url, database = f"sqlite:///{folder / 'eventpact.db'}", None
        if postgres:
            assert options.postgres is not None
            url, database = _postgres(options.postgres, environment, stack)
        server = Server(folder, environment, column.dispatcher)
        worker = Worker(folder, environment)
        world = World(
            column,
            options,
            random.Random(seed),
            folder,
            environment,
            mail,
            smtp,
            server,
            worker,
            Evidence(url),
            broker,
            own,
            queue,
            database,
        )
        stack.callback(mail.release)  # whoever waits for a mail is let go before it is stopped
        stack.enter_context(server)
        if column.has_worker:
            stack.enter_context(worker)
        if column.broker == "amqp" and own is not None:
            queues = [f"{queue}.dead", queue, *(f"{queue}.retry.{attempt}" for attempt in range(2, _RETRIES + 2))]
            world.until(lambda: own.has_written_down(*queues), "a broker that keeps its queues")
        try:
            yield world
        finally:
            for part in (worker, server):  # all that is judged is on record; a drain would only take time
                part.kill()
            if options.logs is not None:
                kept = options.logs / seed.replace(" ", "-")
                kept.mkdir(parents=True, exist_ok=True)
                for log in folder.glob("**/*.log"):
                    shutil.copy(log, kept)


def _postgres(service: str, environment: dict[str, str], stack: ExitStack) -> tuple[str, Proxy]:
    from support.services_kit import own_database

    direct = stack.enter_context(own_database(service))
    proxy = stack.enter_context(Proxy(direct))
    environment["EVENTPACT_DATABASE"] = proxy.url
    direct = direct.replace("postgresql://", "postgresql+psycopg://", 1)
    from eventpact.infrastructure.persistence.database import Database

    database = Database(direct)
    database.migrate()
    database.close()
    return direct, proxy
