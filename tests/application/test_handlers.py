"""What is mailed because of an event, on a real database and with a real folder of mails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from support.application import code_of, mails_in

from eventpact.application.handlers import NotifyOwnerHandler, VerifyAccountEmailHandler
from eventpact.domain.account import Account, CodeMaker
from eventpact.domain.events import AccountCreatedEvent, SignUpRepeatedEvent, VerificationCodeRequestedEvent
from eventpact.infrastructure.mail import FolderMailer, Messages
from eventpact.infrastructure.persistence.accounts import SqlAccountRepository, SqlVerificationCodes
from eventpact.infrastructure.persistence.database import Database

START = datetime(2026, 1, 1, tzinfo=UTC)
CREATED = AccountCreatedEvent(account_id="123", email="test@example.com", occurred_at=START)
REQUESTED = VerificationCodeRequestedEvent(
    account_id="123", email="test@example.com", occurred_at=START + timedelta(seconds=60)
)


class World:
    """One account, and what handles its events."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database
        SqlAccountRepository(database, timedelta(seconds=60)).add(
            Account(account_id="123", email="test@example.com", display_name="Test")
        )
        self.codes = SqlVerificationCodes(database, CodeMaker(b"x" * 32), timedelta(minutes=10))
        self.mailer = FolderMailer(folder / "mail", Messages("eventpact@example.com", "https://shop.example"))
        self.handler = VerifyAccountEmailHandler(self.codes, self.mailer)

    def mailed(self) -> list[str]:
        return [code_of(mail) for mail in mails_in(self.folder)]

    def verifies(self, code: str) -> bool:
        return self.codes.redeem("test@example.com", code) is not None


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    database.migrate()
    yield World(tmp_path, database)
    database.close()


async def test_a_new_account_is_mailed_a_code_that_verifies(world: World) -> None:
    await world.handler.handle(CREATED)
    (mail,) = mails_in(world.folder)
    assert mail["To"] == "test@example.com"
    assert world.verifies(code_of(mail))


@pytest.mark.parametrize("at_once", [False, True])
async def test_an_event_that_is_delivered_often_leaves_one_live_code_which_is_in_every_mail(
    world: World, at_once: bool
) -> None:
    if at_once:
        await asyncio.gather(*(world.handler.handle(CREATED) for _ in range(10)))
    else:
        for _ in range(10):
            await world.handler.handle(CREATED)
    assert len(world.mailed()) == 10
    (code,) = set(world.mailed())
    with world.database.transaction() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM verification_codes").scalar_one() == 1
    assert world.verifies(code)


@pytest.mark.parametrize(
    "order", [(CREATED, REQUESTED, CREATED), (REQUESTED, CREATED), (REQUESTED, CREATED, REQUESTED)]
)
async def test_an_older_event_that_comes_after_a_newer_one_mails_nothing_and_revives_nothing(
    world: World, order: tuple[AccountCreatedEvent | VerificationCodeRequestedEvent, ...]
) -> None:
    newest = CodeMaker(b"x" * 32).code(REQUESTED.event_id)
    after_newest = False
    for event in order:
        before = len(world.mailed())
        await world.handler.handle(event)
        after_newest = after_newest or event is REQUESTED
        mailed = len(world.mailed()) - before
        assert mailed == (0 if after_newest and event is CREATED else 1)
    assert not world.verifies(CodeMaker(b"x" * 32).code(CREATED.event_id))
    assert world.mailed()[-1] == newest
    assert world.verifies(newest)


async def test_a_redelivery_after_the_code_was_used_mails_nothing(world: World) -> None:
    await world.handler.handle(CREATED)
    assert world.verifies(world.mailed()[0])
    await world.handler.handle(CREATED)
    await world.handler.handle(REQUESTED)
    assert len(world.mailed()) == 1


async def test_an_event_of_an_account_that_is_gone_mails_nothing(world: World) -> None:
    await world.handler.handle(AccountCreatedEvent(account_id="gone", email="gone@example.com"))
    assert world.mailed() == []


class Failing(FolderMailer):
    """Fails as often as it is told, and then writes."""

    failures = 1

    async def send(self, *, to: str, template: str, context: Mapping[str, str]) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the mail server is away")
        await super().send(to=to, template=template, context=context)


async def test_a_mail_that_failed_is_sent_when_the_event_comes_again_and_its_code_verifies(world: World) -> None:
    handler = VerifyAccountEmailHandler(
        world.codes, Failing(world.folder / "mail", Messages("eventpact@example.com", "https://shop.example"))
    )
    with pytest.raises(ConnectionError):
        await handler.handle(CREATED)
    await handler.handle(CREATED)
    (code,) = world.mailed()
    assert world.verifies(code)


async def test_the_owner_of_a_verified_account_is_told_of_a_sign_up_and_gets_no_code(world: World) -> None:
    await NotifyOwnerHandler(world.mailer).handle(SignUpRepeatedEvent(account_id="123", email="test@example.com"))
    (mail,) = mails_in(world.folder)
    assert mail["To"] == "test@example.com"
    assert "code" not in mail.get_content()


def test_a_code_follows_from_its_event_and_the_secret_alone() -> None:
    event_id = UUID(int=7)
    assert CodeMaker(b"x" * 32).code(event_id) == CodeMaker(b"x" * 32).code(event_id)
    assert CodeMaker(b"x" * 32).code(event_id) != CodeMaker(b"y" * 32).code(event_id)
    assert CodeMaker(b"x" * 32).code(event_id) != CodeMaker(b"x" * 32).code(UUID(int=8))


def test_codes_and_digests_of_yesterday_are_those_of_today() -> None:
    """They are in mails and in the database when a new version is deployed."""
    maker = CodeMaker(b"x" * 32)
    assert maker.code(UUID(int=1)) == "ERUDMRPM"
    digest = "9c4150d5579b96fd2651f80bfd7be0644e237beece67c91db299ce75bf7fc510"
    assert maker.digest("1", "ABCDEFGH") == digest
    assert maker.digest("1", " abcdefgh ") == digest
    assert maker.digest("2", "ABCDEFGH") != digest
