"""Accounts and codes, on SQLite and on PostgreSQL."""

import hmac
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
import time_machine
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import OperationalError

import eventpact.bootstrap  # noqa: F401 - with it every table is known
from eventpact.application.ports import EmailTakenError
from eventpact.domain.account import ALPHABET, Account, CodeMaker
from eventpact.infrastructure.persistence.accounts import SqlAccountRepository, SqlVerificationCodes
from eventpact.infrastructure.persistence.database import Database, check_database, metadata

START = datetime(2026, 1, 1, tzinfo=UTC)
ADA = Account(account_id="1", email="ada@example.com", display_name="Ada")


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repository(database: Database, clock: Clock) -> SqlAccountRepository:
    return SqlAccountRepository(database, timedelta(seconds=60), clock)


@pytest.fixture
def codes(database: Database, clock: Clock, repository: SqlAccountRepository) -> SqlVerificationCodes:
    repository.add(ADA)
    return SqlVerificationCodes(database, CodeMaker(b"x" * 32), timedelta(minutes=10), clock=clock)


def test_migrating_again_changes_nothing(database: Database) -> None:
    database.migrate()
    check_database(database)


def test_an_account_is_found_by_its_address(repository: SqlAccountRepository) -> None:
    repository.add(ADA)
    assert repository.by_email("ada@example.com") == ADA
    assert repository.by_email("eve@example.com") is None


def test_of_many_concurrent_sign_ups_with_one_address_one_is_kept(repository: SqlAccountRepository) -> None:
    def add(number: int) -> bool:
        try:
            repository.add(Account(account_id=str(number), email="ada@example.com", display_name="Ada"))
        except EmailTakenError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(add, range(50))) == 1


def test_a_taken_address_does_not_spoil_the_transaction_that_it_is_part_of(
    database: Database, repository: SqlAccountRepository
) -> None:
    repository.add(ADA)
    with database.transaction():
        with pytest.raises(EmailTakenError):
            repository.add(Account(account_id="2", email=ADA.email, display_name="Eve"))
        repository.add(Account(account_id="3", email="bob@example.com", display_name="Bob"))
    assert repository.by_email("bob@example.com") is not None


def test_what_a_transaction_did_is_undone_when_it_fails(database: Database, repository: SqlAccountRepository) -> None:
    def add_and_fail() -> None:
        with database.transaction():
            repository.add(ADA)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        add_and_fail()
    assert repository.by_email(ADA.email) is None


def test_a_mail_may_be_reserved_once_an_interval(repository: SqlAccountRepository, clock: Clock) -> None:
    assert repository.reserve_mail(ADA.email)
    assert not repository.reserve_mail(ADA.email)
    clock.now += timedelta(seconds=60)
    assert repository.reserve_mail(ADA.email)
    assert not repository.reserve_mail(ADA.email)
    repository.release_mail(ADA.email)
    assert repository.reserve_mail(ADA.email)


