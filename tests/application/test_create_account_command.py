"""The use cases, on a real database and with a dispatcher that does as a test says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from eventpact.application.commands import (
    CreateAccountCommand,
    InvalidCodeError,
    ResendCodeCommand,
    VerifyAccountCommand,
)
from eventpact.domain.account import Account, CodeMaker, CreateAccountData
from eventpact.domain.dispatcher import DispatchError
from eventpact.domain.events import (
    AccountCreatedEvent,
    DomainEvent,
    SignUpRepeatedEvent,
    VerificationCodeRequestedEvent,
)
from eventpact.infrastructure.persistence.accounts import SqlAccountRepository, SqlVerificationCodes
from eventpact.infrastructure.persistence.database import Database
from eventpact.testing import RecordingEventDispatcher

ADA = CreateAccountData(email="ada@example.com", display_name="Ada")


class World:
    """The use cases over one database, in which time passes when a test says so."""

    def __init__(self, database: Database) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.database = database
        self.dispatcher = RecordingEventDispatcher()
        self.repository = SqlAccountRepository(database, timedelta(seconds=60), lambda: self.now)
        self.codes = SqlVerificationCodes(database, CodeMaker(b"x" * 32), timedelta(minutes=10), clock=lambda: self.now)
        self.create = CreateAccountCommand(self.dispatcher, self.repository)
        self.resend = ResendCodeCommand(self.dispatcher, self.repository)
        self.verify = VerifyAccountCommand(self.codes)

    def accepted(self) -> list[type[DomainEvent]]:
        return [type(event) for event in self.dispatcher.events]

    def code(self) -> str:
        event = self.dispatcher.events[-1]
        assert isinstance(event, AccountCreatedEvent | VerificationCodeRequestedEvent)
        return self.codes.issue(event.account_id, event.event_id, event.occurred_at) or ""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    database.migrate()
    yield World(database)
    database.close()


def test_an_account_is_saved_and_then_told_of(world: World) -> None:
    account = world.create.execute(ADA)
    assert world.repository.by_email(ADA.email) == account
    assert account == Account(account_id=account.account_id, email="ada@example.com", display_name="Ada")
    (event,) = world.dispatcher.events
    assert isinstance(event, AccountCreatedEvent)
    assert (event.account_id, event.email) == (account.account_id, account.email)


def test_the_owner_of_a_known_address_gets_a_code_again_at_most_once_an_interval(world: World) -> None:
    first = world.create.execute(ADA)
    assert world.create.execute(ADA) == first
    assert world.accepted() == [AccountCreatedEvent]
    world.now += timedelta(seconds=60)
    world.create.execute(ADA)
    world.create.execute(ADA)
    world.resend.execute(ADA.email)
    assert world.accepted() == [AccountCreatedEvent, VerificationCodeRequestedEvent]


def test_the_owner_of_a_verified_account_is_told_and_gets_no_code(world: World) -> None:
    world.create.execute(ADA)
    world.verify.execute(ADA.email, world.code())
    world.now += timedelta(seconds=60)
    world.create.execute(ADA)
    world.resend.execute(ADA.email)
    assert world.accepted() == [AccountCreatedEvent, SignUpRepeatedEvent]


def test_an_account_that_is_deleted_while_its_owner_signs_up_again_is_created_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = world.create.execute(ADA)
    look, gone = world.repository.by_email, False

    def delete_then_look(email: str) -> Account | None:
        nonlocal gone
        if not gone:
            gone = True
            with world.database.transaction() as connection:
                connection.execute(sa.text("DELETE FROM accounts"))
        return look(email)

    world.now += timedelta(seconds=60)
    monkeypatch.setattr(world.repository, "by_email", delete_then_look)
    new = world.create.execute(ADA)
    assert new.account_id != old.account_id
    assert look(ADA.email) == new


def test_the_account_and_its_event_are_written_together_or_not_at_all(world: World) -> None:
    world.dispatcher.refuse(DispatchError("the broker cannot be reached"))
    create = CreateAccountCommand(world.dispatcher, world.repository, world.database.transaction)
    with pytest.raises(DispatchError):
        create.execute(ADA)
    assert world.repository.by_email(ADA.email) is None
    with world.database.transaction() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM mailboxes")).scalar_one() == 0
    account = create.execute(ADA)
    assert world.repository.by_email(ADA.email) == account
    assert world.accepted() == [AccountCreatedEvent]


def test_the_last_name_counts_until_the_owner_has_verified_the_account(world: World) -> None:
    world.create.execute(CreateAccountData(email=ADA.email, display_name="Eve"))
    assert world.create.execute(ADA).display_name == "Ada"
    verified = world.verify.execute(ADA.email, world.code())
    assert verified.display_name == "Ada"
    assert world.create.execute(CreateAccountData(email=ADA.email, display_name="Eve")) == verified
    assert world.repository.by_email(ADA.email) == verified


def test_other_spellings_of_a_mailbox_that_was_just_mailed_make_no_account(world: World) -> None:
    world.create.execute(ADA)
    for address in ("ada+1@example.com", "a.d.a@example.com", "ADA@example.com"):
        world.create.execute(CreateAccountData(email=address, display_name="Ada"))
        assert world.repository.by_email(address) is None
    assert world.accepted() == [AccountCreatedEvent]
    world.now += timedelta(seconds=60)
    world.create.execute(CreateAccountData(email="ada+1@example.com", display_name="Ada"))
    assert world.accepted() == [AccountCreatedEvent, AccountCreatedEvent]


def test_two_sign_ups_at_one_moment_make_one_account(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = SqlAccountRepository(world.database, timedelta(0), lambda: world.now)
    create, add = CreateAccountCommand(world.dispatcher, repository), repository.add

    def lose_the_race(account: Account) -> None:
        monkeypatch.setattr(repository, "add", add)
        create.execute(ADA)
        add(account)

    monkeypatch.setattr(repository, "add", lose_the_race)
    account = create.execute(ADA)
    assert world.accepted() == [AccountCreatedEvent, VerificationCodeRequestedEvent]
    assert {event.account_id for event in world.dispatcher.events} == {account.account_id}  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["sign up again", "ask for a code"])
def test_an_account_whose_event_was_refused_gets_its_mail_as_soon_as_its_owner_tries_again(
    world: World, how: str
) -> None:
    for refused in (world.create, world.create, world.resend):
        world.dispatcher.refuse(DispatchError("the broker cannot be reached"))
        with pytest.raises(DispatchError):
            refused.execute(ADA if refused is world.create else ADA.email)
    if how == "sign up again":
        world.create.execute(ADA)
    else:
        world.resend.execute(ADA.email)
    assert world.verify.execute(ADA.email, world.code()).verified


def test_the_reason_of_a_refusal_is_told_although_the_transaction_was_spoilt_by_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PostgreSQL does it: each statement after one that failed fails, too, for that reason."""

    def aborted(*_: object, **__: object) -> None:
        raise sa.exc.InternalError("UPDATE", {}, Exception("current transaction is aborted"))

    monkeypatch.setattr(world.repository, "release_mail", aborted)
    world.dispatcher.refuse(DispatchError("the outbox does not exist"))
    with pytest.raises(DispatchError, match="does not exist"):
        world.create.execute(ADA)


