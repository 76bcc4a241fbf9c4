"""The failure sink is not trusted, and the log loses nothing (laws I3 and I4)."""

import logging
import math
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import Mock

import pytest

from eventpact.domain.dispatcher import FailedDelivery, FailureSink, RegistrationError
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import MAX_WAIT_SECONDS, FailureReporter, RetryPolicy, undelivered
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

ADDRESS = "someone@example.com"


@dataclass(frozen=True, kw_only=True)
class Renamed(DomainEvent):
    name: str


class Recorder:
    def handle(self, event: DomainEvent) -> None: ...


recorder = Recorder()


def refuse() -> None:
    raise ValueError(ADDRESS)


def failed() -> FailedDelivery:
    try:
        refuse()
    except ValueError as error:
        return FailedDelivery(Renamed(name="x"), recorder, error, attempts=2)


def test_without_a_sink_a_failure_is_logged_with_text_and_cause(caplog: pytest.LogCaptureFixture) -> None:
    failure = failed()
    failure.exception.__cause__ = OSError("the reason behind")
    FailureReporter().report(failure)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    for part in ("Renamed", str(failure.event.event_id), "Recorder", "2 attempt", "ValueError", "in failed"):
        assert part in record.getMessage()
    assert "ValueError: someone@example.com" in caplog.text
    assert "OSError: the reason behind" in caplog.text


def test_a_masked_log_shows_types_and_places_but_no_text(caplog: pytest.LogCaptureFixture) -> None:
    failure = failed()
    failure.exception.__cause__ = OSError(ADDRESS)
    FailureReporter(masked=True).report(failure)
    FailureReporter(Mock(side_effect=OSError(ADDRESS)), masked=True).report(failure)
    assert len(caplog.records) == 3
    for part in ("ValueError", "OSError", "in failed", "in refuse"):
        assert part in caplog.text
    assert "someone" not in caplog.text


