"""What has failed is kept, and leaves only when it was accepted again or dropped."""

import time
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from support.outbox_kit import Background, Counted, Recorder
from support.waiting import until

from eventpact.domain.dispatcher import DispatchError, FailedDelivery, Handlers
from eventpact.infrastructure.dispatching.failures import UnreadableMessage
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.persistence.failure_store import FailureStore, failures
from eventpact.infrastructure.persistence.replay import ReplayError, replay_by_dispatcher, replay_by_outbox
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
from eventpact.testing import RecordingEventDispatcher

EVENT = Counted(number=1)


def kept(database: Database, *handlers: Any) -> tuple[FailureStore, SubscriptionTable]:
    table = SubscriptionTable({Counted: handlers})
    store = FailureStore(database, table)
    store.keep(FailedDelivery(EVENT, handlers[0], ValueError("no \x00 such \ud800 mailbox"), 3))
    return store, table


def test_a_failed_delivery_is_kept_with_everything_that_is_known_of_it(database: Database) -> None:
    store, _ = kept(database, Recorder())
    [failure] = store.all()
    assert store.get(failure.failure_id) == failure
    assert (failure.name, failure.event_id, failure.attempts) == ("Counted", str(EVENT.event_id), 3)
    assert failure.handler == "support.outbox_kit.Recorder"
    assert failure.error_type == "ValueError"
    assert failure.error == "no \\x00 such \\ud800 mailbox"
    assert failure.first_failed_at <= failure.last_failed_at  # PostgreSQL's clock goes on within a statement
    assert store.count() == 1


def test_a_delivery_that_fails_again_is_still_one_failure(database: Database) -> None:
    handler = Recorder()
    store, _ = kept(database, handler)
    store.keep(FailedDelivery(EVENT, handler, KeyError("other"), 2))
    [failure] = store.all()
    assert (failure.attempts, failure.error_type, failure.revision) == (5, "KeyError", 2)
    assert failure.last_failed_at >= failure.first_failed_at


def test_an_unreadable_message_is_one_failure_however_often_it_comes(database: Database) -> None:
    table = SubscriptionTable({Counted: Recorder()})
    store = FailureStore(database, table)
    for content in (b"\xff\x00{", b"\xff\x00{", b"other"):
        store.keep_unreadable(UnreadableMessage("it is malformed", "Counted", "1", content, None))
    first, second = store.all()
    assert first.payload == "\\xff\\x00{"
    with pytest.raises(ReplayError, match="not those of a Counted"):
        replay_by_outbox(first, store, table, OutboxStore(database))
    assert store.remove(first)
    assert store.all() == [second]


def test_a_replay_reaches_the_handler_that_failed_and_no_other(database: Database, background: Background) -> None:
    class Other(Recorder):
        pass

    failing, other = Recorder(), Other()
    store, table = kept(database, failing, other)
    background.outbox({Counted: [failing, other]}, database)
    replay_by_outbox(store.all()[0], store, table, OutboxStore(database))
    until(lambda: OutboxStore(database).backlog().entries == 0)
    assert (failing.numbers, other.numbers) == ([1], [])
    assert store.count() == 0


def test_a_replay_that_fails_is_kept_again(database: Database, background: Background) -> None:
    failing = Recorder(failures=1)
    store, table = kept(database, failing)
    background.outbox({Counted: failing}, database, on_failure=store.keep)
    replay_by_outbox(store.all()[0], store, table, OutboxStore(database))
    until(lambda: OutboxStore(database).backlog().entries == 0)
    assert [failure.error_type for failure in store.all()] == ["ValueError"]


def test_of_two_replays_of_one_failure_one_is_refused(database: Database) -> None:
    store, table = kept(database, Recorder())
    [failure] = store.all()
    replay_by_outbox(failure, store, table, OutboxStore(database))
    with pytest.raises(ReplayError, match="changed by another"):
        replay_by_outbox(failure, store, table, OutboxStore(database))
    assert OutboxStore(database).backlog().entries == 1


def test_without_an_outbox_a_failure_leaves_after_it_was_accepted(database: Database, background: Background) -> None:
    class Other(Recorder):
        pass

    failing, other = Recorder(failures=1), Other()
    store, table = kept(database, failing, other)
    again = replay_by_dispatcher(
        store.all()[0], store, table, lambda handlers: SyncEventDispatcher(handlers, on_failure=store.keep)
    )
    background.close(again)
    assert [failure.attempts for failure in store.all()] == [4]  # it failed again before it could leave
    again = replay_by_dispatcher(store.all()[0], store, table, SyncEventDispatcher)
    background.close(again)
    assert store.all() == []
    assert (failing.numbers, other.numbers) == ([1, 1], [])


def test_nothing_leaves_that_was_refused(database: Database) -> None:
    def refusing(handlers: Handlers) -> RecordingEventDispatcher:
        dispatcher = RecordingEventDispatcher(handlers)
        dispatcher.refuse(DispatchError("no broker"))
        return dispatcher

    store, table = kept(database, Recorder())
    with pytest.raises(DispatchError):
        replay_by_dispatcher(store.all()[0], store, table, refusing)
    assert store.count() == 1


@pytest.mark.parametrize(
    ("handlers", "reason"),
    [({}, "no event type Counted"), ({Counted: []}, "no handler support.outbox_kit.Recorder")],
)
def test_what_has_no_handler_any_more_stays(database: Database, handlers: Any, reason: str) -> None:
    store, _ = kept(database, Recorder())
    with pytest.raises(ReplayError, match=reason):
        replay_by_outbox(store.all()[0], store, SubscriptionTable(handlers), OutboxStore(database))
    assert store.count() == 1


def test_failures_that_are_older_than_their_retention_are_pruned(database: Database) -> None:
    store, _ = kept(database, Recorder())
    assert store.prune(timedelta(days=30)) == 0
    with database.transaction() as connection:
        connection.execute(sa.update(failures).values(last_failed_at=database.now() - timedelta(days=31)))
    assert store.prune(timedelta(days=30)) == 1
    assert store.all() == []


def test_failures_that_are_replayed_with_waits_are_not_delivered_all_at_once(
    database: Database, background: Background
) -> None:
    handler = Recorder()
    table = SubscriptionTable({Counted: handler})
    store = FailureStore(database, table)
    for number in range(3):
        store.keep(FailedDelivery(Counted(number=number), handler, OSError("unreachable"), 1))
    started = time.monotonic()
    for position, failure in enumerate(store.all()):
        replay_by_outbox(failure, store, table, OutboxStore(database), timedelta(seconds=position * 0.4))
    background.outbox({Counted: handler}, database)
    until(lambda: OutboxStore(database).backlog().entries == 0)
    assert handler.numbers == [0, 1, 2]
    assert time.monotonic() - started >= 0.8