@pytest.mark.parametrize("address", ["unknown@example.com", "no address", "\ud800"])
def test_a_code_for_an_address_without_an_account_is_passed_over_in_silence(world: World, address: str) -> None:
    world.resend.execute(address)
    assert world.dispatcher.events == []


def test_the_reason_why_a_code_is_refused_is_not_told(world: World) -> None:
    world.create.execute(ADA)
    code = world.code()
    reasons = set()
    for address, given in [
        (ADA.email, "22222222"),
        ("unknown@example.com", code),
        ("no address", code),
        (ADA.email, ""),
        (ADA.email, "\ud800"),
    ]:
        with pytest.raises(InvalidCodeError) as caught:
            world.verify.execute(address, given)
        reasons.add(str(caught.value))
    assert world.verify.execute(ADA.email, code).verified
    with pytest.raises(InvalidCodeError) as caught:
        world.verify.execute(ADA.email, code)
    assert reasons == {str(caught.value)}
    assert "ask for another" in str(caught.value)


def test_the_code_of_one_account_is_of_no_use_for_another(world: World) -> None:
    world.create.execute(CreateAccountData(email="eve@example.com", display_name="Eve"))
    code = world.code()
    world.create.execute(ADA)
    world.code()
    with pytest.raises(InvalidCodeError):
        world.verify.execute(ADA.email, code)
    assert world.verify.execute("eve@example.com", code).email == "eve@example.com"
