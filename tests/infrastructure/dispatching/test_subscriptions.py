"""The subscription table refuses what could never work, when a dispatcher is built (law A4)."""

import functools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, make_dataclass
from functools import partial, singledispatchmethod
from types import FunctionType
from typing import Any, ClassVar, NamedTuple
from unittest.mock import AsyncMock, Mock, create_autospec

import pytest

from eventpact.domain.dispatcher import FailedDelivery, RegistrationError
from eventpact.domain.events import AccountCreatedEvent, DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import (
    Handle,
    Subscription,
    SubscriptionTable,
    close_unawaited,
    handler_name,
)
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher


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


class Yielding:
    def handle(self, event: DomainEvent) -> Iterator[None]:
        yield


class AsyncYielding:
    async def handle(self, event: DomainEvent) -> AsyncIterator[None]:
        yield


class YieldingCall:
    def __call__(self, event: DomainEvent) -> Iterator[None]:
        yield


class HandledBy:
    def __init__(self, handle: Callable[..., Any]) -> None:
        self.handle = handle


class Misnamed:
    former_names = "Old"

    def handle(self, event: DomainEvent) -> None: ...


class WrapsItself(Recorder):
    @property
    def __wrapped__(self) -> object:
        return self


@dataclass(frozen=True, kw_only=True)
class Unparsable(DomainEvent):
    number: "int["  # type: ignore[valid-type]  # noqa: F722


@dataclass(frozen=True, kw_only=True)
class Raising(DomainEvent):
    number: "1 / 0"  # type: ignore[valid-type]


@dataclass(frozen=True, kw_only=True)
class Claims(DomainEvent):
    former_names = ("Earlier", "Renamed")


@dataclass(frozen=True, kw_only=True)
class Repeats(DomainEvent):
    former_names = ("Repeats",)


@dataclass(frozen=True, init=False)
class OwnInit(DomainEvent):
    number: int

    def __init__(self, number: int) -> None:
        object.__setattr__(self, "number", number)
        super().__init__()


class Mixin:
    def __init__(self, number: int) -> None: ...


@dataclass(frozen=True, init=False)
class MixedIn(Mixin, DomainEvent):
    number: int


@dataclass(frozen=True, kw_only=True)
class OwnNew(DomainEvent):
    number: int

    def __new__(cls, number: int) -> "OwnNew":
        return super().__new__(cls)


@dataclass(frozen=True)
class Parsed:
    number: int

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "number", int(text))


@dataclass(frozen=True, kw_only=True)
class HasParsed(DomainEvent):
    parsed: Parsed | None = None


@dataclass(frozen=True, kw_only=True)
class Hides(DomainEvent):
    to_dict: str  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class OwnId(DomainEvent):
    event_id: str  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class OwnMoment(DomainEvent):
    occurred_at: int = 3  # type: ignore[assignment]


class Shy:
    @property
    def handle(self) -> object:
        raise RuntimeError


class Veiled(Recorder):
    __wrapped__ = Shy.handle


class ShyList(list[object]):
    handle = Shy.handle


namesake = make_dataclass("Renamed", [], bases=(DomainEvent,), frozen=True, kw_only=True)
recorder = Recorder()


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
        ({Renamed: deque([recorder])}, "several handlers as a list or tuple"),
        ({Renamed: Yielding()}, "is a generator"),
        ({Renamed: AsyncYielding()}, "is a generator"),
        ({Renamed: HandledBy(YieldingCall())}, "is a generator"),
        ({Renamed: HandledBy(partial(Yielding.handle, None))}, "is a generator"),
        ({Claims: recorder, Renamed: recorder}, "one wire name, Renamed"),
        ({Renamed: Misnamed()}, "former_names is no tuple"),
        ({Renamed: WrapsItself()}, "WrapsItself leads back to itself"),
        ({Unparsable: recorder}, "annotations of Unparsable cannot be resolved"),
        ({Raising: recorder}, "annotations of Raising cannot be resolved"),
        ({Repeats: recorder}, "former_names repeats Repeats; let it name each earlier name once"),
        (
            {OwnInit: recorder},
            r"OwnInit does not take its own fields \(.*'event_id'\); leave its __init__ to @dataclass",
        ),
        ({MixedIn: recorder}, "MixedIn does not take its own fields"),
        ({OwnNew: recorder}, "OwnNew does not take its own fields"),
        ({HasParsed: recorder}, r"HasParsed\.parsed: Parsed does not take its own fields"),
        ({Hides: recorder}, "Hides.to_dict hides a method of DomainEvent; rename the field"),
        ({OwnId: recorder}, "OwnId.event_id is every event's own; leave its type as it is"),
        ({OwnMoment: recorder}, "OwnMoment.occurred_at is every event's own; leave its type as it is"),
        ({Renamed: Shy()}, "Shy raises RuntimeError when it is asked for its handle; let it have one"),
        ({Renamed: ShyList()}, "ShyList raises RuntimeError when it is asked for its handle; let it have one"),
        ({Renamed: [HandledBy(print), Shy()]}, "asked for its handle"),
        ({Renamed: Veiled()}, "Veiled raises RuntimeError when it is asked for its __wrapped__"),
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


