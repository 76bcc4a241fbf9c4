"""What an outbox does with events and handlers that a process does not know, or does not know yet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from support.outbox_kit import Background, Counted, Recorder
from support.waiting import until

from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import UnreadableMessage
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.persistence.failure_store import FailureStore
from eventpact.infrastructure.persistence.replay import ReplayError, replay_by_outbox, return_readable

SHORT = timedelta(seconds=0.3)
"""A lease: what nobody knows is taken for unknown after six of them."""


@dataclass(frozen=True, kw_only=True)
class Billed(DomainEvent):
    number: int = 0


class Biller(Recorder):
    """A handler of another service."""


class Application:
    """One version of an application on one database."""

    def __init__(self, database: Database, background: Background, handlers: dict[type[DomainEvent], Any]) -> None:
        self.table = SubscriptionTable(handlers)
        self.failures, self.store = FailureStore(database, self.table), OutboxStore(database)
        self._background = background
        self.dispatcher = background.outbox(
            handlers,
            database,
            on_failure=self.failures.keep,
            on_unreadable=self.failures.keep_unreadable,
            return_readable=lambda: return_readable(self.failures, self.table, self.store),
            lease=SHORT,
        )

    def stop(self) -> None:
        self._background.close(self.dispatcher)


def entries(database: Database) -> int:
    return OutboxStore(database).backlog().entries


def version(fields: dict[str, Any], name: str = "Ordered", **attributes: Any) -> type[DomainEvent]:
    """Make an event type as one version of an application has it: fields, each with its default."""
    body = {"__annotations__": {field: type(default) for field, default in fields.items()}, **fields, **attributes}
    return dataclass(frozen=True, kw_only=True)(type(name, (DomainEvent,), body | {"__module__": __name__}))


def test_two_services_on_one_outbox_leave_each_other_s_events_alone(database: Database, background: Background) -> None:
    shop, billing = Recorder(), Biller()
    first = Application(database, background, {Counted: shop})
    second = background.outbox({Billed: billing}, database, relay=False)
    for number in range(5):
        first.dispatcher.dispatch(Counted(number=number))
        second.dispatch(Billed(number=number))
    until(lambda: entries(database) == 5)
    assert sorted(shop.numbers) == [0, 1, 2, 3, 4]
    assert first.failures.count() == 0
    background.outbox({Billed: billing}, database, lease=SHORT)
    until(lambda: entries(database) == 0)
    assert sorted(billing.numbers) == [0, 1, 2, 3, 4]


def test_two_services_with_an_event_of_one_name_leave_each_other_s_handlers_alone(
    database: Database, background: Background
) -> None:
    shop, billing = Recorder(), Biller()
    theirs = version({"price": 1.5}, name="Counted")
    other = background.outbox({theirs: billing}, database, relay=False)
    first = Application(database, background, {Counted: shop})
    other.dispatch(theirs())
    first.dispatcher.dispatch(Counted(number=1))
    until(lambda: shop.numbers == [1])
    until(lambda: entries(database) == 1)
    assert first.failures.count() == 0


def test_an_event_that_nobody_knows_is_kept_with_its_content_and_replayed_by_who_knows_it(
    database: Database, background: Background
) -> None:
    event, handler = Billed(number=7), Biller()
    sender = background.outbox({Billed: handler}, database, relay=False)
    sender.dispatch(event)
    first = Application(database, background, {Counted: Recorder()})
    until(lambda: first.failures.count() == 1)
    (failure,) = first.failures.all()
    assert json.loads(failure.payload) == event.to_dict()
    assert entries(database) == 0
    first.stop()
    Application(database, background, {Billed: handler})
    until(lambda: handler.numbers == [7])
    until(lambda: first.failures.count() == entries(database) == 0)


def test_without_a_sink_what_cannot_be_read_stays_in_the_outbox_until_somebody_can(
    database: Database, background: Background
) -> None:
    old, new = version({"number": 0}), version({"number": 0, "note": ""})
    sender = background.outbox({new: Recorder()}, database, relay=False)
    sender.dispatch(new(number=3, note="gift"))
    outdated = background.outbox({old: Recorder()}, database, lease=SHORT)
    until(lambda: OutboxStore(database).is_served())
    until(lambda: _is_left(database))
    assert entries(database) == 1
    background.close(outdated)
    handler = Recorder()
    background.outbox({new: handler}, database, lease=SHORT)
    until(lambda: entries(database) == 0)
    assert handler.numbers == [3]


def _is_left(database: Database) -> bool:
    with database.transaction() as connection:
        return connection.execute(sa.text("SELECT count(*) FROM outbox WHERE due_at IS NOT NULL")).scalar_one() == 1


def test_two_versions_deployed_one_after_the_other_and_back_lose_nothing(
    database: Database, background: Background
) -> None:
    """Events of each version are in the outbox and in the failure store when the other version is deployed."""
    old, new = version({"number": 0}), version({"number": 0, "note": "none"})
    delivered = list[tuple[int, str]]()

    class Seller:
        broken = False

        def handle(self, event: Any) -> None:
            if self.broken:
                raise OSError("unreachable")
            delivered.append((event.number, getattr(event, "note", "-")))

    def deploy(kind: type[DomainEvent], *, broken: bool = False) -> Application:
        handler = Seller()
        handler.broken = broken
        return Application(database, background, {kind: handler})

    one = deploy(old, broken=True)
    one.dispatcher.dispatch(old(number=1))  # into the failure store
    until(lambda: one.failures.count() == 1)
    one.stop()
    background.outbox({old: Seller()}, database, relay=False).dispatch(old(number=2))  # into the outbox

    two = deploy(new)
    until(lambda: (2, "none") in delivered)
    replay_by_outbox(two.failures.all()[0], two.failures, two.table, two.store)
    until(lambda: (1, "none") in delivered)
    two.dispatcher.dispatch(new(number=3, note="gift"))
    until(lambda: (3, "gift") in delivered)
    two.stop()
    broken = deploy(new, broken=True)
    broken.dispatcher.dispatch(new(number=4, note="gift"))
    until(lambda: broken.failures.count() == 1)
    broken.stop()
    background.outbox({new: Seller()}, database, relay=False).dispatch(new(number=5, note="gift"))

    back = deploy(old)
    until(lambda: back.failures.count() == 2)  # what it cannot read is kept beside what had failed
    failed = next(failure for failure in back.failures.all() if failure.error_type == "OSError")
    try:
        replay_by_outbox(failed, back.failures, back.table, back.store)
        raise AssertionError("the older version replayed what it cannot read")
    except ReplayError:
        pass
    back.dispatcher.dispatch(old(number=6))
    until(lambda: (6, "-") in delivered)
    back.stop()

    last = deploy(new)
    until(lambda: (5, "gift") in delivered)  # without anybody's doing
    replay_by_outbox(failed, last.failures, last.table, last.store)
    until(lambda: (4, "gift") in delivered)
    until(lambda: last.failures.count() == entries(database) == 0)
    assert sorted(delivered) == [(1, "none"), (2, "none"), (3, "gift"), (4, "gift"), (5, "gift"), (6, "-")]


def test_an_event_and_a_handler_that_were_renamed_are_found_by_their_former_names(
    database: Database, background: Background
) -> None:
    old = version({"number": 0}, name="Bought")
    new = version({"number": 0}, name="Ordered", former_names=("Bought",))

    class Renamed(Recorder):
        former_names = ("support.outbox_kit.Recorder",)

    background.outbox({old: Recorder()}, database, relay=False).dispatch(old(number=1))
    before = FailureStore(database, SubscriptionTable({old: Recorder()}))
    failing = background.outbox({old: Recorder(failures=1)}, database, on_failure=before.keep)
    until(lambda: before.count() == 1)
    background.close(failing)
    background.outbox({old: Recorder()}, database, relay=False).dispatch(old(number=2))
    handler = Renamed()
    now = Application(database, background, {new: handler})
    until(lambda: handler.numbers == [2])
    replay_by_outbox(before.all()[0], now.failures, now.table, now.store)
    until(lambda: sorted(handler.numbers) == [1, 2])
    until(lambda: entries(database) == 0)


def test_what_a_worker_of_the_version_before_kept_is_replayed_once_it_can_be_read(
    database: Database, background: Background
) -> None:
    """Messages of Celery's are kept as they came: JSON, or the arguments that no event could be made of."""
    handler = Recorder()
    table = SubscriptionTable({Counted: handler})
    failures, store = FailureStore(database, table), OutboxStore(database)
    events = [Counted(number=number) for number in range(3)]
    contents = [
        (json.dumps(events[0].to_dict()), "Counted"),
        (json.dumps([[events[1].to_dict()], {}, {"chain": None}]), "handle_Counted"),
        (repr(((events[2].to_dict(),), {})), "handle_Counted"),
    ]
    for event, (content, name) in zip(events, contents, strict=True):
        message_id = str(event.event_id)
        failures.keep_unreadable(UnreadableMessage("unknown fields", name, message_id, content.encode(), None))
    failures.keep_unreadable(UnreadableMessage("garbage", "handle_Counted", str(uuid4()), b"\xff(" * 9, None))
    assert return_readable(failures, table, store) == 3
    background.outbox({Counted: handler}, database)
    until(lambda: entries(database) == 0)
    assert sorted(handler.numbers) == [0, 1, 2]
    assert [failure.error for failure in failures.all()] == ["garbage"]


def test_an_older_worker_keeps_one_row_an_event_which_goes_when_it_is_delivered(
    database: Database, background: Background
) -> None:
    handler, event = Recorder(), Counted(number=1)
    failures = FailureStore(database, SubscriptionTable({Counted: handler}))
    content = json.dumps([[event.to_dict()], {}, {}]).encode()
    for _ in range(5):  # it comes with each resend
        failures.keep_unreadable(UnreadableMessage("no task", "handle_Counted", str(event.event_id), content, None))
    assert failures.count() == 1
    newer = background.outbox({Counted: handler}, database, "sync", resend=timedelta(seconds=60))
    newer.dispatch(event)
    until(lambda: entries(database) == 0)
    assert failures.count() == 0
