"""Our own handlers are idempotent by laws H1 to H3, on real databases; mutants of them are convicted."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from support.application import mails_in

from eventpact.application.handlers import NotifyOwnerHandler, VerifyAccountEmailHandler
from eventpact.domain.account import Account, CodeMaker
from eventpact.domain.events import AccountCreatedEvent, SignUpRepeatedEvent, VerificationCodeRequestedEvent
from eventpact.infrastructure.mail import FolderMailer, Messages
from eventpact.infrastructure.persistence.accounts import SqlAccountRepository, SqlVerificationCodes
from eventpact.infrastructure.persistence.database import Database
from eventpact_contracts import HandlerContract
from eventpact_contracts.checking.outcomes import LawResult, Outcome
from eventpact_contracts.handlers.check import check_handler
from eventpact_contracts.handlers.laws import HANDLER_LAWS

OWNER = {"account_id": "123", "email": "ada@example.com"}
AT = datetime(2026, 1, 1, tzinfo=UTC)


class OnDatabase(HandlerContract):
    """One account and no code, on the database of a fixture; mails go to an empty folder."""

    database: Database
    folder: Path
    maker: CodeMaker = CodeMaker(b"x" * 32)
    codes_kind = SqlVerificationCodes

    @pytest.fixture(autouse=True)
    def _parts(self, database: Database, tmp_path: Path) -> None:
        self.database, self.folder = database, tmp_path

    def handler(self) -> Any:
        with self.database.transaction() as connection:
            for table in ("verification_codes", "accounts", "mailboxes"):
                connection.execute(sa.text(f"DELETE FROM {table}"))
        SqlAccountRepository(self.database, timedelta(seconds=60)).add(Account(**OWNER, display_name="Ada"))
        self.mails = self.folder / uuid4().hex
        self.codes = self.codes_kind(self.database, self.maker, timedelta(minutes=10))
        self.mailer = FolderMailer(self.mails / "mail", Messages("shop@example.com", "https://shop.example"))
        return self.build()

    def build(self) -> Any:
        return VerifyAccountEmailHandler(self.codes, self.mailer)

    def event(self) -> Any:
        return AccountCreatedEvent(**OWNER, occurred_at=AT)

    def state(self) -> Any:
        query = "SELECT account_id, event_id, digest, attempts, redeemed_at FROM verification_codes"
        with self.database.transaction() as connection:
            rows = connection.execute(sa.text(query)).all()
        return rows, {(mail["To"], mail["Subject"], mail.get_content()) for mail in mails_in(self.mails)}


class TestVerifyAccountEmailHandler(OnDatabase):
    pass


class TestVerifyAccountEmailHandlerAskedAgain(OnDatabase):
    """The code of an earlier request is live when the event comes."""

    def handler(self) -> Any:
        made = super().handler()
        self.codes.issue(OWNER["account_id"], UUID(int=1), AT)
        return made

    def event(self) -> Any:
        return VerificationCodeRequestedEvent(**OWNER, occurred_at=AT + timedelta(seconds=60))


class TestNotifyOwnerHandler(OnDatabase):
    def build(self) -> Any:
        return NotifyOwnerHandler(self.mailer)

    def event(self) -> Any:
        return SignUpRepeatedEvent(**OWNER, occurred_at=AT)


class RandomCodes(CodeMaker):
    """The code does not follow from the event."""

    def code(self, event_id: UUID) -> str:
        return secrets.token_hex(4)


class StoredFirst(SqlVerificationCodes):
    """A code whose digest is stored is taken for mailed."""

    def issue(self, account_id: str, event_id: UUID, requested_at: datetime) -> str | None:
        with self._database.transaction() as connection:
            stored = connection.execute(sa.text("SELECT event_id FROM verification_codes")).first()
        return None if stored else super().issue(account_id, event_id, requested_at)


class Remembering(VerifyAccountEmailHandler):
    """Looks for the code that was mailed, and makes another if there is none."""

    def __init__(self, codes: Any, mailer: Any) -> None:
        super().__init__(codes, mailer)
        self._mailed: dict[UUID, str] = {}
        self._numbers = iter(range(100))

    async def handle(self, event: AccountCreatedEvent | VerificationCodeRequestedEvent) -> None:
        if event.event_id not in self._mailed:
            code = f"CODE000{next(self._numbers)}"
            await self._mailer.send(to=event.email, template="verification", context={"code": code, "link_code": code})
            self._mailed[event.event_id] = code


class WithRandomCodes(OnDatabase):
    maker = RandomCodes(b"x" * 32)


class WithStoredFirst(OnDatabase):
    codes_kind = StoredFirst


class WithRemembering(OnDatabase):
    def build(self) -> Any:
        return Remembering(self.codes, self.mailer)


@pytest.mark.parametrize(
    ("mutant", "law", "message"),
    [
        (WithRandomCodes, "H1", "after it was handled twice"),
        (WithRemembering, "H2", "handled it"),
        (WithStoredFirst, "H3", "and handled again"),
    ],
)
def test_a_mutant_of_our_handler_is_convicted(
    database: Database, tmp_path: Path, mutant: type[OnDatabase], law: str, message: str
) -> None:
    subject = mutant()
    subject.database, subject.folder = database, tmp_path
    results: dict[str, LawResult] = {each.id: check_handler(each, subject) for each in HANDLER_LAWS}
    assert results[law].outcome is Outcome.VIOLATED
    assert message in results[law].detail
    before = {"H2": ["H1"], "H3": ["H1", "H2"]}.get(law, [])
    assert all(results[earlier].outcome is not Outcome.VIOLATED for earlier in before), "each law sees what others miss"
