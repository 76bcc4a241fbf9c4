"""A trace can be read by a person, and crosses processes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from support.tracing import BLOCKING, broken, closed, closing, reported, taken, trace

from eventpact_contracts.driver.recorder import fingerprint
from eventpact_contracts.driver.trace import Entry, Kind, Trace, read_journal
from eventpact_contracts.scenarios.events import Described, Paid, Placed

TRACE = trace(
    taken("a", caller="caller 1"),
    broken("a", "Paid.plain"),
    reported("a", "Paid.plain"),
    closing(0.0),
    closed("a"),
    guarantees=BLOCKING,
    schedule="held back",
)


def test_a_trace_comes_back_equal_from_json() -> None:
    assert Trace.from_dict(json.loads(json.dumps(TRACE.to_dict()))) == TRACE


def test_an_entry_keeps_a_time_out_of_zero_and_half_a_surrogate_pair() -> None:
    entry = Entry(kind=Kind.CLOSING, timeout=0.0, note="\ud800 \n \N{SNOWMAN}")
    assert "\n" not in entry.to_json()
    assert entry.to_json().isascii()
    assert Entry.from_json(entry.to_json()) == entry


def test_journals_are_read_in_the_order_of_what_happened_without_the_line_that_a_kill_cut_short(tmp_path: Path) -> None:
    first, second = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    early, late = Entry(kind=Kind.STARTED, time=1.0, event="a"), Entry(kind=Kind.SUCCEEDED, time=2.0, event="a")
    first.write_text(f"{late.to_json()}\n{late.to_json()[:20]}")
    second.write_text(f"{early.to_json()}\n")
    assert read_journal(first, second) == (early, late)


def test_a_rendered_trace_names_events_shortly_and_shows_who_did_what() -> None:
    text = str(TRACE)
    assert "caller 1  dispatched Paid e1" in text
    assert "attempt failed Paid e1 to Paid.plain: ValueError(attempt 1)" in text
    assert "failure reported Paid e1 to Paid.plain after 1 attempt(s)" in text
    assert "closed returned (e1)" in text
    assert text.endswith("held back")


def test_a_long_trace_is_shortened_in_the_middle() -> None:
    text = str(trace(*(taken(str(number)) for number in range(500))))
    assert len(text.splitlines()) < 100
    assert "more ..." in text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Decimal("1.0"), Decimal("1.00")),
        (Decimal(0), Decimal("-0")),
        (Decimal("1E+3"), Decimal(1000)),
    ],
)
def test_tokens_of_equal_events_are_equal(one: Decimal, other: Decimal) -> None:
    event = Described(price=one)
    assert fingerprint(event) == fingerprint(
        Described(price=other, event_id=event.event_id, occurred_at=event.occurred_at)
    )


def test_tokens_tell_types_and_values_apart() -> None:
    event = Placed(number=1)
    same = {"event_id": event.event_id, "occurred_at": event.occurred_at}
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    shifted = noon.astimezone(timezone(timedelta(hours=5)))
    assert fingerprint(event) == fingerprint(Placed(number=1, **same))
    assert fingerprint(event) != fingerprint(Placed(number=2, **same))
    assert fingerprint(event) != fingerprint(Paid(number=1, **same))
    assert fingerprint(Described(at=noon, **same)) == fingerprint(Described(at=shifted, **same))
    assert fingerprint(Described(at=noon, **same)) != fingerprint(Described(at=noon.replace(hour=13), **same))
    assert fingerprint(Described(text="a", **same)) != fingerprint(Described(text="a\u0301", **same))
    assert fingerprint(Described(number=10**4000, **same)) != fingerprint(Described(number=10**4000 + 1, **same))
