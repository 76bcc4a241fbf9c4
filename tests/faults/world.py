"""Everything that a sign-up needs, each part a real one that a fault can be done to."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import kombu
from support.services_kit import Proxy, own_queue, steady_port

from eventpact.infrastructure.celery.embedded_broker import EmbeddedBroker
from faults.accounts import Answer, Evidence, Ledger
from faults.columns import Column
from faults.mail import FaultyMailServer
from faults.mortal import MortalServer, MortalWorker

__all__ = ["FaultError", "Options", "World", "opened"]

_RETRIES: Final = 3


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
    """What one cell plays with.

    Attributes:
        broker: in front of whatever broker there is.
        own: the broker itself, where it is ours to kill.
        kills: how many processes, or groups of them, were killed with SIGKILL.
        round: which repetition of the fault this is, from 0.
    """

    column: Column
    options: Options
    random: random.Random
    folder: Path
    environment: dict[str, str]
    mail: FaultyMailServer
    server: MortalServer
    worker: MortalWorker
    evidence: Evidence
    broker: Proxy
    own: Any
    queue: str
    database: Proxy | None = None
    ledger: Ledger = field(default_factory=Ledger)
    kills: int = 0
    round: int = 0
    unreadable: int = 0
    poisoned: set[str] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)
    _signed_up: int = 0

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
        """Whose mail is kept as failed: in the failure store, or in the dead-letter queue of RabbitMQ."""
        return self.evidence.failed() | self._dead_letters()

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

    def until(self, condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
        """Wait for what other processes bring about.

        Raises:
            FaultError: it does not come about in time.
        """
        if not self.comes_about(condition, seconds):
            raise FaultError(f"{what} did not come about in {seconds:.0f} s")

    def comes_about(self, condition: Callable[[], object], seconds: float) -> bool:
        """The same, as an answer."""
        deadline = time.monotonic() + seconds
        tick = threading.Event()
        while not condition():
            if self.options.stop.is_set():
                raise FaultError("it was interrupted")
            if time.monotonic() > deadline:
                return False
            tick.wait(0.02)
        return True

    def longest_dispatch(self) -> dict[str, float]:
        """The longest that dispatching took, in seconds, by the class of the dispatcher."""
        longest: dict[str, float] = {}
        for line in (self.folder / "dispatched").read_text().splitlines():
            name, seconds = line.split()
            longest[name] = max(longest.get(name, 0.0), float(seconds))
        return longest

    def killed(self, part: MortalServer | MortalWorker, step: str) -> None:
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
) -> Generator[World]:
    """A world of this column, with the server and the worker running.

    Args:
        own_broker: makes a RabbitMQ in a folder, where the fault is to kill it.
        breaks_broker: whether it is.
        postgres: keep the data in PostgreSQL, behind a proxy.
    """
    with tempfile.TemporaryDirectory(prefix="eventpact-faults-") as name, ExitStack() as stack:
        folder = Path(name)
        mail = stack.enter_context(FaultyMailServer())
        environment = {
            "EVENTPACT_DATA_DIR": name,
            "EVENTPACT_SECRET": "0123456789abcdef0123456789abcdef",
            "TMPDIR": name,
            "EVENTPACT_SMTP": mail.url,
            "EVENTPACT_SMTP_STARTTLS": "false",
            "EVENTPACT_RATE_LIMIT": "100000/minute",
            "EVENTPACT_RETRIES": str(_RETRIES),
            "EVENTPACT_RETRY_BACKOFF": "0.4",
            "EVENTPACT_DRAIN_TIMEOUT": "3",
            "EVENTPACT_OUTBOX": str(column.outbox),
            # Short, so that a run is: what is measured scales with them.
            "EVENTPACT_OUTBOX_LEASE": "2",
            "EVENTPACT_OUTBOX_RESEND": "5",
            "FAULTS_FOLDER": name,
            "FAULTS_SWEEPER": "on" if options.sweeper else "off",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])),
        }
        own, broker, queue = None, Proxy("redis://127.0.0.1:1"), ""
        if column.broker:
            if column.broker == "redis":
                own = stack.enter_context(EmbeddedBroker(folder / "broker", steady_port()))
            elif breaks_broker:
                own = stack.enter_context(own_broker(folder / "broker"))
            url = own.url if own is not None else options.rabbitmq
            assert url is not None
            queue = stack.enter_context(own_queue(url))
            broker = stack.enter_context(Proxy(url))
            # What is killed is reached directly: a proxy would take connections while it is away.
            environment |= {"EVENTPACT_BROKER": url if breaks_broker else broker.url, "EVENTPACT_CELERY_QUEUE": queue}
        url, database = f"sqlite:///{folder / 'eventpact.db'}", None
        if postgres:
            assert options.postgres is not None
            url, database = _postgres(options.postgres, environment, stack)
        server = MortalServer(folder, environment, column.dispatcher)
        worker = MortalWorker(folder, environment)
        world = World(
            column,
            options,
            random.Random(seed),
            folder,
            environment,
            mail,
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
            for part in (worker, server):  # what is judged is on record; a drain would only take time
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
