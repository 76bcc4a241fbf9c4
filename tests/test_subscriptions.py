"""The subscription table refuses what could never work, when a dispatcher is built (law A4)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass
from unittest.mock import Mock

import pytest

from eventpact.domain.dispatcher import FailedDelivery, RegistrationError
from eventpact.domain.events import AccountCreatedEvent, DomainEvent
from eventpact.infrastructure.subscriptions import SubscriptionTable, report, undelivered


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


def failed() -> FailedDelivery:
    try:
        raise ValueError(ADDRESS)
    except ValueError as error:
        return FailedDelivery(Renamed(name="x"), recorder, error, attempts=2)


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


def test_each_undelivered_event_is_returned_once_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    event, equal = Renamed(name="x"), Renamed(name="y")
    assert undelivered([event, equal, event]) == (event, equal)
    assert caplog.text.count("is undelivered") == 2
