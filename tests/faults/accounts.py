"""The accounting: sign-ups that were accepted, against the mails that came and the failures that are stored."""

from __future__ import annotations

import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import sqlalchemy as sa

from eventpact.infrastructure.outbox.entries import outbox
from eventpact.infrastructure.persistence.accounts import accounts
from eventpact.infrastructure.persistence.failure_store import failures

_ADDRESS: Final = re.compile(r"[\w.]+@[\w.]+")

__all__ = ["Answer", "Balance", "Evidence", "Ledger"]


class Answer(Enum):
    """The answer to a sign-up.

    An answer is in doubt if the connection broke before it came, or if it says so itself. With an outbox the database
    resolves the doubt: the event is in the transaction of the account, so it was accepted if and only if the account
    is there. Without, neither a mail nor its absence is a fault, and what became of it is only counted.
    """

    ACCEPTED = "accepted"
    REFUSED = "refused"
    IN_DOUBT = "in doubt"


class Evidence:
    """Reads the database past the application, without ever locking it."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

    def connect(self) -> sa.Connection:
        """To do a fault to it."""
        return self._engine.connect()

    def accounts(self) -> set[str]:
        """The addresses that have an account."""
        with self._engine.connect() as connection:
            return set(connection.execute(sa.select(accounts.c.email)).scalars())

    def failed(self) -> set[str]:
        """The addresses whose mail is stored as failed, those of unreadable messages among them."""
        with self._engine.connect() as connection:
            payloads = list(connection.execute(sa.select(failures.c.payload)).scalars())
        return {address for payload in payloads for address in _ADDRESS.findall(payload)}

    def unreadable(self) -> int:
        """How many messages are stored that nobody could read."""
        with self._engine.connect() as connection:
            count = sa.select(sa.func.count()).select_from(failures).where(failures.c.error_type == "Unreadable")
            return connection.execute(count).scalar_one()

    def pending(self) -> set[str]:
        """The addresses whose event is in the outbox."""
        with self._engine.connect() as connection:
            payloads = list(connection.execute(sa.select(outbox.c.payload)).scalars())
        return {address for payload in payloads for address in _ADDRESS.findall(payload)}


@dataclass(frozen=True)
class Balance:
    """What came of the sign-ups of one cell: counts of addresses, each of which signs up once.

    Attributes:
        in_doubt: of which neither delivery nor loss would be a fault.
        failed: accepted, not mailed, and stored as failed.
        lost: accepted, and neither mailed nor stored.
        duplicated: mails beyond the first to the same address.
        phantoms: refused, and mailed or stored all the same.
    """

    accepted: int
    refused: int
    in_doubt: int
    delivered: int
    failed: int
    lost: int
    duplicated: int
    phantoms: int


@dataclass
class Ledger:
    """Every sign-up with its answer."""

    answers: dict[str, Answer] = field(default_factory=dict)
    longest_answer: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, address: str, answer: Answer, seconds: float) -> None:
        with self._lock:
            self.answers[address] = answer
            self.longest_answer = max(self.longest_answer, seconds)

    def resolve(self, committed: set[str]) -> None:
        """Let the database tell what was in doubt."""
        with self._lock:
            for address, answer in self.answers.items():
                if answer is Answer.IN_DOUBT:
                    self.answers[address] = Answer.ACCEPTED if address in committed else Answer.REFUSED

    def of(self, answer: Answer) -> set[str]:
        with self._lock:
            return {address for address, given in self.answers.items() if given is answer}

    def balance(self, mails: list[tuple[str, str]], failed: set[str]) -> Balance:
        mailed = Counter(address for address, _ in mails)
        accepted, refused = self.of(Answer.ACCEPTED), self.of(Answer.REFUSED)
        kept = mailed.keys() | failed
        return Balance(
            accepted=len(accepted),
            refused=len(refused),
            in_doubt=len(self.of(Answer.IN_DOUBT)),
            delivered=len(accepted & mailed.keys()),
            failed=len((accepted & failed) - mailed.keys()),
            lost=len(accepted - kept),
            duplicated=mailed.total() - len(mailed),
            phantoms=len(refused & kept),
        )
