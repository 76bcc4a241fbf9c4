"""Whatever was accepted waits longer for a busy SQLite than what can still be refused."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError
from support.outbox_kit import Counted, Recorder

from eventpact.domain.account import Account, CodeMaker
from eventpact.domain.dispatcher import FailedDelivery
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.persistence.accounts import SqlAccountRepository, SqlVerificationCodes
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.persistence.failure_store import FailureStore

MINUTE = timedelta(minutes=1)


def keep_a_failure(database: Database) -> bool:
    handler = Recorder()
    store = FailureStore(database, SubscriptionTable({Counted: handler}))
    store.keep(FailedDelivery(Counted(), handler, ValueError(), 1))
    return store.count() == 1


def issue_a_code(database: Database) -> bool:
    codes = SqlVerificationCodes(database, CodeMaker(b"x" * 32), MINUTE)
    return codes.issue("1", uuid.uuid4(), datetime.now(UTC)) is not None


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[tuple[Database, Database]]:
    """The same file twice, as two processes have it."""
    ours, theirs = (Database(f"sqlite:///{tmp_path / 'test.db'}") for _ in range(2))
    ours.migrate()
    SqlAccountRepository(ours, MINUTE).add(Account(account_id="1", email="ada@example.com", display_name="Ada"))
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("other", ["a thread of this process", "another process"])
@pytest.mark.parametrize("work", [keep_a_failure, issue_a_code])
def test_it_is_done_when_the_other_has_written_although_others_were_refused_meanwhile(
    databases: tuple[Database, Database], other: str, work: Callable[[Database], bool]
) -> None:
    ours, theirs = databases
    busy, free = threading.Event(), threading.Event()

    def hold() -> None:
        with (ours if other == "a thread of this process" else theirs).transaction():
            busy.set()
            free.wait(30)

    with ThreadPoolExecutor(2) as pool:
        holding = pool.submit(hold)
        assert busy.wait(10)
        working = pool.submit(work, ours)
        try:
            with pytest.raises(SQLAlchemyError), ours.transaction():
                pytest.fail("two may write at once")
        finally:
            free.set()
        holding.result()
        assert working.result()