class Greeter:
    def __init__(self, function: object) -> None:
        functools.update_wrapper(self, function)  # type: ignore[arg-type]  # it takes anything

    def handle(self, event: DomainEvent) -> None: ...


def of_class(kind: type) -> Greeter:
    greeter = Greeter(print)
    greeter.__wrapped__ = kind  # type: ignore[attr-defined]  # as a decorator of classes does
    return greeter


class MadeUp:
    """A handler that has every attribute that it is asked for."""

    def __getattr__(self, name: str) -> Any:
        return MadeUp()

    def __call__(self, *arguments: object) -> None: ...


def with_itself() -> Any:
    def handle(event: DomainEvent) -> None: ...

    handle.handle = handle  # type: ignore[attr-defined]
    return handle


@pytest.mark.parametrize(
    ("handler", "named"),
    [
        (Greeter(print), Greeter),
        (Greeter(lambda event: None), Greeter),
        (of_class(Recorder), Greeter),
        (Greeter(Greeter(print)), Greeter),
        (Greeter(Recorder()), Recorder),
        (Greeter(Greeter(Recorder())), Recorder),
        (MadeUp(), MadeUp),
        (Greeter(MadeUp()), MadeUp),
        (with_itself(), FunctionType),
        (HandledBy(MadeUp()), HandledBy),
    ],
)
def test_a_handler_is_known_by_the_innermost_class_that_handles(handler: Any, named: type) -> None:
    [subscription] = SubscriptionTable({Renamed: handler})[Renamed]
    assert subscription.key == f"{named.__module__}.{named.__qualname__}"
    assert handler_name(handler) == subscription.key


def test_a_handler_has_a_name_even_where_it_can_be_asked_nothing() -> None:
    assert handler_name(Veiled()) == f"{__name__}.Veiled"


def test_former_names_may_be_annotated_as_the_class_s_own() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Moved(DomainEvent):
        former_names: ClassVar[tuple[str, ...]] = ("Left",)

    assert SubscriptionTable({Moved: recorder}).named("Left") is Moved


class ByKind:
    @singledispatchmethod
    def handle(self, event: object) -> None:
        raise TypeError

    @handle.register
    def _(self, event: Renamed) -> None: ...


class Plain:
    def handle(self, event: Renamed) -> None: ...


class Async:
    async def handle(self, event: Renamed) -> None: ...


@pytest.mark.parametrize(
    ("handler", "is_async"),
    [
        (ByKind(), False),
        (create_autospec(Plain, instance=True), False),
        (create_autospec(Async, instance=True), True),
        (AsyncMock(), True),
        (Mock(), False),
    ],
)
def test_a_handler_that_binds_its_handle_in_another_way_is_taken(handler: Any, *, is_async: bool) -> None:
    [subscription] = SubscriptionTable({Renamed: handler})[Renamed]
    assert subscription.is_async is is_async
    close_unawaited(subscription.handle(Renamed(name="x")))


class Spy(list[DomainEvent]):
    def handle(self, event: DomainEvent) -> None:
        self.append(event)


class Pair(tuple[list[DomainEvent], str]):
    def handle(self, event: DomainEvent) -> None:
        self[0].append(event)


