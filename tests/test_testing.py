"""The recorder for unit tests keeps the contract like the dispatchers that it stands in for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from eventpact.domain.dispatcher import (
    DispatcherClosedError,
    DispatchError,
    DispatchUncertainError,
    FailedDelivery,
)
from eventpact.domain.events import DomainEvent
from eventpact.testing import RecordingEventDispatcher


@dataclass(frozen=True, kw_only=True)
class Ordered(DomainEvent):
    item: str


@dataclass(frozen=True, kw_only=True)
class Gift(Ordered):
    to: str = ""


def test_accepted_events_are_recorded_in_order_and_by_exact_type() -> None:
    recorder = RecordingEventDispatcher()
    tea, gift, milk = Ordered(item="tea"), Gift(item="cup"), Ordered(item="milk")
    for event in (tea, gift, milk):
        recorder.dispatch(event)
    assert recorder.events == [tea, gift, milk]
    assert recorder.of(Ordered) == [tea, milk]
    assert recorder.of(Gift) == [gift]


def test_a_refusal_is_for_the_next_event_alone() -> None:
    recorder = RecordingEventDispatcher()
    refused = DispatchUncertainError("the broker did not answer")
    recorder.refuse(refused)
    tea = Ordered(item="tea")
    with pytest.raises(DispatchUncertainError) as raised:
        recorder.dispatch(tea)
    assert raised.value is refused
    assert recorder.events == []
    recorder.dispatch(tea)
    assert recorder.events == [tea]


def test_each_refusal_refuses_one_event() -> None:
    recorder = RecordingEventDispatcher()
    recorder.refuse(DispatchError("first"))
    recorder.refuse(DispatchError("second"))
    for reason in ("first", "second"):
        with pytest.raises(DispatchError, match=reason):
            recorder.dispatch(Ordered(item="tea"))
    recorder.dispatch(Ordered(item="tea"))
    assert len(recorder.events) == 1


def test_only_errors_that_a_dispatcher_may_raise_can_be_asked_for() -> None:
    with pytest.raises(TypeError, match="got RuntimeError"):
        RecordingEventDispatcher().refuse(RuntimeError("boom"))  # type: ignore[arg-type]  # that is the point


def test_something_else_than_an_event_uses_up_no_refusal_and_is_not_recorded() -> None:
    recorder = RecordingEventDispatcher()
    with pytest.raises(TypeError):
        recorder.dispatch("tea")  # type: ignore[arg-type]  # that is the point
    recorder.refuse(DispatchError("later"))
    with pytest.raises(TypeError):
        recorder.dispatch("tea")  # type: ignore[arg-type]
    assert recorder.events == []
    with pytest.raises(DispatchError, match="later"):
        recorder.dispatch(Ordered(item="tea"))


def test_a_closed_recorder_says_so_and_records_nothing_more() -> None:
    recorder = RecordingEventDispatcher()
    recorder.refuse(DispatchError("never seen"))
    assert asyncio.run(recorder.aclose()) == ()
    with pytest.raises(DispatcherClosedError):
        recorder.dispatch(Ordered(item="tea"))
    assert recorder.events == []


def test_handlers_run_and_what_they_dispatch_is_recorded_behind() -> None:
    failures: list[FailedDelivery] = []

    class Wrap:
        def handle(self, event: Ordered) -> None:
            recorder.dispatch(Gift(item=event.item))

    class Fail:
        async def handle(self, event: Gift) -> None:
            raise DispatchError("a handler's own")

    recorder = RecordingEventDispatcher({Ordered: Wrap(), Gift: Fail()}, on_failure=failures.append)
    recorder.dispatch(Ordered(item="tea"))
    assert [type(event) for event in recorder.events] == [Ordered, Gift]
    assert [failed.event for failed in failures] == recorder.of(Gift)
    asyncio.run(recorder.aclose())


def test_an_event_that_a_handler_could_not_dispatch_is_not_recorded() -> None:
    class Wrap:
        def handle(self, event: Ordered) -> None:
            recorder.refuse(DispatchError("no broker"))
            with pytest.raises(DispatchError):
                recorder.dispatch(Gift(item=event.item))

    recorder = RecordingEventDispatcher({Ordered: Wrap()})
    recorder.dispatch(Ordered(item="tea"))
    assert [type(event) for event in recorder.events] == [Ordered]


def test_the_plugin_has_a_fixture_for_it(recording_dispatcher: RecordingEventDispatcher) -> None:
    recording_dispatcher.dispatch(Ordered(item="tea"))
    assert len(recording_dispatcher.of(Ordered)) == 1
