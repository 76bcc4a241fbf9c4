"""Events are valid from the moment they exist, and come back equal from the wire."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, InitVar, dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntFlag
from typing import Any, ClassVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventpact.domain.events import AccountCreatedEvent, DomainEvent, to_wire
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


@dataclass(frozen=True, kw_only=True)
class Rang(DomainEvent):
    at: datetime


def test_the_hour_that_a_clock_change_repeats_comes_back_equal() -> None:
    second = Rang(at=datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1))
    assert second.at.utcoffset() == timedelta(hours=1)
    assert Rang.from_dict(second.to_dict()) == second
    assert (second.at.fold, second.at.tzinfo) == (0, timezone(timedelta(hours=1)))


def test_a_moment_keeps_its_offset_and_loses_the_name_of_its_zone() -> None:
    own = timezone(timedelta(hours=1), "own")
    assert Rang(at=datetime(2026, 1, 1, tzinfo=own)).at.tzinfo is own
    assert Rang(at=datetime(2026, 1, 1, tzinfo=ZoneInfo("Etc/UTC"))).at.tzinfo is UTC
    tokyo = datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert Rang(at=tokyo).at.tzinfo == timezone(timedelta(hours=9))
    assert Rang(at=tokyo, occurred_at=tokyo).occurred_at.tzinfo is UTC
    with pytest.raises(ValueError, match=r"is out of range in UTC$"):
        Rang(at=tokyo, occurred_at=datetime.min.replace(tzinfo=timezone(timedelta(hours=1))))


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
    ("value", "reason"),
    [
        ({"ratio": float("nan")}, "ratio: nan is not a finite float, and JSON has no other"),
        ({"ratio": float("inf")}, "ratio: inf is not a finite float, and JSON has no other"),
        ({"ratio": 1}, "ratio: expected float, got int"),
        ({"amount": Decimal("NaN")}, "amount: a Decimal NaN equals nothing, so it cannot come back equal"),
        ({"amount": 1.0}, "amount: expected Decimal, got float"),
        ({"count": True}, "count: expected int, got bool"),
        ({"count": 2**14_000}, "count: an int of 14001 bits has no decimal form; at most 14000 bits"),
        ({"pair": (1,)}, "pair: expected 2 items, got 1"),
        ({"pair": [1, 2]}, "pair: expected tuple, got list"),
        ({"occurred_at": date(2026, 1, 1)}, "occurred_at: expected datetime, got date"),
    ],
)
def test_what_could_not_come_back_equal_is_refused_and_the_reason_told(value: dict[str, object], reason: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        Measured(**value)  # type: ignore[arg-type]
    assert str(caught.value) == f"Measured.{reason}"


def test_a_moment_that_is_none_is_refused_when_the_event_is_made() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Timeless(DomainEvent):
        occurred_at: int = 3  # type: ignore[assignment]

    with pytest.raises(WireError, match=r"Timeless\.occurred_at is every event's own; leave its type as it is"):
        Timeless()


def test_an_int_may_have_as_many_bits_as_can_be_written_in_decimal() -> None:
    assert Measured.from_dict(json.loads(json.dumps(Measured(count=2**14_000 - 1).to_dict()))).count == 2**14_000 - 1


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


@pytest.mark.parametrize(("message", "got"), [(None, "NoneType"), ([], "list"), ("x", "str"), (7, "int")])
def test_anything_but_a_mapping_is_refused_with_the_fields_that_are_needed(message: object, got: str) -> None:
    with pytest.raises(WireError) as caught:
        AccountCreatedEvent.from_dict(message)  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"AccountCreatedEvent has the fields ['account_id', 'email', 'event_id', 'occurred_at'], got {got}"
    )


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({}, "account_id, email"),
        ({"account_id": "1"}, "email"),
        ({"account_id": "1", "email": "", "event_id": ...}, "event_id"),
        ({"account_id": "1", "email": "", "occurred_at": ...}, "occurred_at"),
    ],
)
def test_a_missing_field_without_a_default_is_named(changes: dict[str, object], lacking: str) -> None:
    whole = AccountCreatedEvent(account_id="1", email="a").to_dict()
    message = {key: whole[key] for key in ("event_id", "occurred_at")} | changes
    with pytest.raises(WireError) as caught:
        AccountCreatedEvent.from_dict({name: value for name, value in message.items() if value is not ...})
    assert str(caught.value) == f"AccountCreatedEvent needs {lacking}, which the message lacks; give a default"


def test_an_unknown_field_is_named_and_refused_because_it_would_be_lost() -> None:
    message = AccountCreatedEvent(account_id="1", email="a").to_dict() | {"locale": "de", "age": 1}
    with pytest.raises(WireError, match=r"^AccountCreatedEvent has no field age, locale; is the message of a newer"):
        AccountCreatedEvent.from_dict(message)


def test_a_malformed_field_is_told_with_the_kind_of_its_error_and_the_error_behind_it() -> None:
    message = Measured(pair=(1, 2)).to_dict()
    with pytest.raises(ValueError, match=r"^Measured\.pair is malformed \(WireError\)$") as caught:
        Measured.from_dict(message | {"pair": [1, 2, 3]})
    assert str(caught.value.__cause__) == "expected 2 items, got 3"
    with pytest.raises(ValueError, match=r"^Lived\.at is malformed \(WireError\)$") as caught:
        Lived.from_dict(Lived().to_dict() | {"at": {"flats": [], "street": ""}})
    assert str(caught.value.__cause__) == "Address needs since, which the message lacks; give a default"


@dataclass(frozen=True)
class Room:
    number: int


@dataclass(frozen=True, kw_only=True)
class Lived(DomainEvent):
    at: Address = Address("High Street", (1, 2), datetime(2026, 1, 1, tzinfo=UTC))
    before: Address | None = None
    room: Room | None = None


def test_a_value_that_is_right_is_kept() -> None:
    there, room = Address("Low Street", (3,), datetime(2026, 1, 1, tzinfo=UTC)), Room(1)
    event = Lived(at=there, before=there, room=room)
    assert (event.at, event.before) == (there, there)
    assert event.room is room


def test_another_writer_may_have_dropped_the_fraction_of_a_whole_number_or_kept_a_tuple() -> None:
    measured = Measured.from_dict(Measured().to_dict() | {"ratio": 3})
    assert (measured.ratio, type(measured.ratio)) == (3.0, float)
    with pytest.raises(ValueError, match="ratio is malformed"):
        Measured.from_dict(Measured().to_dict() | {"ratio": "3.0"})
    assert Measured.from_dict(Measured().to_dict() | {"pair": (1, 2)}).pair == (1, 2)
    lived = Lived().to_dict()
    assert Lived.from_dict(lived | {"at": {"street": "", "flats": (1, 2), "since": "2026-01-01T00:00Z"}}).at.flats == (
        1,
        2,
    )


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


def test_annotations_that_say_nothing_are_told_with_what_to_do() -> None:
    @dataclass(frozen=True)
    class Unknown:
        item: "NowhereToBeFound"  # type: ignore[name-defined]  # noqa: F821 - that is what is told

    @dataclass(frozen=True)
    class Valued:
        item: [1, 2]  # type: ignore[valid-type]

    with pytest.raises(WireError) as caught:
        fields_of(Unknown)
    assert str(caught.value) == (
        f"the annotations of {Unknown.__qualname__} cannot be resolved (name 'NowhereToBeFound' is not defined); define"
        " the types that it names at module level"
    )
    with pytest.raises(WireError, match=r"Valued\.item: \[1, 2\] is no type \(unhashable type: 'list'\)$"):
        fields_of(Valued)


def test_an_undecorated_subclass_is_mutable() -> None:
    class Undecorated(AccountCreatedEvent):
        pass

    with pytest.raises(WireError, match="frozen=True"):
        Undecorated(account_id="1", email="a@example.com", event_id=uuid4())


def test_what_a_class_s_own_check_says_of_a_value_is_not_told() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Invited(DomainEvent):
        email: str

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.email.endswith("example.com"):
                raise KeyError(f"{self.email} is not invited any more")

    data = Invited(email="ada@example.org").to_dict() | {"email": "ada@example.com"}
    with pytest.raises(ValueError, match="Invited does not take these values") as caught:
        Invited.from_dict(data)
    assert "ada@" not in str(caught.value)


class Case(Enum):
    LOWER = "lower"
    ALSO_LOWER = "lower"  # noqa: PIE796 - an alias
    LIST = [1]  # noqa: RUF012 - unhashable is the point
    TUPLE = (1, 2)
    RECORD = Room(1)

    @classmethod
    def _missing_(cls, value: object) -> "Case | None":
        return cls.__members__.get(str(value).upper())


class Open(str, Enum):  # noqa: UP042 - many are written like this
    KNOWN = "known"

    @classmethod
    def _missing_(cls, value: object) -> "Open":
        made = str.__new__(cls, value)
        made._name_, made._value_ = "ANY", str(value)
        return cls._value2member_map_.setdefault(value, made)  # type: ignore[return-value]


class Forgetful(Enum):
    KNOWN = 1

    @classmethod
    def _missing_(cls, value: object) -> "Forgetful":
        made = object.__new__(cls)
        made._name_, made._value_ = "KNOWN", value
        return made


class Level(int, Enum):
    LOW = 1
    name_ = 2


class Loose(IntFlag):
    A = 1


@dataclass(frozen=True, kw_only=True)
class Chosen(DomainEvent):
    case: Case = Case.LOWER
    open: Open = Open.KNOWN
    forgetful: Forgetful = Forgetful.KNOWN
    level: Level = Level.LOW
    loose: Loose = Loose.A


@pytest.mark.parametrize(
    "fields",
    [
        *({"case": case} for case in (*Case, Case.ALSO_LOWER, Case("lower"), Case("TUPLE"))),
        *({"open": each} for each in (Open.KNOWN, Open("from a newer version"), Open(""))),
        *({"level": level} for level in Level),
        *({"loose": Loose(bits)} for bits in (0, 1, 6, -2)),
    ],
)
def test_a_member_of_any_enum_comes_back_equal(fields: dict[str, Any]) -> None:
    event = Chosen(**fields)
    back = Chosen.from_dict(json.loads(json.dumps(event.to_dict())))
    assert back == event
    assert [type(value) for value in vars(back).values()] == [type(value) for value in vars(event).values()]


def test_a_member_that_cannot_be_found_again_is_refused_when_the_event_is_made() -> None:
    with pytest.raises(WireError, match=r"Chosen\.forgetful: .* cannot be found again"):
        Chosen(forgetful=Forgetful(7))
    with pytest.raises(WireError, match=r"Chosen\.forgetful: .* its value is no int or str"):
        Chosen(forgetful=Forgetful((7,)))


@dataclass(frozen=True)
class Node:
    value: int
    parent: "Node | None" = None
    others: "tuple[Tree, ...]" = ()


@dataclass(frozen=True)
class Tree:
    roots: tuple[Node, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Grown(DomainEvent):
    tree: Tree
    before: "Grown | None" = None


def nested(levels: int) -> Node:
    node = Node(0)
    for value in range(1, levels):
        node = Node(value, node)
    return node


def test_a_record_may_hold_others_of_its_own_type() -> None:
    tree = Tree((Node(1, Node(2), (Tree((Node(3),)),)), nested(40)))
    event = Grown(tree=tree, before=Grown(tree=Tree()))
    assert Grown.from_dict(json.loads(json.dumps(event.to_dict()))) == event


def test_records_nested_too_deep_are_refused_made_or_read() -> None:
    with pytest.raises(WireError, match="nested more than 50 deep"):
        Grown(tree=Tree((nested(50),)))
    cycle = Node(1)
    object.__setattr__(cycle, "parent", cycle)
    with pytest.raises(WireError, match="nested more than 50 deep"):
        Grown(tree=Tree((cycle,)))
    message = Grown(tree=Tree((nested(49),))).to_dict()
    deep: Any = message["tree"]
    for _ in range(60):
        deep = {"roots": [{"value": 1, "others": [deep]}]}
    with pytest.raises(WireError, match=r"Grown\.tree is malformed"):
        Grown.from_dict(message | {"tree": deep})


def test_a_circle_of_records_is_refused_whole_if_one_cannot_cross() -> None:
    for kind in (Odd, Even, Odd):
        with pytest.raises(WireError, match=r"Odd\.items"):
            fields_of(kind)


@dataclass(frozen=True)
class Even:
    odd: "Odd | None"


@dataclass(frozen=True)
class Odd:
    even: Even
    items: list[int]


@dataclass(frozen=True)
class Place:
    street: str
    floor: int = 0


@dataclass(frozen=True, kw_only=True)
class Moved(DomainEvent):
    to: Place
    since: date = date(2026, 1, 1)
    tags: tuple[str, ...] = field(default_factory=lambda: ("none",))


def test_a_field_that_an_older_message_lacks_is_filled_from_its_default() -> None:
    whole = Moved(to=Place("High Street")).to_dict()
    older = {"event_id": whole["event_id"], "occurred_at": whole["occurred_at"], "to": {"street": "High Street"}}
    assert Moved.from_dict(older).to_dict() == whole
    with pytest.raises(WireError, match=r"Moved\.to is malformed"):
        Moved.from_dict(older | {"to": {"street": "High Street", "garden": 1}})


class Quiet:
    def __post_init__(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class WithoutSuper(DomainEvent):
    at: datetime

    def __post_init__(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Mixed(Quiet, DomainEvent):
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Slotted(WithoutSuper):
    more: str = ""


@dataclass(frozen=True, kw_only=True)
class OwnInit(DomainEvent):
    at: datetime

    def __init__(self, at: datetime) -> None:
        object.__setattr__(self, "event_id", uuid4())
        object.__setattr__(self, "occurred_at", datetime.now(UTC))
        object.__setattr__(self, "at", at)


@pytest.mark.parametrize("kind", [WithoutSuper, Mixed, Slotted, OwnInit])
def test_fields_are_checked_whatever_the_class_does_when_it_is_made(kind: Callable[..., DomainEvent]) -> None:
    assert kind(at=datetime(2026, 1, 1, tzinfo=ZoneInfo("Etc/UTC"))).at.tzinfo is UTC  # type: ignore[attr-defined]
    for value, says in ((datetime(2026, 1, 1), "naive"), ("2026-01-01", "expected datetime, got str")):  # noqa: DTZ001
        with pytest.raises(WireError, match=says):
            kind(at=value)


@dataclass(frozen=True)
class Line:
    price: int
    ordered: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def __post_init__(self) -> None:
        object.__setattr__(self, "price", self.price + 2)


@dataclass(frozen=True, kw_only=True)
class Ordered(DomainEvent):
    total: int
    number: int = 0
    reference: str = ""
    lines: tuple[Line, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", self.total + 2)
        object.__setattr__(self, "number", random.randrange(10**9))
        object.__setattr__(self, "reference", self.reference.strip().upper())
        object.__setattr__(self, "shown", f"order {self.reference}")


def test_what_a_class_makes_of_its_fields_is_not_made_of_them_twice() -> None:
    event = Ordered(
        total=10, reference=" a1 ", lines=(Line(5), Line(6, datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo"))))
    )
    assert (event.total, event.reference, [line.price for line in event.lines]) == (12, "A1", [7, 8])
    back = Ordered.from_dict(json.loads(json.dumps(to_wire(event))))
    assert back == event
    assert back.shown == "order A1"  # type: ignore[attr-defined]  # no field, and derived again


def test_a_moment_that_a_class_sets_itself_is_kept_in_utc_as_it_was_sent() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Stamped(DomainEvent):
        def __post_init__(self) -> None:
            object.__setattr__(self, "occurred_at", datetime.now(UTC))

    message = Stamped().to_dict() | {"occurred_at": "2026-01-01T02:00:00+02:00"}
    assert Stamped.from_dict(message).occurred_at.isoformat() == "2026-01-01T00:00:00+00:00"


@dataclass(frozen=True, kw_only=True)
class Shipped(DomainEvent):
    country: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "country", {"DE": "Germany"}[self.country])


@dataclass(frozen=True, kw_only=True)
class Aloof(DomainEvent):
    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = DomainEvent.__hash__


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (
            Shipped(country="DE"),
            "Shipped cannot be made again from its own fields (Shipped does not take these values (KeyError)); let"
            " __init__ and __post_init__ take the fields as they leave them, or derive them before it is made",
        ),
        (OwnInit(at=datetime(2026, 1, 1, tzinfo=UTC)), "OwnInit cannot be made again from its own fields"),
        (Aloof(), "Aloof does not come back equal; let its __eq__ compare fields, or leave it out"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_event_that_cannot_be_made_again_equal_is_refused_before_it_is_sent(event: DomainEvent, says: str) -> None:
    with pytest.raises(WireError) as caught:
        to_wire(event)
    assert str(caught.value).startswith(says)


@dataclass(frozen=True)
class Strict:
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise RuntimeError("ada@example.com owes something")


@dataclass(frozen=True, kw_only=True)
class Billed(DomainEvent):
    rows: tuple[tuple[Strict, Address | None], ...]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ([{"number": "1"}, None], "Billed.rows.number is malformed (WireError)"),
        ([{"number": -1}, None], "Billed.rows is malformed (WireError)"),
        ([{"number": 1}, {"street": "", "flats": [], "since": "soon"}], "Billed.rows.since is malformed (ValueError)"),
    ],
)
def test_a_malformed_field_of_a_record_is_told_by_its_path(row: object, says: str) -> None:
    message = Billed(rows=((Strict(1), None),)).to_dict()
    with pytest.raises(WireError) as caught:
        Billed.from_dict(message | {"rows": [row]})
    assert str(caught.value) == says


FROZEN = """
import {library} as library, sys
start = {start}
{before}
start()
from dataclasses import dataclass
import datetime as dt
from eventpact.domain.events import AccountCreatedEvent, DomainEvent, to_wire
@dataclass(frozen=True, kw_only=True)
class Dated(DomainEvent):
    day: dt.date
    at: dt.datetime
now = dt.datetime.now(dt.timezone.utc)
event = Dated(day=dt.date.today(), at=now)
assert Dated.from_dict(event.to_dict()) == event
assert event.occurred_at == now == event.at, (event, now)
assert type(event.at).__module__ == "datetime"
account = AccountCreatedEvent(account_id="1", email="a@example.com")
assert AccountCreatedEvent.from_dict(account.to_dict()) == account
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
class Handler:
    def handle(self, event):
        print(event.occurred_at.isoformat())
SyncEventDispatcher({{Dated: Handler(), AccountCreatedEvent: Handler()}}).dispatch(account)
"""


@pytest.mark.parametrize("before", ["", "import eventpact.domain.events"], ids=["imported frozen", "frozen afterwards"])
@pytest.mark.parametrize(
    ("library", "start"),
    [
        ("freezegun", "library.freeze_time('2026-01-01').start"),
        ("time_machine", "library.travel('2026-01-01T00:00Z', tick=False).start"),
    ],
)
def test_the_first_event_may_be_made_under_a_frozen_clock(library: str, start: str, before: str) -> None:
    pytest.importorskip(library)  # the environment `minimal` has neither
    code = FROZEN.format(library=library, start=start, before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("2026-01-01T00:00:00+00:00\n", "")