def test_a_reporter_as_a_sink_keeps_its_mask_when_wrapped(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[FailedDelivery] = []

    def wrap(sink: FailureSink) -> FailureSink:
        def both(failed: FailedDelivery) -> None:
            seen.append(failed)
            sink(failed)

        return both

    failure = failed()
    FailureReporter(FailureReporter(masked=True).around(wrap)).report(failure)
    assert seen == [failure]
    assert "ValueError" in caplog.text
    assert "someone" not in caplog.text


def test_a_sink_that_raises_is_logged_and_the_failure_with_it(caplog: pytest.LogCaptureFixture) -> None:
    FailureReporter(Mock(side_effect=OSError("disk full"))).report(failed())
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "OSError" in caplog.text
    assert "ValueError" in caplog.text
    assert "disk full" in caplog.text


def test_the_records_of_a_failure_carry_what_it_is_about(caplog: pytest.LogCaptureFixture) -> None:
    failure, error = failed(), OSError()
    FailureReporter(Mock(side_effect=error), masked=True).report(failure)
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


async def asynchronous(failed: FailedDelivery) -> None: ...


def generator(failed: FailedDelivery) -> Iterator[None]:
    yield


async def async_generator(failed: FailedDelivery):  # type: ignore[no-untyped-def]
    yield


class AsyncCallable:
    async def __call__(self, failed: FailedDelivery) -> None: ...


@pytest.mark.parametrize("sink", [asynchronous, generator, async_generator, AsyncCallable(), "log"])
def test_a_sink_that_would_never_run_is_refused(sink: object) -> None:
    with pytest.raises(RegistrationError, match="failure sink"):
        FailureReporter(sink)  # type: ignore[arg-type]


class TakesNothing:
    def __call__(self) -> None: ...


class MadeOfTwo:
    def __init__(self, failed: FailedDelivery, more: int) -> None: ...


@pytest.mark.parametrize("sink", [lambda: None, TakesNothing(), MadeOfTwo, lambda failed, *, more: None])
def test_a_sink_that_could_not_be_called_is_refused_with_its_signature(sink: object) -> None:
    with pytest.raises(RegistrationError, match=r"failure sink is .*\(.*\).* does not take one FailedDelivery"):
        FailureReporter(sink)  # type: ignore[arg-type]


@pytest.mark.parametrize("sink", [print, [].append, Mock(), lambda failed, more=1: None, lambda *failed: None])
def test_a_sink_that_can_be_called_is_taken_whatever_it_is(sink: FailureSink) -> None:
    FailureReporter(sink)


def test_a_sink_that_returns_an_awaitable_did_not_take_it(caplog: pytest.LogCaptureFixture) -> None:
    assert not FailureReporter(lambda failed: asynchronous(failed)).report(failed())  # type: ignore[arg-type, return-value]
    assert "make it a plain function" in caplog.text


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("sink", [None, Mock(side_effect=MuteError), Mock(side_effect=BaseException)])
def test_an_exception_without_a_text_is_logged_all_the_same(
    sink: FailureSink | None, caplog: pytest.LogCaptureFixture
) -> None:
    failure = FailedDelivery(Renamed(name="x"), recorder, MuteError(), attempts=1)
    failure.exception.__cause__ = MuteError()
    assert FailureReporter(sink).report(failure) is (sink is None)
    assert "MuteError" in caplog.messages[-1]


class ShyError(Exception):
    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(name)


class ShiestError(Exception):
    def __getattribute__(self, name: str) -> object:
        raise BaseException(name)


def ask(failed: FailedDelivery) -> None:
    isinstance(failed.exception, OSError)


@pytest.mark.parametrize("sink", [None, ask, Mock(side_effect=ShyError), FailureReporter(masked=True)])
@pytest.mark.parametrize(("shy", "raised"), [(ShyError, "RuntimeError"), (ShiestError, "BaseException")])
def test_an_exception_that_can_be_asked_nothing_is_reported_and_spares_the_caller(
    sink: FailureSink | None, shy: type[Exception], raised: str, caplog: pytest.LogCaptureFixture
) -> None:
    neighbour = Mock()
    failing = Mock(**{"handle.side_effect": shy})
    SyncEventDispatcher({Renamed: [failing, neighbour]}, on_failure=sink).dispatch(Renamed(name="x"))
    neighbour.handle.assert_called_once()
    assert f"{shy.__name__}\n(it cannot be shown: {raised})" in caplog.messages[-1]


@pytest.mark.parametrize("cause", [ValueError("b" * 10_000_000), ValueError("b\n" * 1_000_000), None])
def test_the_log_shows_the_beginning_and_the_end_of_an_exception_of_any_length(
    cause: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    failure = failed()
    failure.exception.__cause__ = cause
    failure.exception.args = ("a" * 10_000_000,) if cause is None else ("the last",)
    FailureReporter(Mock(side_effect=failure.exception)).report(failure)
    for message in caplog.messages:
        assert len(message) < 9_000
        assert "characters are left out" in message
        assert message.rstrip().endswith("aaa" if cause is None else "ValueError: the last")
        assert ("in refuse" if cause is None else "ValueError: bb" if "\n" not in str(cause) else "b\nb") in message


def test_a_sink_that_is_interrupted_is_logged_and_interrupts(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyboardInterrupt):
        FailureReporter(Mock(side_effect=KeyboardInterrupt)).report(failed())
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        *(({"retries": retries}, "give int, at least 0") for retries in (-1, 1.5, True, "3", None, math.nan)),
        *(({"backoff": backoff}, "give int or float, at least 0") for backoff in (-1, math.nan, "1", True)),
        *(({"max_backoff": longest}, "max_backoff is .* give int or float") for longest in (-0.1, math.nan, None)),
        ({"max_backoff": math.inf, "retries": 200}, "up to .* 86400 s at most"),
        ({"backoff": 86401, "max_backoff": 86401}, "86400 s at most"),
    ],
)
def test_a_policy_of_retries_that_nobody_can_follow_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(RegistrationError, match=says):
        RetryPolicy(**{"retries": 3, "backoff": 2.0, "max_backoff": 60.0} | wrong)


@pytest.mark.parametrize(
    "right",
    [{"retries": 0, "backoff": 0}, {"backoff": math.inf}, {"max_backoff": math.inf}, {"retries": 10**6, "backoff": 1}],
)
def test_a_policy_whose_waits_end_within_a_day_is_taken(right: dict[str, Any]) -> None:
    policy = RetryPolicy(**{"retries": 3, "backoff": 2.0, "max_backoff": 60.0} | right)
    assert policy.wait(max(1, policy.retries)) <= MAX_WAIT_SECONDS