def test_the_interval_between_codes_doubles_up_to_an_hour_or_so(repository: SqlAccountRepository, clock: Clock) -> None:
    waits = []
    assert repository.reserve_mail(ADA.email)
    for _ in range(10):
        began = clock.now
        while not repository.reserve_mail(ADA.email):
            clock.now += timedelta(seconds=60)
        waits.append((clock.now - began) // timedelta(seconds=60))
    assert waits == [1, 2, 4, 8, 16, 32, 64, 64, 64, 64]


def test_after_a_day_without_a_mail_the_interval_is_the_first_again(
    repository: SqlAccountRepository, clock: Clock
) -> None:
    for _ in range(5):
        assert repository.reserve_mail(ADA.email)
        clock.now += timedelta(hours=2)
    clock.now += timedelta(days=1)
    assert repository.reserve_mail(ADA.email)
    clock.now += timedelta(seconds=60)
    assert repository.reserve_mail(ADA.email)


def test_a_notice_is_mailed_once_a_day_and_takes_no_code_away(repository: SqlAccountRepository, clock: Clock) -> None:
    assert repository.reserve_mail(ADA.email, notice=True)
    assert repository.reserve_mail(ADA.email)
    clock.now += timedelta(hours=23, minutes=59)
    assert not repository.reserve_mail("A.d.a+x@example.com", notice=True)
    clock.now += timedelta(minutes=1)
    assert repository.reserve_mail(ADA.email, notice=True)


def test_all_spellings_of_one_mailbox_get_one_mail_an_interval(repository: SqlAccountRepository) -> None:
    spellings = [f"{'aDa' if number % 2 else 'ad.a'}+{number}@example.com" for number in range(50)]
    with ThreadPoolExecutor(16) as pool:
        assert sum(moment is not None for moment in pool.map(repository.reserve_mail, spellings)) == 1


def test_requests_are_ordered_by_the_database_whatever_the_clock_of_a_server_says(database: Database) -> None:
    repository = SqlAccountRepository(database, timedelta(0))
    moments = []
    for minutes in (0, -10, 10, -10):
        with time_machine.travel(datetime.now(UTC) + timedelta(minutes=minutes)):
            moments += [repository.reserve_mail(ADA.email) for _ in range(3)]
    assert moments == sorted({moment for moment in moments if moment is not None})
    assert len(moments) == 12


def test_accounts_that_nobody_verified_are_pruned_and_all_others_kept(
    database: Database, repository: SqlAccountRepository, clock: Clock
) -> None:
    codes = SqlVerificationCodes(database, CodeMaker(b"x" * 32), timedelta(days=60), clock=clock)
    for account_id in ("old", "verified", "live"):
        repository.add(Account(account_id=account_id, email=f"{account_id}@example.com", display_name="Ada"))
        repository.reserve_mail(f"{account_id}@example.com")
    code = codes.issue("verified", uuid.uuid4(), START) or ""
    assert codes.redeem("verified@example.com", code)
    codes.issue("live", uuid.uuid4(), START)
    clock.now += timedelta(days=30, seconds=1)
    repository.add(Account(account_id="new", email="new@example.com", display_name="Ada"))
    assert repository.prune(timedelta(days=30)) == 1
    kept = {name: repository.by_email(f"{name}@example.com") is not None for name in ("old", "verified", "live", "new")}
    assert kept == {"old": False, "verified": True, "live": True, "new": True}
    assert codes.prune(timedelta(days=30)) == 1
    with database.transaction() as connection:
        assert connection.execute(sa.text("SELECT account_id FROM verification_codes")).scalars().all() == ["live"]
        assert connection.execute(sa.text("SELECT count(*) FROM mailboxes")).scalar_one() == 0


def test_a_code_verifies_once(codes: SqlVerificationCodes) -> None:
    code = codes.issue("1", uuid.uuid4(), START)
    assert code is not None
    account = codes.redeem("ada@example.com", f" {code.lower()} ")
    assert account is not None
    assert account.verified
    assert codes.redeem("ada@example.com", code) is None


def test_an_event_that_is_delivered_twice_leaves_one_live_code_and_both_mails_verify(
    database: Database, codes: SqlVerificationCodes
) -> None:
    event_id = uuid.uuid4()
    mailed = {codes.issue("1", event_id, START), codes.issue("1", event_id, START)}
    assert len(mailed) == 1
    with database.transaction() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM verification_codes")).scalar_one() == 1
    assert codes.redeem("ada@example.com", mailed.pop() or "") is not None


def test_a_late_redelivery_neither_revives_a_voided_code_nor_mails_it(codes: SqlVerificationCodes) -> None:
    old, new = uuid.uuid4(), uuid.uuid4()
    voided = codes.issue("1", old, START)
    live = codes.issue("1", new, START + timedelta(seconds=1))
    assert codes.issue("1", old, START) is None
    assert codes.redeem("ada@example.com", voided or "") is None
    assert codes.redeem("ada@example.com", live or "") is not None


def test_no_code_is_issued_for_an_account_that_is_verified_or_gone(codes: SqlVerificationCodes) -> None:
    event_id = uuid.uuid4()
    codes.redeem("ada@example.com", codes.issue("1", event_id, START) or "")
    assert codes.issue("1", event_id, START) is None
    assert codes.issue("1", uuid.uuid4(), START + timedelta(seconds=1)) is None
    assert codes.issue("gone", uuid.uuid4(), START) is None


def test_a_code_is_valid_for_ten_minutes_from_when_it_was_last_mailed(
    codes: SqlVerificationCodes, clock: Clock
) -> None:
    event_id = uuid.uuid4()
    code = codes.issue("1", event_id, START) or ""
    clock.now += timedelta(minutes=9)
    assert codes.issue("1", event_id, START) == code
    clock.now += timedelta(minutes=10)
    assert codes.redeem("ada@example.com", code) is None
    clock.now -= timedelta(seconds=1)
    assert codes.redeem("ada@example.com", code) is not None


def test_of_concurrent_wrong_guesses_five_are_counted_and_then_the_code_is_void(
    database: Database, codes: SqlVerificationCodes
) -> None:
    event_id = uuid.uuid4()
    code = codes.issue("1", event_id, START) or ""
    with ThreadPoolExecutor(16) as pool:
        assert not any(pool.map(lambda _: codes.redeem("ada@example.com", "wrong"), range(50)))
    with database.transaction() as connection:
        assert connection.execute(sa.text("SELECT attempts FROM verification_codes")).scalar_one() == 5
    assert codes.redeem("ada@example.com", code) is None


def test_guesses_void_the_code_but_not_the_link_of_its_mail(codes: SqlVerificationCodes, clock: Clock) -> None:
    event_id = uuid.uuid4()
    code = codes.issue("1", event_id, START) or ""
    for _ in range(9):
        assert codes.redeem("ada@example.com", "22222222") is None
        assert codes.redeem("ada@example.com", "2" * 32) is None
    assert codes.issue("1", event_id, START) == code  # the mail is sent, for its link
    assert codes.redeem("eve@example.com", codes.link_code(event_id)) is None
    clock.now += timedelta(minutes=10)
    assert codes.redeem("ada@example.com", codes.link_code(event_id)) is None
    clock.now -= timedelta(seconds=1)
    account = codes.redeem("ada@example.com", codes.link_code(event_id).lower())
    assert account is not None
    assert account.verified
    assert codes.redeem("ada@example.com", codes.link_code(event_id)) is None


def test_the_link_of_an_earlier_mail_is_void_as_its_code_is(codes: SqlVerificationCodes) -> None:
    old, new = uuid.uuid4(), uuid.uuid4()
    codes.issue("1", old, START)
    codes.issue("1", new, START + timedelta(seconds=1))
    assert codes.redeem("ada@example.com", codes.link_code(old)) is None
    assert codes.redeem("ada@example.com", codes.link_code(new)) is not None


def test_of_concurrent_redemptions_of_one_code_one_succeeds(codes: SqlVerificationCodes) -> None:
    code = codes.issue("1", uuid.uuid4(), START) or ""
    with ThreadPoolExecutor(16) as pool:
        assert sum(bool(done) for done in pool.map(lambda _: codes.redeem("ada@example.com", code), range(50))) == 1


def test_a_code_is_compared_in_constant_time_also_where_there_is_none(
    codes: SqlVerificationCodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[str, str]] = []

    def compare(kept: str, given: str) -> bool:
        compared.append((kept, given))
        return hmac.compare_digest(kept, given)

    code = codes.issue("1", uuid.uuid4(), START) or ""
    # Only what the module looks up is replaced; the comparison is the real one.
    monkeypatch.setattr("eventpact.infrastructure.persistence.accounts.hmac", SimpleNamespace(compare_digest=compare))
    assert codes.redeem("unknown@example.com", code) is None
    assert codes.redeem("ada@example.com", "22222222") is None
    assert codes.redeem("ada@example.com", code) is not None
    assert codes.redeem("ada@example.com", code) is None
    assert [len(kept) == len(given) == 64 for kept, given in compared] == [True] * 4


def test_redeeming_a_code_and_issuing_it_again_do_not_wait_for_each_other(
    repository: SqlAccountRepository, codes: SqlVerificationCodes
) -> None:
    with ThreadPoolExecutor(2) as pool:
        for number in range(40):
            address, event_id, start = f"a{number}@example.com", uuid.uuid4(), threading.Barrier(2)
            repository.add(Account(account_id=f"a{number}", email=address, display_name="Ada"))
            code = codes.issue(f"a{number}", event_id, START) or ""

            def together(action: Callable[[], object], start: threading.Barrier = start) -> object:
                start.wait()
                return action()

            redeemed = pool.submit(together, partial(codes.redeem, address, code))
            issued = pool.submit(together, partial(codes.issue, f"a{number}", event_id, START))
            assert redeemed.result() is not None
            assert issued.result() in {code, None}


def test_the_schema_of_the_migrations_is_that_of_the_code(database: Database) -> None:
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_database_holds_neither_the_code_nor_what_it_could_be_read_from(
    database: Database, codes: SqlVerificationCodes
) -> None:
    code = codes.issue("1", uuid.uuid4(), START) or ""
    with database.transaction() as connection:
        row = str(connection.execute(sa.text("SELECT * FROM verification_codes")).one())
    assert code not in row
    assert CodeMaker(b"y" * 32).digest("1", code) not in row


def test_codes_have_eight_characters_that_are_not_mistaken_for_one_another() -> None:
    maker = CodeMaker(b"x" * 32)
    made = [maker.code(uuid.UUID(int=number)) for number in range(2000)]
    assert {len(code) for code in made} == {8}
    assert set("".join(made)) == set(ALPHABET)
    assert not set(ALPHABET) & set("01OIL")
    assert len(set(made)) == 2000
    assert len(ALPHABET) ** 8 > 2**20


@pytest.mark.services
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_server_that_falls_silent_is_taken_for_gone_and_the_next_transaction_has_another_connection(
    database: Database,
) -> None:
    def be_silent() -> None:
        with database.transaction() as connection:
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.exec_driver_sql("SELECT pg_sleep(20)")

    started = time.monotonic()
    with pytest.raises(OperationalError):
        be_silent()
    assert time.monotonic() - started < 15
    with database.transaction() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    check_database(database)


@pytest.mark.services
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_statement_that_takes_too_long_is_ended_by_the_server(database: Database) -> None:
    def take_long() -> None:
        with database.transaction() as connection:
            connection.exec_driver_sql("SELECT pg_sleep(20)")

    with pytest.raises(OperationalError, match="statement timeout"):
        take_long()


def test_a_code_that_a_machine_with_a_wrong_clock_issues_is_as_good_as_any(
    database: Database, repository: SqlAccountRepository
) -> None:
    codes = SqlVerificationCodes(database, CodeMaker(b"x" * 32), timedelta(minutes=10))
    repository.add(ADA)
    with time_machine.travel(datetime.now(UTC) - timedelta(minutes=11)):
        code = codes.issue(ADA.account_id, uuid.uuid4(), datetime.now(UTC))
    assert code is not None
    assert codes.redeem(ADA.email, code) is not None


def test_what_was_started_in_a_transaction_and_outlives_it_has_one_of_its_own(database: Database) -> None:
    with database.transaction() as connection:
        context = copy_context()
        assert context.run(lambda: database.transaction().__enter__()) is connection

    def later() -> sa.Connection:
        with database.transaction() as own:
            return own

    assert context.run(later) is not connection