class Named(NamedTuple):
    events: list[DomainEvent]

    def handle(self, event: DomainEvent) -> None:
        self.events.append(event)


@pytest.mark.parametrize("several", [lambda handler: handler, lambda handler: [handler], lambda handler: (handler,)])
def test_a_handler_that_is_a_sequence_is_served(several: Callable[[Any], Any]) -> None:
    event = Renamed(name="x")
    for handler, seen in ((Spy(), None), (Pair(([], "")), 0), (Named([]), 0)):
        SyncEventDispatcher({Renamed: several(handler)}).dispatch(event)
        assert (handler if seen is None else handler[seen]) == [event]


def test_a_list_of_a_class_of_its_own_still_holds_handlers() -> None:
    class Several(list[Any]): ...

    first, second = Spy(), Spy()
    SyncEventDispatcher({Renamed: Several([first, second])}).dispatch(Renamed(name="x"))
    assert len(first) == len(second) == 1


class Old(Recorder): ...


class New(Recorder):
    former_names = (f"{__name__}.Old", f"{__name__}.Oldest")


class Heir(New): ...


def test_a_renamed_handler_is_found_by_its_former_keys() -> None:
    table = SubscriptionTable({Renamed: [New(), New(), Heir()]})
    first, second, heir = table[Renamed]
    for name in ("New", "Old", "Oldest"):
        assert table.keyed(Renamed, f"{__name__}.{name}") is first
        assert table.keyed(Renamed, f"{__name__}.{name}#2") is second
    assert table.keyed(Renamed, f"{__name__}.Heir") is heir
    with pytest.raises(KeyError):
        table.keyed(Renamed, f"{__name__}.Old#3")


def test_a_key_of_today_wins_over_a_former_one() -> None:
    table = SubscriptionTable({Renamed: [New(), Old()]})
    assert [each.key for each in table[Renamed]] == [f"{__name__}.New", f"{__name__}.Old"]
    assert table.keyed(Renamed, f"{__name__}.Old") is table[Renamed][1]


def test_a_renamed_event_is_found_by_its_former_names() -> None:
    table = SubscriptionTable({Claims: recorder})
    assert [table.named(name) for name in ("Claims", "Earlier", "Renamed")] == [Claims] * 3


def test_a_type_is_found_by_its_wire_name() -> None:
    assert SubscriptionTable({Renamed: recorder}).named("Renamed") is Renamed
    with pytest.raises(KeyError):
        SubscriptionTable({Renamed: recorder}).named("AccountCreatedEvent")


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


def test_wrapping_a_table_keeps_handlers_keys_and_names() -> None:
    calls: list[str] = []

    class Awaited:
        async def handle(self, event: DomainEvent) -> None:
            calls.append("handled")

    def wrap(subscription: Subscription) -> Handle:
        async def handle_async(event: DomainEvent) -> None:
            calls.append(f"before {subscription.key}")
            await subscription.handle(event)  # type: ignore[misc]

        def handle(event: DomainEvent) -> None:
            calls.append(f"before {subscription.key}")

        return handle_async if subscription.is_async else handle

    table = SubscriptionTable({Renamed: [Recorder(), Awaited()]})
    around = table.around(wrap)
    assert around.named("Renamed") is Renamed
    attributes = ("event_type", "handler", "key", "is_async")
    for before, after in zip(table[Renamed], around[Renamed], strict=True):
        assert [getattr(after, name) for name in attributes] == [getattr(before, name) for name in attributes]
        assert after.handle is not before.handle
    event = Renamed(name="x")
    SyncEventDispatcher(around).dispatch(event)
    plain, awaited = (each.key for each in table[Renamed])
    assert calls == [f"before {plain}", f"before {awaited}", "handled"]


def test_a_wrapped_table_reports_the_original_handler() -> None:
    class Failing:
        def handle(self, event: DomainEvent) -> None:
            raise ValueError

    handler, failures = Failing(), list[FailedDelivery]()
    table = SubscriptionTable({Renamed: handler})
    SyncEventDispatcher(table.around(lambda each: each.handle), on_failure=failures.append).dispatch(Renamed(name="x"))
    assert [failed.handler for failed in failures] == [handler]
