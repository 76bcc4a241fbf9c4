"""Each law's judge upholds what the law allows and convicts what it forbids: on traces written by hand."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from tracing import (
    BLOCKING,
    BOTH,
    CRASHED,
    IDLE,
    LOGGED,
    RESTARTED,
    RETRYING,
    accepted,
    begun,
    broken,
    closed,
    closing,
    dispatched,
    failed,
    handled,
    kin,
    law,
    raised,
    refused,
    reported,
    started,
    succeeded,
    taken,
    trace,
)

from eventpact_contracts.laws import LAWS, Law
from eventpact_contracts.trace import Entry, Kind, Trace

EVENT = taken("a")
GOOD = (*EVENT, *handled("a", *BOTH), IDLE)


def rejected(exception: str, message: str) -> Entry:
    return Entry(kind=Kind.REJECTED, handler="a bad key", exception=kin(exception), note=message, token="Bad or Worse")


UPHELD: list[tuple[str, Trace]] = [
    ("R1", trace(GOOD)),
    ("R1", trace(taken("a", "Noted"), IDLE, taken("b"), handled("b", *BOTH))),
    # An event that arrived as another one is law R6's.
    ("R1", trace(EVENT, handled("x", *BOTH), IDLE)),
    ("R2", trace(taken("a", "Shipped"), handled("a", "Shipped.plain"))),
    ("R3", trace(GOOD)),
    # One event that was dispatched twice is two deliveries.
    ("R3", trace(EVENT, EVENT, handled("a", *BOTH), handled("a", *BOTH, attempt=2))),
    ("R4", trace(taken("a", "Noted"), IDLE)),
    ("R5", trace(GOOD)),
    ("R6", trace(GOOD)),
    ("R7", trace(GOOD)),
    ("I1", trace(EVENT, broken("a", "Paid.plain"), handled("a", "Paid.coroutine"))),
    ("I1", trace(dispatched("a"), broken("a", "Paid.plain"), refused("a", exception="DispatcherClosedError"))),
    ("I2", trace(EVENT, broken("a", "Paid.plain"), handled("a", "Paid.coroutine"))),
    ("I2", trace(EVENT, broken("a", "Paid.plain"), closing(), closed("a"), taken("b"), handled("b", *BOTH))),
    ("I3", trace(EVENT, broken("a", "Paid.plain"), reported("a", "Paid.plain"), handled("a", "Paid.coroutine"))),
    (
        "I3",
        trace(
            *(broken("a", "Paid.plain", attempt=number) for number in (1, 2, 3)),
            reported("a", "Paid.plain", attempts=3),
            dispatched("a"),
            accepted("a"),
            guarantees=RETRYING,
        ),
    ),
    ("I4", trace(EVENT, broken("a", *BOTH), reported("a", "Paid.plain"), LOGGED, reported("a", "Paid.coroutine"))),
    (
        "I5",
        trace(
            EVENT,
            started("a", "Paid.coroutine"),
            failed("a", "Paid.coroutine", exception="CancelledError", interruption=True),
            reported("a", "Paid.coroutine", exception="CancelledError"),
        ),
    ),
    (
        "I5",
        trace(
            EVENT,
            started("a", "Paid.coroutine"),
            closing(0),
            failed("a", "Paid.coroutine", exception="CancelledError", interruption=True),
            closed("a"),
        ),
    ),
    (
        "I5",
        trace(
            dispatched("a"),
            started("a", "Paid.plain"),
            failed("a", "Paid.plain", exception="KeyboardInterrupt", interruption=True),
            reported("a", "Paid.plain", exception="KeyboardInterrupt"),
            raised("a", "KeyboardInterrupt", interruption=True),
            guarantees=BLOCKING,
        ),
    ),
    ("A1", trace(dispatched("junk", "", note="None"), raised("junk", "TypeError", ""))),
    ("A2", trace(dispatched("a"), refused("a"), IDLE)),
    # Refused once, accepted when it was dispatched again.
    ("A2", trace(dispatched("a"), refused("a"), GOOD)),
    ("A2", trace(dispatched("a"), refused("a", exception="DispatchUncertainError"), handled("a", *BOTH))),
    ("A3", trace(closing(), begun(), dispatched("a"), refused("a", exception="DispatcherClosedError"), closed())),
    ("A4", trace(rejected("RegistrationError", "Worse is no event type; use a subclass of DomainEvent"))),
    ("A5", trace(dispatched("a", time=1.0), refused("a", time=2.9, bound=2.0))),
    ("C1", trace(taken("a", caller="one"), taken("b", caller="two"), handled("a", *BOTH), handled("b", *BOTH))),
    ("C2", trace(EVENT, handled("a", *BOTH), taken("b", "Placed", cause="a"), handled("b", "Placed.plain"))),
    ("C3", trace(GOOD, schedule="held back")),
    ("L1", trace(GOOD, closing(), closed())),
    ("L1", trace(EVENT, started("a", "Paid.plain"), closing(0), closed("a"), succeeded("a", "Paid.plain"))),
    ("L1", trace(EVENT, handled("a", "Paid.plain"), broken("a", "Paid.coroutine"), closing(), closed())),
    # What a broker has taken over is settled after closing.
    ("L1", trace(EVENT, closing(), closed(), handled("a", *BOTH), IDLE)),
    # A handler that ends in the very moment of closing need not have been noticed.
    ("L1", trace(EVENT, handled("a", *BOTH), closing(0), closed("a"))),
    ("L2", trace(GOOD, closing(), closed(), closing(), closed())),
    ("L2", trace(EVENT, started("a", "Paid.plain"), closing(0), closed("a"), closing(), closed())),
    ("L3", trace(closing(), dispatched("a"), refused("a", exception="DispatcherClosedError"), closed())),
    ("L3", trace(closing(), EVENT, closed("a"))),
    ("L3", trace(closing(), EVENT, handled("a", *BOTH), closed())),
    ("L4", trace(GOOD, closing(), closed())),
    ("G1", trace(dispatched("a"), handled("a", *BOTH), accepted("a"), guarantees=BLOCKING)),
    (
        "G2",
        trace(
            EVENT,
            handled("a", "Paid.coroutine"),
            started("a", "Paid.plain", 1, time=1.0),
            failed("a", "Paid.plain", 1, time=1.1),
            started("a", "Paid.plain", 2, time=1.2),
            failed("a", "Paid.plain", 2, time=1.3),
            started("a", "Paid.plain", 3, time=1.5),
            succeeded("a", "Paid.plain", 3, time=1.6),
            guarantees=RETRYING,
        ),
    ),
    ("G2", trace(EVENT, broken("a", *BOTH))),
    ("G3", trace(EVENT, started("a", "Paid.plain"), CRASHED, RESTARTED, handled("a", *BOTH), guarantees=RETRYING)),
    ("G3", trace(EVENT, started("a", "Paid.plain"), CRASHED, RESTARTED, IDLE)),
    (
        "G4",
        trace(
            taken("a", caller="one"),
            taken("b", caller="one"),
            handled("a", "Paid.plain"),
            handled("b", "Paid.plain"),
            guarantees=BLOCKING,
        ),
    ),
]

SILENT: list[tuple[str, str, Trace]] = [
    ("R3", "what failed may be tried again", trace(EVENT, broken("a", *BOTH), handled("a", *BOTH, attempt=2))),
    (
        "G4",
        "nothing is promised between callers",
        trace(taken("a", caller="one"), taken("b", caller="two"), handled("b", *BOTH), handled("a", *BOTH)),
    ),
    ("C3", "the usual order is no other order", trace(GOOD)),
    ("L2", "closed once is not closed again", trace(GOOD, closing(), closed())),
    ("L3", "what came before closing does not race it", trace(GOOD, closing(), closed())),
    ("C1", "one caller is not many", trace(GOOD)),
    ("I3", "nothing failed", trace(GOOD)),
]

VIOLATED: list[tuple[str, str, Trace]] = [
    ("R1", "Paid.coroutine never received it", trace(EVENT, handled("a", "Paid.plain"), IDLE)),
    ("R2", "delivered to Paid.plain, which is not subscribed", trace(taken("a", "Placed"), started("a", "Paid.plain"))),
    ("R3", "2 times", trace(EVENT, handled("a", *BOTH), handled("a", "Paid.plain", attempt=2))),
    ("R4", "was not accepted (refused: DispatchError)", trace(dispatched("a", "Noted"), refused("a", "Noted"))),
    ("R4", "was not accepted (raised: KeyError)", trace(dispatched("a", "Noted"), raised("a", "KeyError", "Noted"))),
    ("R4", "yet: attempt started", trace(taken("a", "Noted"), started("a", "Paid.plain"))),
    ("R5", "an async def handle, Paid.coroutine, did not complete", trace(EVENT, handled("a", "Paid.plain"))),
    ("R5", "a plain handle, Paid.plain, did not complete", trace(EVENT, handled("a", "Paid.coroutine"))),
    ("R6", "received another Paid e1", trace(EVENT, started("a", "Paid.plain", token="Paid b"))),
    ("R6", "an event that nobody dispatched", trace(EVENT, started("b", "Paid.plain"))),
    ("R7", "returned <Task>", trace(dispatched("a"), accepted("a", note="<Task>"))),
    (
        "I1",
        "the caller of dispatch got ValueError",
        trace(dispatched("a"), broken("a", *BOTH), raised("a", "ValueError")),
    ),
    ("I1", "the caller of dispatch got DispatchError", trace(dispatched("a"), broken("a", *BOTH), refused("a"))),
    ("I2", "Paid.coroutine never received Paid e1", trace(EVENT, broken("a", "Paid.plain"), IDLE)),
    ("I2", "never received Placed e2", trace(EVENT, broken("a", *BOTH), taken("b", "Placed"), IDLE)),
    ("I2", "never received Paid e1", trace(dispatched("a"), broken("a", "Paid.plain"), raised("a", "ValueError"))),
    ("I3", "never reported", trace(EVENT, broken("a", *BOTH), IDLE)),
    (
        "I3",
        "2 times",
        trace(EVENT, broken("a", "Paid.plain"), reported("a", "Paid.plain"), reported("a", "Paid.plain")),
    ),
    ("I3", "succeeded, and was reported", trace(GOOD, reported("a", "Paid.plain"))),
    (
        "I3",
        "with 3 attempt(s) instead of 1",
        trace(EVENT, broken("a", "Paid.plain"), reported("a", "Paid.plain", attempts=3)),
    ),
    (
        "I3",
        "instead of ValueError",
        trace(EVENT, broken("a", "Paid.plain"), reported("a", "Paid.plain", exception="Oh")),
    ),
    ("I3", "another event", trace(EVENT, broken("a", "Paid.plain"), reported("a", "Paid.plain", token="Paid b"))),
    ("I3", "another handler", trace(EVENT, broken("a", "Paid.plain"), reported("a", "Shipped.plain"))),
    ("I4", "nothing was logged", trace(EVENT, broken("a", *BOTH), *(reported("a", name) for name in BOTH))),
    ("I4", "never received", trace(EVENT, broken("a", "Paid.plain"), reported("a", "Paid.plain"), LOGGED)),
    ("I4", "was not reported any more", trace(EVENT, broken("a", *BOTH), reported("a", "Paid.plain"), LOGGED)),
    (
        "I4",
        "raised RuntimeError",
        trace(dispatched("a"), broken("a", *BOTH), reported("a", "Paid.plain"), LOGGED, raised("a", "RuntimeError")),
    ),
    (
        "I5",
        "neither reported, nor tried again, nor returned",
        trace(
            EVENT,
            started("a", "Paid.coroutine"),
            failed("a", "Paid.coroutine", exception="CancelledError", interruption=True),
            IDLE,
        ),
    ),
    (
        "I5",
        "the caller, who waits, never saw it",
        trace(
            dispatched("a"),
            started("a", "Paid.plain"),
            failed("a", "Paid.plain", exception="SystemExit", interruption=True),
            reported("a", "Paid.plain", exception="SystemExit"),
            accepted("a"),
            guarantees=BLOCKING,
        ),
    ),
    ("A1", "None is no event, and dispatch accepted it", trace(dispatched("j", "", note="None"), accepted("j", ""))),
    ("A1", "KeyError instead of TypeError", trace(dispatched("j", "", note="None"), raised("j", "KeyError", ""))),
    ("A1", "was delivered to", trace(dispatched("j", ""), raised("j", "TypeError", ""), started("j", "Paid.plain"))),
    ("A2", "refused, and delivered to Paid.plain", trace(dispatched("a"), started("a", "Paid.plain"), refused("a"))),
    ("A3", "was accepted", trace(closing(), begun(), EVENT, closed("a"))),
    ("A3", "instead of DispatcherClosedError", trace(closing(), begun(), dispatched("a"), refused("a"), closed())),
    (
        "A3",
        "it was delivered to",
        trace(
            closing(),
            begun(),
            dispatched("a"),
            refused("a", exception="DispatcherClosedError"),
            handled("a", "Paid.plain"),
        ),
    ),
    ("A4", "a dispatcher was built with a bad key", trace(Entry(kind=Kind.BUILT, note="a bad key"))),
    ("A4", "TypeError instead of RegistrationError", trace(rejected("TypeError", "Bad"))),
    ("A4", "does not name what is wrong", trace(rejected("RegistrationError", "it is not possible"))),
    ("A5", "never returned", trace(dispatched("a"))),
    ("A5", "2 s are allowed", trace(dispatched("a", time=1.0), refused("a", time=3.5, bound=2.0))),
    ("A5", "OSError instead of a DispatchError", trace(dispatched("a"), raised("a", "OSError"))),
    (
        "A5",
        "left behind",
        trace(dispatched("a"), refused("a"), Entry(kind=Kind.LEFT, note="RuntimeWarning: it was never awaited")),
    ),
    ("C1", "lost: Paid.plain", trace(taken("a", caller="1"), taken("b", caller="2"), handled("b", *BOTH))),
    (
        "C1",
        "doubled",
        trace(taken("a", "Placed", caller="1"), handled("a", "Placed.plain"), started("a", "Placed.plain", 2)),
    ),
    ("C1", "dispatch raised RuntimeError", trace(dispatched("a", caller="1"), raised("a", "RuntimeError", caller="1"))),
    ("C2", "never returned: a deadlock", trace(EVENT, handled("a", *BOTH), dispatched("b", cause="a"))),
    ("C2", "1 deep in a cascade", trace(EVENT, handled("a", *BOTH), taken("b", cause="a"), IDLE)),
    (
        "C2",
        "RecursionError in Placed.plain",
        trace(
            EVENT,
            handled("a", *BOTH),
            taken("b", "Placed", cause="a"),
            started("b", "Placed.plain"),
            failed("b", "Placed.plain", exception="RecursionError"),
        ),
    ),
    ("C3", "R1 does not hold on this schedule", trace(EVENT, schedule="held back")),
    ("C3", "L1 does not hold on this schedule", trace(EVENT, closing(), closed(), schedule="held back", virtual=True)),
    ("L1", "aclose did not return it", trace(EVENT, handled("a", "Paid.plain"), closing(), closed(), IDLE)),
    (
        "L1",
        "never came to an end with it",
        trace(EVENT, handled("a", "Paid.plain"), started("a", "Paid.coroutine"), closing(0), closed()),
    ),
    (
        "L1",
        "though all its deliveries were settled",
        trace(EVENT, handled("a", *BOTH), closing(0, time=1.0), closed("a", time=1.2)),
    ),
    ("L1", "and then Paid.plain received it", trace(EVENT, closing(0), closed("a"), started("a", "Paid.plain"))),
    ("L1", "which it never accepted", trace(dispatched("a"), refused("a"), closing(0), closed("a"))),
    ("L1", "2 times", trace(EVENT, closing(0), closed("a", "a"))),
    ("L1", "past its deadline", trace(GOOD, closing(1.0, time=1.0), closed(time=3.5))),
    ("L1", "before its deadline", trace(EVENT, closing(5.0, time=1.0), closed("a", time=1.1))),
    ("L1", "aclose raised RuntimeError", trace(GOOD, closing(), raised("", "RuntimeError", ""))),
    ("L2", "closing again returned Paid e1", trace(EVENT, closing(0), closed("a"), closing(0), closed("a"))),
    ("L2", "aclose raised RuntimeError", trace(GOOD, closing(), closed(), closing(), raised("", "RuntimeError", ""))),
    ("L3", "aclose did not return it", trace(closing(), EVENT, closed(), IDLE)),
    ("L3", "dispatch raised RuntimeError", trace(closing(), dispatched("a"), raised("a", "RuntimeError"), closed())),
    ("L4", "left behind: the thread", trace(GOOD, closing(), closed(), Entry(kind=Kind.LEFT, note="the thread x"))),
    ("G1", "had not settled Paid e1", trace(dispatched("a"), handled("a", "Paid.plain"), accepted("a"))),
    (
        "G1",
        "had not settled Placed e2",
        trace(
            dispatched("a"),
            handled("a", *BOTH),
            taken("b", "Placed", cause="a", caller="Paid.plain"),
            accepted("a"),
            handled("b", "Placed.plain"),
        ),
    ),
    (
        "G2",
        "had 2 attempts, and 1 are allowed",
        trace(EVENT, broken("a", "Paid.plain"), broken("a", "Paid.plain", attempt=2)),
    ),
    (
        "G2",
        "1 attempt(s) that failed, and 3 are promised",
        trace(EVENT, broken("a", "Paid.plain"), guarantees=RETRYING),
    ),
    (
        "G2",
        "though attempt 1 had succeeded",
        trace(EVENT, handled("a", "Paid.plain"), handled("a", "Paid.plain", attempt=2), guarantees=RETRYING),
    ),
    (
        "G2",
        "do not grow",
        trace(
            EVENT,
            started("a", "Paid.plain", 1, time=1.0),
            failed("a", "Paid.plain", 1, time=1.1),
            started("a", "Paid.plain", 2, time=1.2),
            failed("a", "Paid.plain", 2, time=1.3),
            started("a", "Paid.plain", 3, time=1.4),
            succeeded("a", "Paid.plain", 3, time=1.5),
            guarantees=RETRYING,
        ),
    ),
    (
        "G3",
        "accepted, and lost",
        trace(EVENT, handled("a", "Paid.coroutine"), CRASHED, RESTARTED, IDLE, guarantees=RETRYING),
    ),
    (
        "G3",
        "before the crash, and again after it",
        trace(EVENT, started("a", "Paid.plain"), CRASHED, RESTARTED, started("a", "Paid.plain")),
    ),
    (
        "G4",
        "which one dispatched first",
        trace(
            taken("a", caller="one"),
            taken("b", caller="one"),
            handled("b", "Paid.plain"),
            handled("a", "Paid.plain"),
            guarantees=BLOCKING,
        ),
    ),
]


@pytest.mark.parametrize(("law_id", "allowed"), UPHELD, ids=[law_id for law_id, _ in UPHELD])
def test_a_judge_upholds_what_its_law_allows_and_has_seen_what_it_is_about(law_id: str, allowed: Trace) -> None:
    violation = law(law_id).judge(allowed)
    assert violation is None, violation.message
    assert law(law_id).observations(allowed) > 0


@pytest.mark.parametrize(("law_id", "why", "beside"), SILENT, ids=[why for _, why, _ in SILENT])
def test_a_judge_does_not_count_what_its_law_is_not_about(law_id: str, why: str, beside: Trace) -> None:
    assert law(law_id).judge(beside) is None
    assert law(law_id).observations(beside) == 0


@pytest.mark.parametrize(("law_id", "message", "forbidden"), VIOLATED, ids=[law_id for law_id, _, _ in VIOLATED])
def test_a_judge_convicts_what_its_law_forbids_and_says_why(law_id: str, message: str, forbidden: Trace) -> None:
    violation = law(law_id).judge(forbidden)
    assert violation is not None
    assert violation.law_id == law_id
    assert message in violation.message
    assert violation.trace is forbidden


@pytest.mark.parametrize("each", LAWS, ids=[each.id for each in LAWS])
def test_every_law_has_traces_for_both_sides(each: Law) -> None:
    assert any(allowed == each.id for allowed, _ in UPHELD)
    assert any(forbidden == each.id for forbidden, _, _ in VIOLATED)


@pytest.mark.parametrize("each", LAWS, ids=[each.id for each in LAWS])
def test_nothing_is_upheld_where_nothing_happened(each: Law) -> None:
    empty = trace(IDLE)
    assert each.judge(empty) is None
    assert each.observations(empty) == 0


def test_what_is_not_promised_is_seen_to_be_absent_by_a_witness() -> None:
    one_attempt = law("G2").witness
    loss = law("G3").witness
    assert one_attempt is not None
    assert loss is not None
    assert "exactly one attempt" in (one_attempt(trace(EVENT, broken("a", *BOTH))) or "")
    assert one_attempt(trace(GOOD)) is None
    assert "never completed it" in (loss(trace(EVENT, CRASHED, RESTARTED, IDLE)) or "")
    assert loss(trace(GOOD, CRASHED)) is None


def test_titles_and_promises_are_in_the_words_of_the_contract() -> None:
    text = files("eventpact_contracts").joinpath("CONTRACT.md").read_text("utf-8")
    words = dict(re.findall(r"^- \*\*([A-Z]\d+ [a-z_ ]+)\*\*: (.*)$", text, re.MULTILINE))
    of_dispatchers = {key: said for key, said in words.items() if not key.startswith("X")}
    assert [f"{each.id} {each.title}" for each in LAWS] == list(of_dispatchers)
    assert [each.promise for each in LAWS] == list(of_dispatchers.values())
