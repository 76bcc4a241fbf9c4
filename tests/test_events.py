"""Events are valid from the moment they exist, and come back equal from the wire."""

import json
from dataclasses import FrozenInstanceError, InitVar, dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntFlag
from typing import ClassVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventpact.domain.events import AccountCreatedEvent, DomainEvent
from eventpact.domain.wire import WireError, fields_of


class Colour(Enum):
    RED = "r"
    GREEN = object()


class Rights(IntFlag):
    READ = 1
    WRITE = 2


class Days(Flag):
    MONDAY = 1
    SUNDAY = 64


@dataclass(frozen=True)
class Address:
    street: str
    flats: tuple[int, ...]
    since: datetime


@dataclass(frozen=True, kw_only=True)
class EverythingHappened(DomainEvent):
    limit: ClassVar[int] = 3
    text: str
    flag: bool
    number: int
    ratio: float
    amount: Decimal
    at: datetime
    day: date
    key: UUID
    colour: Colour
    rights: Rights
    days: Days
    pair: tuple[int, str | None]
    addresses: tuple[Address, ...]
    maybe: Address | None = None


offsets = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59))
moments = st.builds(
    lambda moment, offset: moment.replace(tzinfo=timezone(offset)),
    st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)),  # noqa: DTZ001 - the zone is given above
    offsets,
)
texts = st.text(st.characters(codec=None, exclude_categories=()))
addresses = st.builds(Address, street=texts, flats=st.lists(st.integers()).map(tuple), since=moments)
events = st.builds(
    EverythingHappened,
    event_id=st.uuids(),
    occurred_at=moments,
    text=texts,
    flag=st.booleans(),
    number=st.integers(-(2**13_000), 2**13_000) | st.integers(),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    amount=st.decimals(allow_nan=False),
    at=moments,
    day=st.dates(),
    key=st.uuids(),
    colour=st.sampled_from(Colour),
    rights=st.sampled_from([Rights.READ, Rights.READ | Rights.WRITE, Rights(0)]),
    days=st.sampled_from([Days.MONDAY, Days.MONDAY | Days.SUNDAY, Days(0)]),
    pair=st.tuples(st.integers(), st.none() | texts),
    addresses=st.lists(addresses, max_size=3).map(tuple),
    maybe=st.none() | addresses,
)


@given(events)
def test_an_event_comes_back_equal_from_json(event: EverythingHappened) -> None:
    back = EverythingHappened.from_dict(json.loads(json.dumps(event.to_dict(), allow_nan=False)))
    assert back == event
    assert back.to_dict() == event.to_dict()


def test_the_event_of_the_use_case_needs_only_its_own_fields() -> None:
    event = AccountCreatedEvent(account_id="123", email="test@example.com")
    assert isinstance(event.event_id, UUID)
    assert event.occurred_at.tzinfo is UTC


def test_two_events_of_the_same_fact_are_told_apart_by_their_id() -> None:
    one, other = (AccountCreatedEvent(account_id="123", email="test@example.com") for _ in range(2))
    assert one != other


def test_an_event_cannot_be_changed() -> None:
    event = AccountCreatedEvent(account_id="123", email="test@example.com")
    with pytest.raises(FrozenInstanceError):
        event.email = "other@example.com"  # type: ignore[misc]  # that is what is refused


def test_occurred_at_is_kept_in_utc() -> None:
    noon = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    event = AccountCreatedEvent(account_id="1", email="a@example.com", occurred_at=noon)
    assert event.occurred_at.isoformat() == "2026-07-01T10:00:00+00:00"


def test_the_hour_that_a_clock_change_repeats_comes_back_equal() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Rang(DomainEvent):
        at: datetime

    second = Rang(at=datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1))
    assert second.at.utcoffset() == timedelta(hours=1)
    assert Rang.from_dict(second.to_dict()) == second


@pytest.mark.parametrize(
    ("changes", "error", "names"),
    [
        ({"account_id": 1}, TypeError, "AccountCreatedEvent.account_id: expected str, got int"),
        ({"email": None}, TypeError, "email: expected str"),
        ({"event_id": "1"}, TypeError, "event_id: expected UUID"),
        ({"occurred_at": datetime(2026, 1, 1)}, ValueError, "naive"),  # noqa: DTZ001 - that is what is refused
    ],
)
def test_a_value_of_another_type_is_refused_when_the_event_is_made(
    changes: dict[str, object], error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names):
        AccountCreatedEvent(**{"account_id": "1", "email": "a@example.com", **changes})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Measured(DomainEvent):
    ratio: float = 0.0
    amount: Decimal = Decimal(0)
    count: int = 0
    pair: tuple[int, int] = (0, 0)


@pytest.mark.parametrize(
    "value",
    [
        {"ratio": float("nan")},
        {"ratio": float("inf")},
        {"ratio": 1},
        {"amount": Decimal("NaN")},
        {"amount": 1.0},
        {"count": True},
        {"count": 10**5000},
        {"pair": (1,)},
        {"pair": [1, 2]},
    ],
)
def test_what_could_not_come_back_equal_is_refused(value: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^Measured\."):
        Measured(**value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"account_id": None},
        {"account_id": 7},
        {"event_id": "no-uuid"},
        {"event_id": 7},
        {"occurred_at": "2026-01-01T00:00:00"},
        {"occurred_at": 5},
        {"extra": 1},
    ],
)
def test_a_malformed_message_raises_a_value_error_that_quotes_no_value(changes: dict[str, object]) -> None:
    message = AccountCreatedEvent(account_id="1", email="secret@example.com").to_dict() | changes
    with pytest.raises(ValueError, match="AccountCreatedEvent") as caught:
        AccountCreatedEvent.from_dict(message)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("message", [None, [], "x", 7, {}])
def test_what_is_no_message_at_all_raises_a_value_error(message: object) -> None:
    with pytest.raises(ValueError, match="has the fields"):
        AccountCreatedEvent.from_dict(message)  # type: ignore[arg-type]


def test_types_that_cannot_cross_a_queue_are_told_with_the_field() -> None:
    @dataclass(frozen=True)
    class HasList:
        items: list[int]

    @dataclass
    class Mutable:
        item: int

    @dataclass(frozen=True, eq=False)
    class ByIdentity:
        item: int

    @dataclass(frozen=True)
    class HasInitVar:
        item: InitVar[int]

    @dataclass(frozen=True)
    class Computed:
        item: int = field(default=1, init=False)

    @dataclass(frozen=True)
    class EitherOr:
        item: int | str

    @dataclass(frozen=True)
    class Nested:
        item: tuple[HasList, ...]

    for kind, names in {
        HasList: "HasList.items",
        Mutable: "mutable",
        ByIdentity: "by value",
        HasInitVar: "HasInitVar.item",
        Computed: "Computed.item",
        EitherOr: "EitherOr.item",
        Nested: "HasList.items",
    }.items():
        with pytest.raises(WireError, match=names):
            fields_of(kind)


def test_an_undecorated_subclass_is_mutable() -> None:
    class Undecorated(AccountCreatedEvent):
        pass

    with pytest.raises(WireError, match="frozen=True"):
        Undecorated(account_id="1", email="a@example.com", event_id=uuid4())
