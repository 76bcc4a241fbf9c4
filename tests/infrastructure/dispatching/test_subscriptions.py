"""The subscription table refuses what could never work, when a dispatcher is built (law A4)."""

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass
from unittest.mock import Mock

import pytest

from eventpact.domain.dispatcher import FailedDelivery, RegistrationError
from eventpact.domain.events import AccountCreatedEvent, DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable, report, undelivered


@dataclass(frozen=True, kw_only=True)
class Renamed(DomainEvent):
    name: str


class Recorder:
    def handle(self, event: DomainEvent) -> None: ...


class NoHandle: ...


class NoArgument:
    def handle(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class HasList(DomainEvent):
    items: list[int]


class Undecorated(DomainEvent): ...


namesake = make_dataclass("Renamed", [], bases=(DomainEvent,), frozen=True, kw_only=True)
recorder = Recorder()
ADDRESS = "someone@example.com"


@pytest.mark.parametrize(
    ("handlers", "says"),
    [
        ([recorder], "must map event types to handlers"),
        ({str: recorder}, "no event type"),
        ({"Renamed": recorder}, "no event type"),
        ({Renamed: recorder, namesake: recorder}, "one wire name, Renamed"),
        ({HasList: recorder}, "HasList.items"),
        ({Undecorated: recorder}, "mutable"),
        ({Renamed: NoHandle()}, "no handle method"),
        ({Renamed: None}, "no handle method"),
        ({Renamed: Recorder}, "give an instance"),
        ({Renamed: NoArgument()}, "does not take one event"),
        ({Renamed: [recorder, recorder]}, "given twice"),
        ({Renamed: {recorder}}, "no handle method"),
    ],
)
def test_an_impossible_registration_names_what_is_wrong(handlers: object, says: str) -> None:
    with pytest.raises(RegistrationError, match=says):
        SubscriptionTable(handlers)  # type: ignore[arg-type]


def test_one_handler_or_several_may_be_given() -> None:
    table = SubscriptionTable({Renamed: Mock(), AccountCreatedEvent: [Mock(), Mock()]})
    assert [len(table[event_type]) for event_type in table] == [1, 2]


def test_each_handler_of_a_type_has_a_key_of_its_own_and_every_process_the_same() -> None:
    def keys(handlers: Sequence[Recorder]) -> list[str]:
        return [subscription.key for subscription in SubscriptionTable({Renamed: handlers})[Renamed]]

    assert keys([Recorder(), Recorder()]) == keys([Recorder(), Recorder()])
    assert len(set(keys([Recorder(), Recorder()]))) == 2


def test_a_type_is_found_by_its_wire_name() -> None:
    assert SubscriptionTable({Renamed: recorder}).named("Renamed") is Renamed
    with pytest.raises(KeyError):
        SubscriptionTable({Renamed: recorder}).named("AccountCreatedEvent")


def refuse() -> None:
    raise ValueError(ADDRESS)


def failed() -> FailedDelivery:
    try:
        refuse()
    except ValueError as error:
        return FailedDelivery(Renamed(name="x"), recorder, error, attempts=2)


def test_a_subscription_says_what_is_called_for_what_and_how() -> None:
    class Awaited:
        async def handle(self, event: DomainEvent) -> None: ...

    plain, same, awaited = Recorder(), Recorder(), Awaited()
    first, second, third = SubscriptionTable({Renamed: [plain, same, awaited]})[Renamed]
    assert [each.event_type for each in (first, second, third)] == [Renamed] * 3
    assert [each.handler for each in (first, second, third)] == [plain, same, awaited]
    assert [each.is_async for each in (first, second, third)] == [False, False, True]
    name = f"{__name__}.Recorder"
    assert [first.key, second.key, third.key] == [name, f"{name}#2", f"{__name__}.{Awaited.__qualname__}"]


def test_what_a_registration_lacks_is_told_with_what_was_given() -> None:
    with pytest.raises(RegistrationError) as caught:
        SubscriptionTable([Recorder()])  # type: ignore[arg-type]
    assert str(caught.value) == "handlers must map event types to handlers, got list; write {MyEvent: handler}"
    with pytest.raises(RegistrationError) as caught:
        SubscriptionTable({Renamed: NoArgument()})  # type: ignore[dict-item]
    assert str(caught.value) == (
        f"the handler of Renamed, {__name__}.NoArgument, has handle() -> None, which does not take one event (too many"
        " positional arguments)"
    )


def test_without_a_sink_a_failure_is_logged_but_not_what_its_message_quotes(caplog: pytest.LogCaptureFixture) -> None:
    failure = failed()
    report(None, failure)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    for part in ("Renamed", str(failure.event.event_id), "Recorder", "2 attempt", "ValueError", "in failed"):
        assert part in record.getMessage()
    assert "someone" not in caplog.text


def test_a_sink_that_raises_is_logged_and_the_failure_with_it(caplog: pytest.LogCaptureFixture) -> None:
    report(Mock(side_effect=OSError("secret")), failed())
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "OSError" in caplog.text
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("paid", "got builtins.str"),
        (None, "got builtins.NoneType"),
        (Renamed, "got builtins.type; dispatch an instance, not the class"),
    ],
)
def test_what_is_no_event_is_told_with_its_type(what: object, told: str) -> None:
    table = SubscriptionTable({Renamed: Recorder()})
    with pytest.raises(TypeError) as caught:
        table.route(what)  # type: ignore[arg-type]
    assert str(caught.value) == f"only a DomainEvent can be dispatched, {told}"


def test_the_records_of_a_failure_carry_what_it_is_about(caplog: pytest.LogCaptureFixture) -> None:
    failure, error = failed(), OSError()
    report(Mock(side_effect=error), failure)
    about_sink, about_failure = (vars(record) for record in caplog.records)
    for about in (about_sink, about_failure):
        assert (about["event"], about["event_id"]) == ("Renamed", str(failure.event.event_id))
        assert about["handler"].endswith("Recorder")
    assert about_failure["attempt"] == 2
    told = f"Renamed {failure.event.event_id}"
    where, where_of_sink = ("".join(traceback.format_tb(each.__traceback__)) for each in (failure.exception, error))
    assert caplog.messages == [
        f"the failure sink raised OSError for {told}\n{where_of_sink}",
        f"delivery of {told} to {about_failure['handler']} failed after 2 attempt(s): ValueError\n{where}",
    ]


def test_each_undelivered_event_is_returned_once_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    event, equal = Renamed(name="x"), Renamed(name="y")
    assert undelivered([event, equal, event]) == (event, equal)
    assert caplog.messages == [
        f"Renamed {each.event_id} is undelivered: the dispatcher closed before it was settled"
        for each in (event, equal)
    ]
    assert [vars(record)["event"] for record in caplog.records] == ["Renamed"] * 2
    assert [vars(record)["event_id"] for record in caplog.records] == [str(event.event_id), str(equal.event_id)]
