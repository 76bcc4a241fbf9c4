"""Each law's judge upholds what the law allows and convicts what it forbids: on traces written by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from support.tracing import (
    BLOCKING,
    BOTH,
    CRASHED,
    IDLE,
    LOGGED,
    MODEST,
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

from eventpact.domain.dispatcher import Guarantees
from eventpact_contracts.driver import probes
from eventpact_contracts.driver.gates import run_awaiting
from eventpact_contracts.driver.trace import Entry, Kind, Trace
from eventpact_contracts.laws import LAWS, Law
from eventpact_contracts.laws.view import TraceView
from eventpact_contracts.scenarios.events import RETURNED_COROUTINES

NESTED = dispatched("b", cause="a")
NESTED_JUNK = dispatched("j", "", cause="a", note="None")
OVERDUE = Entry(kind=Kind.OVERDUE, time=9.0, caller="closer")
CLOSING_CANCELLED = (closing(), begun(), Entry(kind=Kind.CANCELLED, caller="closer"))
JUDGEMENTS = Path(__file__).with_name("judgements.txt")
EVENT = taken("a")
GOOD = (*EVENT, *handled("a", *BOTH), IDLE)
FAILED = (*handled("a", "Paid.coroutine"), *broken("a", "Paid.plain"))
UNREPORTED = (dispatched("a"), *FAILED, accepted("a"))
GOOD_B = (*taken("b"), *handled("b", *BOTH))
CANCELLED = (
    started("a", "Paid.coroutine"),
    failed("a", "Paid.coroutine", exception="CancelledError", interruption=True),
)
CANCELLED_REPORT = reported("a", "Paid.coroutine", exception="CancelledError")
INTERRUPTED = (
    started("a", "Paid.plain"),
    failed("a", "Paid.plain", exception="KeyboardInterrupt", interruption=True),
)
INTERRUPTED_REPORT = reported("a", "Paid.plain", exception="KeyboardInterrupt")
INTERRUPTED_CALL = raised("a", "KeyboardInterrupt", interruption=True)


def rejected(exception: str, message: str) -> Entry:
    return Entry(kind=Kind.REJECTED, handler="a bad key", exception=kin(exception), note=message, token="Bad or Worse")


def tried(*waits: float) -> tuple[Entry, ...]:
    """Attempts that take a second each, so many seconds after one another; the last of them succeeds."""
    time, entries = 1.0, list[Entry]()
    for number, wait in enumerate(waits, start=1):
        entries += started("a", "Paid.plain", number, time=time), failed("a", "Paid.plain", number, time=time + 1)
        time += 1 + wait
    last = len(waits) + 1
    return *entries, started("a", "Paid.plain", last, time=time), succeeded("a", "Paid.plain", last, time=time + 1)


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
    # One that nobody handles says nothing of those that come after it.
    ("R4", trace(taken("a"), taken("b", "Noted"), handled("a", *BOTH), IDLE)),
    ("R5", trace(GOOD, taken("b", "Shipped"), handled("b", "Shipped.plain"))),
    ("R5", trace(GOOD, taken("b", "Priced"), handled("b", "Priced.coroutine"))),
    ("I1", trace(EVENT, broken("a", "Paid.plain"), handled("a", "Paid.coroutine"))),
    (
        "I1",
        trace(dispatched("a"), broken("a", "Paid.plain"), closing(), refused("a", exception="DispatcherClosedError")),
    ),
    # While it was called, nothing failed: it is refused for another reason.
    ("I1", trace(EVENT, broken("a", *BOTH), dispatched("b"), refused("b"))),
    # Refused for being full, say, while a handler of another event failed.
    ("I1", trace(EVENT, dispatched("b"), broken("a", *BOTH), refused("b"))),
    ("I2", trace(EVENT, broken("a", "Paid.plain"), handled("a", "Paid.coroutine"))),
    (
        "I2",
        trace(
            EVENT,
            broken("a", "Paid.plain"),
            started("a", "Paid.coroutine"),
            dispatched("b"),
            started("b", "Paid.plain"),
            refused("b"),
        ),
    ),
    ("I2", trace(EVENT, broken("a", "Paid.plain"), handled("a", "Paid.coroutine"), dispatched("b"), raised("b", "Oh"))),
    ("I3", trace(EVENT, broken("a", "Paid.plain"), reported("a", "Paid.plain"), handled("a", "Paid.coroutine"))),
    # One that has not ended has not failed, and one that never began is reported with no attempt.
    ("I3", trace(EVENT, started("a", "Paid.plain"), broken("a", "Paid.coroutine"), reported("a", "Paid.coroutine"))),
    (
        "I3",
        trace(EVENT, broken("a", "Paid.plain"), reported("a", "Paid.plain"), reported("b", "Paid.plain", attempts=0)),
    ),
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
    # An interrupted delivery is reported like any other, whoever saw the interruption; or closing returns its event.
    ("I3", trace(EVENT, CANCELLED, CANCELLED_REPORT, broken("a", "Paid.plain"), reported("a", "Paid.plain"))),
    ("I3", trace(EVENT, CANCELLED, closing(), closed("a"), broken("a", "Paid.plain"), reported("a", "Paid.plain"))),
    (
        "I3",
        trace(
            dispatched("a"),
            INTERRUPTED,
            handled("a", "Paid.coroutine"),
            INTERRUPTED_REPORT,
            INTERRUPTED_CALL,
            taken("b", "Placed"),
            broken("b", "Placed.plain"),
            reported("b", "Placed.plain"),
        ),
    ),
    (
        "I4",
        trace(
            *(EVENT, broken("a", *BOTH), reported("a", "Paid.plain"), LOGGED, reported("a", "Paid.coroutine")),
            sink_raises=True,
        ),
    ),
    # What succeeded is not reported.
    (
        "I4",
        trace(
            *(EVENT, broken("a", "Paid.plain"), reported("a", "Paid.plain"), LOGGED, handled("a", "Paid.coroutine")),
            sink_raises=True,
        ),
    ),
    (
        "I5",
        trace(
            EVENT,
            handled("a", "Paid.plain"),
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
            handled("a", "Paid.coroutine"),
            raised("a", "KeyboardInterrupt", interruption=True),
            guarantees=BLOCKING,
        ),
    ),
    (
        "I5",
        trace(
            EVENT,
            started("a", "Paid.plain"),
            failed("a", "Paid.plain", exception="KeyboardInterrupt", interruption=True),
            reported("a", "Paid.plain", exception="KeyboardInterrupt"),
            handled("a", "Paid.coroutine"),
            guarantees=None,
        ),
    ),
    # An interruption reaches the caller who waits for it (law I5), whatever else has failed meanwhile.
    (
        "I1",
        trace(
            dispatched("a"),
            INTERRUPTED,
            INTERRUPTED_REPORT,
            broken("a", "Paid.coroutine"),
            reported("a", "Paid.coroutine"),
            INTERRUPTED_CALL,
            guarantees=BLOCKING,
        ),
    ),
    ("A1", trace(dispatched("junk", "", note="None"), raised("junk", "TypeError", ""))),
    ("A1", trace(EVENT, dispatched("junk", "", note="None"), raised("junk", "TypeError", ""), handled("a", *BOTH))),
    ("A1", trace(EVENT, NESTED_JUNK, raised("j", "TypeError", ""), handled("a", *BOTH))),
    ("A2", trace(dispatched("a"), refused("a"), IDLE)),
    # One that never returned was not refused.
    ("A2", trace(dispatched("b"), started("b", "Paid.plain"), dispatched("a"), refused("a"), IDLE)),
    # Refused once, accepted when it was dispatched again.
    ("A2", trace(dispatched("a"), refused("a"), GOOD)),
    ("A2", trace(dispatched("a"), refused("a", exception="DispatchUncertainError"), handled("a", *BOTH))),
    ("A3", trace(closing(), begun(), dispatched("a"), refused("a", exception="DispatcherClosedError"), closed())),
    ("A3", trace(EVENT, CLOSING_CANCELLED, dispatched("b"), refused("b", exception="DispatcherClosedError"))),
    # What comes before closing, and what is no event, are not its.
    (
        "A3",
        trace(
            EVENT,
            begun(),
            dispatched("j", ""),
            raised("j", "TypeError", ""),
            dispatched("b"),
            refused("b", exception="DispatcherClosedError"),
        ),
    ),
    ("A4", trace(rejected("RegistrationError", "Worse is no event type; use a subclass of DomainEvent"))),
    ("A5", trace(dispatched("a", time=1.0), refused("a", time=2.9, bound=2.0))),
    ("A5", trace(dispatched("a", time=1.0), refused("a", time=3.0, bound=2.0))),
    ("A5", trace(EVENT, dispatched("b"), refused("b"), Entry(kind=Kind.LEFT, note="the thread x"))),
    # Whom it may call without a loop, it calls.
    ("A5", trace(EVENT, handled("a", *BOTH), dispatched("b"), refused("b"), hindrance="a loop that is stopped")),
    ("A5", trace(EVENT, dispatched("b"), refused("b"), hindrance="an engine that is unavailable")),
    ("C1", trace(taken("a", caller="one"), taken("b", caller="two"), handled("a", *BOTH), handled("b", *BOTH))),
    ("C2", trace(EVENT, handled("a", *BOTH), taken("b", "Placed", cause="a"), handled("b", "Placed.plain"))),
    # A handler complains of a depth of its own.
    (
        "C2",
        trace(
            EVENT,
            handled("a", *BOTH),
            taken("b", "Placed", cause="a"),
            started("b", "Placed.plain"),
            failed("b", "Placed.plain", exception="DepthError"),
        ),
    ),
    (
        "C2",
        trace(EVENT, NESTED_JUNK, raised("j", "TypeError", ""), NESTED, accepted("b"), handled("a", *BOTH), GOOD_B[2:]),
    ),
    (
        "C1",
        trace(
            taken("a", caller="one"),
            taken("d", caller="one"),
            dispatched("b", caller="two"),
            refused("b", caller="two"),
            dispatched("c", caller="two"),
            refused("c", caller="two"),
            handled("a", *BOTH),
            handled("d", *BOTH),
        ),
    ),
    # In a thread there is no loop.
    (
        "C1",
        trace(
            taken("a", caller="1"),
            dispatched("b", caller="2"),
            refused("b", caller="2"),
            handled("a", *BOTH),
            on_loop=True,
        ),
    ),
    (
        "C2",
        trace(
            taken("a", "Placed"),
            handled("a", "Placed.plain"),
            taken("b", "Placed", cause="a"),
            handled("b", "Placed.plain"),
            taken("c", "Placed", cause="b"),
            handled("c", "Placed.plain"),
        ),
    ),
    ("C3", trace(GOOD, schedule="held back")),
    ("L1", trace(GOOD, closing(), closed())),
    # A plain handler ends in its thread when its waiter on the loop was given up.
    ("L1", trace(taken("b", "Placed"), closing(0), handled("b", "Placed.plain"), closed("b"), on_loop=True)),
    ("I3", trace(taken("b", "Placed"), broken("b", "Placed.plain"), closing(0), closed("b"), on_loop=True)),
    ("L1", trace(EVENT, started("a", "Paid.plain"), closing(0), closed("a"), succeeded("a", "Paid.plain"))),
    ("L1", trace(EVENT, handled("a", "Paid.plain"), broken("a", "Paid.coroutine"), closing(), closed())),
    # What a broker has taken over is settled after closing.
    ("L1", trace(EVENT, closing(), closed(), handled("a", *BOTH), IDLE, outlives=True)),
    # A handler that ends in the very moment of closing need not have been noticed.
    ("L1", trace(EVENT, handled("a", *BOTH), closing(0), closed("a"))),
    ("L1", trace(EVENT, broken("a", *BOTH), closing(), closed(), guarantees=None)),
    # A delivery that succeeded needs no more attempts.
    ("L1", trace(GOOD, closing(), closed(), guarantees=RETRYING)),
    # On a clock that stands still, a handler that ends after closing ends at the same time as closing.
    (
        "L1",
        trace(
            EVENT,
            handled("a", "Paid.coroutine"),
            started("a", "Paid.plain"),
            closing(0, time=1.0),
            closed("a", time=1.0),
            succeeded("a", "Paid.plain", time=1.0),
            virtual=True,
        ),
    ),
    ("L1", trace(EVENT, closing(5.0, time=1.0), closed("a", time=6.0), virtual=True)),
    # What was waited for in vain before closing began is no closing that did not return.
    ("L1", trace(GOOD, OVERDUE, closing(time=9.1), closed(time=9.2))),
    # Both clocks are read a moment apart.
    ("L1", trace(EVENT, closing(5.0, time=1.0), closed("a", time=5.97))),
    ("L1", trace(EVENT, closing(5.0, time=1.0), closed("a", time=6.99))),
    ("L1", trace(EVENT, handled("a", *BOTH), closing(5.0, time=1.0), closed(time=7.0))),
    # The first call has the deadline; how long another one takes says nothing.
    ("L1", trace(GOOD, closing(5.0, time=1.0), closed(caller="other", time=9.0), closed(time=9.5, bound=3.0))),
    # It had no time to wait for the report, or the engine makes it.
    ("L1", trace(UNREPORTED, closing(0.0, time=1.0), closed(time=1.5), reported("a", "Paid.plain", time=1.6))),
    ("L1", trace(UNREPORTED, closing(), closed(), reported("a", "Paid.plain"), outlives=True)),
    # One of its deliveries has failed, the other is undelivered.
    ("L1", trace(EVENT, broken("a", "Paid.plain"), closing(0), reported("a", "Paid.plain"), closed("a"))),
    # Of two deliveries of one event, one has failed.
    (
        "L1",
        trace(
            taken("a", "Placed"),
            taken("a", "Placed"),
            broken("a", "Placed.plain"),
            closing(0),
            reported("a", "Placed.plain"),
            closed("a"),
        ),
    ),
    ("L2", trace(GOOD, closing(), closed(), closing(), closed())),
    ("L2", trace(EVENT, started("a", "Paid.plain"), closing(0), closed("a"), closing(), closed())),
    # What was running when it was given up may end afterwards.
    (
        "L2",
        trace(
            EVENT,
            started("a", "Paid.plain"),
            closing(0),
            closed("a"),
            closing(),
            closed(),
            succeeded("a", "Paid.plain"),
        ),
    ),
    ("L3", trace(closing(), dispatched("a"), refused("a", exception="DispatcherClosedError"), closed())),
    # That closing did not return is law L1's.
    ("L3", trace(closing(), dispatched("a"), refused("a", exception="DispatcherClosedError"))),
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
    # The last wait is longer by just the factor that is asked for.
    ("G2", trace(EVENT, tried(5, 6), guarantees=RETRYING)),
    # It was due after a second or less, and waited for another delivery.
    (
        "G2",
        trace(
            taken("b", "Placed", time=2.0),
            EVENT,
            started("b", "Placed.plain", time=3.0),
            succeeded("b", "Placed.plain", time=4.0),
            tried(3, 2),
            guarantees=RETRYING,
        ),
    ),
    ("G1", trace(dispatched("a"), handled("a", *BOTH), accepted("a"), dispatched("b"), guarantees=BLOCKING)),
    # Closing may have let the caller go.
    ("G1", trace(dispatched("a"), FAILED, closing(), accepted("a"), reported("a", "Paid.plain"), guarantees=BLOCKING)),
    # Refused once, accepted when it was dispatched again: the first call has caused nothing.
    (
        "G1",
        trace(dispatched("a"), refused("a"), dispatched("a"), handled("a", *BOTH), accepted("a"), guarantees=BLOCKING),
    ),
    ("G2", trace(EVENT, broken("a", *BOTH))),
    ("G2", trace(EVENT, broken("a", *BOTH), guarantees=None)),
    # Its caller took a handler's exception for doubt, and dispatched it again at once: no retry that has to wait.
    ("G2", trace((dispatched("a"), refused("a", exception="DispatchUncertainError")) * 3, tried(1, 1))),
    ("G3", trace(EVENT, started("a", "Paid.plain"), CRASHED, RESTARTED, handled("a", *BOTH), guarantees=RETRYING)),
    ("G3", trace(EVENT, started("a", "Paid.plain"), CRASHED, RESTARTED, IDLE)),
    # One was settled before the crash, two were not, and one came after it.
    (
        "G3",
        trace(
            taken("a", "Placed"),
            handled("a", "Placed.plain"),
            taken("b", "Placed"),
            taken("c", "Shipped"),
            broken("c", "Shipped.plain"),
            CRASHED,
            RESTARTED,
            taken("d", "Placed"),
            handled("d", "Placed.plain"),
        ),
    ),
    (
        "G1",
        trace(
            dispatched("a"),
            taken("b", "Placed", cause="a", caller="Paid.plain"),
            handled("b", "Placed.plain"),
            handled("a", *BOTH),
            accepted("a"),
            taken("c", "Noted"),
            guarantees=BLOCKING,
        ),
    ),
    (
        "G4",
        trace(
            taken("a", "Placed", caller="one"),
            taken("x", "Placed", caller="one", cause="a"),
            taken("b", "Placed", caller="one"),
            broken("a", "Placed.plain"),
            handled("a", "Placed.plain", attempt=2),
            handled("b", "Placed.plain"),
            handled("x", "Placed.plain"),
            guarantees=BLOCKING,
        ),
    ),
    # What a handler dispatches has no place in the order of a caller, nor has what was not handled.
    (
        "G4",
        trace(
            *(taken(event, "Placed", caller="one") for event in "abc"),
            handled("a", "Placed.plain"),
            taken("x", "Placed", caller="one", cause="a"),
            handled("x", "Placed.plain"),
            handled("b", "Placed.plain"),
            guarantees=BLOCKING,
        ),
    ),
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
    ("R5", "what fails shows nothing of its kind", trace(EVENT, broken("a", *BOTH))),
    ("I2", "what closing leaves out is law L1's", trace(EVENT, broken("a", "Paid.plain"), closing(), closed("a"))),
    (
        "I2",
        "the neighbours of an interruption are law I5's",
        trace(dispatched("a"), INTERRUPTED, handled("a", "Paid.coroutine"), INTERRUPTED_CALL, GOOD_B),
    ),
    # One whose dispatch never returned is law A5's.
    (
        "I3",
        "an event whose dispatch raised its handler's exception is law I1's",
        trace(dispatched("b"), dispatched("a"), broken("a", *BOTH), raised("a", "ValueError")),
    ),
    (
        "I3",
        "one that waits for its next attempt when the dispatcher closes has not failed",
        trace(EVENT, broken("a", "Paid.plain"), closing(0), closed("a"), guarantees=RETRYING),
    ),
    ("I4", "the sink did not raise", trace(EVENT, broken("a", *BOTH), reported("a", "Paid.plain"))),
    ("C2", "what is no event is no part of a cascade", trace(EVENT, NESTED_JUNK, raised("j", "TypeError", ""))),
    ("C2", "what is refused outside of a cascade", trace(dispatched("a"), refused("a", note="full"))),
    ("R3", "a crash may double", trace(EVENT, handled("a", *BOTH), CRASHED, handled("a", *BOTH, attempt=2))),
    ("A3", "closing had not begun", trace(GOOD)),
    ("A5", "it was closed", trace(dispatched("a"), refused("a", exception="DispatcherClosedError"))),
    ("L1", "closing was cancelled", trace(EVENT, CLOSING_CANCELLED, handled("a", *BOTH), IDLE)),
    ("L3", "closing was cancelled", trace(EVENT, CLOSING_CANCELLED, dispatched("b"), raised("b", "RuntimeError"))),
    ("L1", "it was not closed", trace(GOOD)),
    ("L4", "nothing was ever handled", trace(EVENT, closing(), closed("a"))),
    ("R3", "what failed may be tried again", trace(EVENT, broken("a", *BOTH), handled("a", *BOTH, attempt=2))),
    (
        "G4",
        "nothing is promised between callers",
        trace(taken("a", caller="one"), taken("b", caller="two"), handled("b", *BOTH), handled("a", *BOTH)),
    ),
    ("C3", "the usual order is no other order", trace(GOOD)),
    (
        "L4",
        "a coroutine that a plain handler returned to a loop when it was given up",
        trace(
            *taken("a"),
            closing(),
            closed("a"),
            Entry(Kind.LEFT, note=f"coroutine {RETURNED_COROUTINES[0]} was never awaited"),
            on_loop=True,
        ),
    ),
    ("L2", "closed once is not closed again", trace(GOOD, closing(), closed())),
    (
        "L3",
        "what comes after closing does not race it",
        trace(closing(), closed(), dispatched("a"), refused("a", exception="DispatcherClosedError")),
    ),
    ("L3", "what came before closing does not race it", trace(GOOD, closing(), closed())),
    ("C1", "one caller is not many", trace(GOOD)),
    ("I3", "nothing failed", trace(GOOD)),
]

VIOLATED: list[tuple[str, str, Trace]] = [
    ("R1", "Paid.coroutine never received it", trace(EVENT, handled("a", "Paid.plain"), IDLE)),
    ("R2", "delivered to Paid.plain, which is not subscribed", trace(taken("a", "Placed"), started("a", "Paid.plain"))),
    # One that nobody dispatched, which is law R6's, hides nothing.
    ("R2", "not subscribed", trace(started("x", "Paid.plain"), taken("a", "Placed"), started("a", "Paid.plain"))),
    ("R3", "2 times", trace(EVENT, handled("a", *BOTH), handled("a", "Paid.plain", attempt=2))),
    ("R4", "was not accepted (refused: DispatchError)", trace(dispatched("a", "Noted"), refused("a", "Noted"))),
    ("R4", "was not accepted (raised: KeyError)", trace(dispatched("a", "Noted"), raised("a", "KeyError", "Noted"))),
    ("R4", "was not accepted (never returned)", trace(EVENT, dispatched("b", "Noted"))),
    ("R4", "yet: failure reported", trace(taken("a", "Noted"), reported("a", ""))),
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
    (
        "I1",
        "Paid.plain failed",
        trace(dispatched("x"), EVENT, dispatched("b"), broken("b", *BOTH), raised("b", "ValueError")),
    ),
    ("I2", "Paid.coroutine never received Paid e1", trace(EVENT, broken("a", "Paid.plain"), IDLE)),
    ("I2", "never received Placed e2", trace(EVENT, broken("a", *BOTH), taken("b", "Placed"), IDLE)),
    ("I2", "never received Paid e1", trace(dispatched("a"), broken("a", "Paid.plain"), raised("a", "ValueError"))),
    # Of several failures, that of the same event is named.
    (
        "I2",
        "Paid.coroutine never received Paid e2, after Paid.plain had failed with Paid e2",
        trace(taken("x", "Placed"), broken("x", "Placed.plain"), EVENT, broken("a", "Paid.plain"), IDLE),
    ),
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
    (
        "I3",
        "Paid.plain's delivery of Paid e1 failed, and was never reported",
        trace(EVENT, broken("a", *BOTH), reported("a", "Paid.coroutine")),
    ),
    ("I3", "which never had the event", trace(GOOD, reported("a", "Shipped.plain"))),
    ("I3", "a handler was reported to have failed", trace(GOOD, reported("a", ""))),
    # Neither one that succeeded, nor one that did not end, nor one that was interrupted says anything of the next.
    *(
        (
            "I3",
            "Placed.plain's delivery of Placed e2 failed",
            trace(EVENT, beside, taken("b", "Placed"), broken("b", "Placed.plain")),
        )
        for beside in (handled("a", *BOTH), (started("a", "Paid.plain"),), CANCELLED)
    ),
    (
        "I3",
        "with no exception",
        trace(EVENT, broken("a", "Paid.plain"), reported("a", "Paid.plain")._replace(exception=())),
    ),
    ("I3", "another event", trace(EVENT, broken("a", "Paid.plain"), reported("a", "Paid.plain", token="Paid b"))),
    ("I3", "another handler", trace(EVENT, broken("a", "Paid.plain"), reported("a", "Shipped.plain"))),
    (
        "I4",
        "nothing was logged",
        trace(EVENT, broken("a", *BOTH), *(reported("a", name) for name in BOTH), sink_raises=True),
    ),
    (
        "I4",
        "never received",
        trace(EVENT, broken("a", "Paid.plain"), reported("a", "Paid.plain"), LOGGED, sink_raises=True),
    ),
    (
        "I4",
        "was not reported any more",
        trace(EVENT, broken("a", *BOTH), reported("a", "Paid.plain"), LOGGED, sink_raises=True),
    ),
    (
        "I4",
        "raised RuntimeError",
        trace(
            *(dispatched("a"), broken("a", *BOTH), reported("a", "Paid.plain"), LOGGED, raised("a", "RuntimeError")),
            sink_raises=True,
        ),
    ),
    ("I3", "was reported 2 times", trace(EVENT, CANCELLED, CANCELLED_REPORT, CANCELLED_REPORT)),
    (
        "I3",
        "was reported 3 times",
        trace(dispatched("a"), INTERRUPTED, *3 * [INTERRUPTED_REPORT], INTERRUPTED_CALL, guarantees=BLOCKING),
    ),
    (
        "I3",
        "with 7 attempt(s) instead of 1",
        trace(EVENT, CANCELLED, reported("a", "Paid.coroutine", 7, "CancelledError")),
    ),
    (
        "I3",
        "with RuntimeError(attempt 1) instead of CancelledError",
        trace(EVENT, CANCELLED, reported("a", "Paid.coroutine", exception="RuntimeError")),
    ),
    (
        "I3",
        "with another event",
        trace(EVENT, CANCELLED, reported("a", "Paid.coroutine", exception="CancelledError", token="Paid b")),
    ),
    # An interruption of one handler is nobody else's business either.
    (
        "I5",
        "Paid.coroutine never received Paid e1, after Paid.plain had failed",
        trace(dispatched("a"), INTERRUPTED, INTERRUPTED_REPORT, INTERRUPTED_CALL, guarantees=BLOCKING),
    ),
    (
        "I5",
        "Paid.plain never received Paid e1, after Paid.coroutine had failed",
        trace(EVENT, CANCELLED, CANCELLED_REPORT, IDLE),
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
    (
        "I5",
        "the caller, who waits, never saw it",
        trace(
            dispatched("a"),
            started("a", "Paid.plain"),
            failed("a", "Paid.plain", exception="KeyboardInterrupt", interruption=True),
            reported("a", "Paid.plain", exception="KeyboardInterrupt"),
            raised("a", "SystemExit", interruption=True),
            guarantees=BLOCKING,
        ),
    ),
    # Neither a stray nor a neighbour that succeeded hides it.
    (
        "I5",
        "neither reported, nor tried again, nor returned",
        trace(EVENT, handled("x", "Paid.plain"), handled("a", "Paid.plain"), CANCELLED, IDLE),
    ),
    ("A1", "None is no event, and dispatch never returned", trace(EVENT, dispatched("j", "", note="None"))),
    ("A1", "None is no event, and dispatch accepted it", trace(dispatched("j", "", note="None"), accepted("j", ""))),
    ("A1", "None is no event, and dispatch accepted it", trace(GOOD, NESTED_JUNK, accepted("j", ""))),
    ("A1", "KeyError instead of TypeError", trace(dispatched("j", "", note="None"), raised("j", "KeyError", ""))),
    ("A1", "was delivered to", trace(dispatched("j", ""), raised("j", "TypeError", ""), started("j", "Paid.plain"))),
    ("A2", "refused, and delivered to Paid.plain", trace(dispatched("a"), started("a", "Paid.plain"), refused("a"))),
    (
        "A2",
        "delivered to Paid.plain, Paid.coroutine",
        trace(GOOD, dispatched("b"), refused("b"), handled("b", *BOTH)),
    ),
    # That one event is in doubt excuses no other.
    (
        "A2",
        "Paid e2 was refused, and delivered to Paid.plain",
        trace(
            dispatched("a"),
            refused("a", exception="DispatchUncertainError"),
            dispatched("b"),
            started("b", "Paid.plain"),
            refused("b"),
        ),
    ),
    ("A3", "dispatch never returned", trace(begun(), dispatched("j", ""), dispatched("a"))),
    ("A3", "was accepted", trace(closing(), begun(), EVENT, closed("a"))),
    ("A3", "Paid e2 was dispatched after closing had begun, and was accepted", trace(EVENT, CLOSING_CANCELLED, GOOD_B)),
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
    ("A4", "does not name what is wrong", trace(rejected("RegistrationError", "this or that is not possible"))),
    ("A5", "never returned", trace(dispatched("a"))),
    ("A5", "dispatching Paid e2 never returned", trace(GOOD, dispatched("b"))),
    ("A5", "2 s are allowed", trace(dispatched("a", time=1.0), refused("a", time=3.5, bound=2.0))),
    ("A5", "OSError instead of a DispatchError", trace(dispatched("a"), raised("a", "OSError"))),
    (
        "A5",
        "left behind",
        trace(dispatched("a"), refused("a"), Entry(kind=Kind.LEFT, note="RuntimeWarning: it was never awaited")),
    ),
    (
        "C1",
        "2 dispatched Paid e2, and it was refused, though little was pending (2)",
        trace(taken("a", caller="1"), dispatched("b", caller="2"), refused("b", caller="2"), handled("a", *BOTH)),
    ),
    ("C1", "lost: Paid.plain", trace(taken("a", caller="1"), taken("b", caller="2"), handled("b", *BOTH))),
    (
        "C1",
        "doubled",
        trace(
            taken("a", "Placed", caller="1"),
            handled("a", "Placed.plain"),
            taken("b", "Noted", caller="2"),
            started("a", "Placed.plain", 2),
        ),
    ),
    ("C1", "dispatch never returned", trace(EVENT, dispatched("b", caller="1"))),
    (
        "C1",
        "dispatch raised RuntimeError",
        trace(taken("b", "Noted", caller="2"), dispatched("a", caller="1"), raised("a", "RuntimeError", caller="1")),
    ),
    ("C2", "never returned: a deadlock", trace(EVENT, handled("a", *BOTH), dispatched("b", cause="a"))),
    ("C2", "1 deep in a cascade", trace(EVENT, handled("a", *BOTH), taken("b", cause="a"), IDLE)),
    ("A5", "with a loop that is stopped, and Paid.plain never", trace(EVENT, hindrance="a loop that is stopped")),
    (
        "I2",
        "Paid.coroutine was broken off with Paid e1, after Paid.plain had failed",
        trace(
            EVENT,
            started("a", "Paid.coroutine"),
            broken("a", "Paid.plain"),
            failed("a", "Paid.coroutine", exception="CancelledError", interruption=True, imposed=True),
            CANCELLED_REPORT,
        ),
    ),
    # However full it may have been, what it took it owes.
    ("R1", "never received it", trace(EVENT, handled("a", "Paid.plain"), IDLE, hindrance="a flood of 600 deliveries")),
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
    (
        "C2",
        "3 deep in a cascade",
        trace(
            taken("a", "Placed"),
            handled("a", "Placed.plain"),
            taken("b", "Placed", cause="a"),
            handled("b", "Placed.plain"),
            taken("c", "Placed", cause="b"),
            handled("c", "Placed.plain"),
            taken("d", "Placed", cause="c"),
            started("d", "Placed.plain"),
        ),
    ),
    (
        "C2",
        "Placed e2, 1 deep in a cascade",
        trace(taken("a", "Placed", cause="b"), handled("a", "Placed.plain"), taken("b", "Placed", cause="a"), IDLE),
    ),
    # Two that dispatch each other again are no endless depth for what comes after them.
    (
        "C2",
        "Placed e3, 2 deep in a cascade",
        trace(
            taken("a", "Placed", cause="b"),
            handled("a", "Placed.plain"),
            taken("b", "Placed", cause="a"),
            handled("b", "Placed.plain"),
            taken("c", "Placed", cause="b"),
            IDLE,
        ),
    ),
    ("C2", "was refused, though little was pending (2): full", trace(EVENT, NESTED, refused("b", note="full"))),
    ("C2", "dispatch raised RuntimeError", trace(EVENT, NESTED, raised("b", "RuntimeError"))),
    ("C3", "R1 does not hold on this schedule", trace(EVENT, schedule="held back")),
    ("C3", "L1 does not hold on this schedule", trace(EVENT, closing(), closed(), schedule="held back", virtual=True)),
    (
        "L1",
        "aclose returned before Paid.plain's failure with Paid e1 was reported",
        trace(UNREPORTED, closing(5.0, time=1.0), closed(time=5.9), reported("a", "Paid.plain", time=6.0)),
    ),
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
    # However late it was reported, whoever reports it knows of it.
    (
        "L1",
        "though it had been reported as failed",
        trace(
            taken("a", "Placed"),
            broken("a", "Placed.plain"),
            closing(0),
            reported("a", "Placed.plain"),
            closed("a"),
        ),
    ),
    (
        "L1",
        "and then it was reported as failed",
        trace(
            taken("a", "Placed"),
            started("a", "Placed.plain"),
            closing(0),
            closed("a"),
            failed("a", "Placed.plain"),
            reported("a", "Placed.plain"),
        ),
    ),
    ("L1", "all its deliveries were settled", trace(EVENT, handled("a", *BOTH), closing(0), closed("a"), virtual=True)),
    (
        "L1",
        "ended with CancelledError, which is no success",
        trace(
            EVENT,
            handled("a", "Paid.plain"),
            started("a", "Paid.coroutine"),
            failed("a", "Paid.coroutine", exception="CancelledError", interruption=True),
            closing(),
            closed(),
        ),
    ),
    ("L1", "and then Paid.plain received it", trace(EVENT, closing(0), closed("a"), started("a", "Paid.plain"))),
    ("L1", "which it never accepted", trace(dispatched("a"), refused("a"), closing(0), closed("a"))),
    ("L1", "aclose returned e2 as undelivered, which it never accepted", trace(GOOD, closing(0), closed("x"))),
    # On a clock that stands still, what came before closing was settled before it.
    (
        "L1",
        "though all its deliveries were settled",
        trace(
            taken("a", "Placed"),
            started("a", "Placed.plain", time=1.0),
            succeeded("a", "Placed.plain", time=1.0),
            closing(0, time=1.0),
            closed("a", time=1.0),
            virtual=True,
        ),
    ),
    # It has attempts left.
    (
        "L1",
        "failed, and was owed another attempt",
        trace(EVENT, broken("a", *BOTH), closing(), closed(), guarantees=RETRYING),
    ),
    ("L1", "2 times", trace(EVENT, closing(0), closed("a", "a"))),
    ("L1", "past its deadline", trace(GOOD, closing(1.0, time=1.0), closed(time=3.5))),
    ("L1", "before its deadline", trace(EVENT, closing(5.0, time=1.0), closed("a", time=5.97), virtual=True)),
    ("L1", "did not return within 8.00 s", trace(GOOD, closing(1.0, time=1.0), OVERDUE)),
    ("L1", "past its deadline", trace(GOOD, closing(1.0, time=1.0), closed(time=4.5, bound=1.0))),
    ("L1", "before its deadline", trace(EVENT, closing(5.0, time=1.0), closed("a", time=1.1))),
    ("L1", "aclose raised RuntimeError", trace(GOOD, closing(), raised("", "RuntimeError", "", caller="closer"))),
    (
        "L1",
        "aclose raised OSError: gone, though everything was settled",
        trace(GOOD, Entry(Kind.PUT_AWAY, note="aclose raised OSError: gone")),
    ),
    ("L1", "as undelivered, though it was settled", trace(GOOD, Entry(Kind.PUT_AWAY, events=("a",)))),
    ("L2", "closing again returned Paid e1", trace(EVENT, closing(0), closed("a"), closing(0), closed("a"))),
    (
        "L2",
        "closing again returned Paid e1, Paid e2",
        trace(EVENT, taken("b"), closing(0), closed("a", "b"), closing(0), closed("a", "b")),
    ),
    ("L2", "closing again did not return", trace(GOOD, closing(), closed(), closing(), OVERDUE)),
    # Law L1 has its say, and not L2, whoever closes how often.
    (
        "L1",
        "and then Paid.plain received it",
        trace(EVENT, closing(0), closed("a"), closing(0), closed(), started("a", "Paid.plain")),
    ),
    (
        "L1",
        "was neither among the undelivered nor settled: Paid.plain received it afterwards",
        trace(EVENT, closing(), closed(), handled("a", *BOTH), IDLE),
    ),
    (
        "L1",
        "was neither among the undelivered nor settled: Paid.coroutine was still running",
        trace(
            *(EVENT, handled("a", "Paid.plain"), started("a", "Paid.coroutine"), closing(), closed()),
            succeeded("a", "Paid.coroutine"),
        ),
    ),
    (
        "L1",
        "and then it was reported as failed",
        trace(
            *(EVENT, started("a", "Paid.plain"), closing(0), closed("a")),
            *(failed("a", "Paid.plain"), reported("a", "Paid.plain")),
        ),
    ),
    (
        "L2",
        "aclose raised RuntimeError",
        trace(GOOD, closing(), closed(), closing(), raised("", "RuntimeError", "", caller="closer")),
    ),
    ("L3", "aclose did not return it", trace(closing(), EVENT, closed(), IDLE)),
    ("L3", "dispatch never returned", trace(closing(), dispatched("a"), closed())),
    ("L3", "dispatch raised RuntimeError", trace(closing(), dispatched("a"), raised("a", "RuntimeError"), closed())),
    ("L4", "left behind: the thread", trace(GOOD, closing(), closed(), Entry(kind=Kind.LEFT, note="the thread x"))),
    ("L4", "left behind: the task", trace(GOOD, closing(), closed(), Entry(kind=Kind.LEFT, note="the task x"))),
    ("G1", "had not settled Paid e1", trace(dispatched("a"), handled("a", "Paid.plain"), accepted("a"))),
    ("G1", "before Paid.plain's failure was reported", trace(UNREPORTED, reported("a", "Paid.plain"))),
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
    # Neither one that was refused nor one that was waited for is an excuse.
    (
        "G1",
        "dispatch(Paid e3) returned",
        trace(dispatched("x"), refused("x"), dispatched("b"), handled("b", *BOTH), accepted("b"), EVENT),
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
        "1 attempt(s) that failed, and 3 are promised",
        trace(EVENT, handled("a", "Paid.plain"), broken("a", "Paid.coroutine"), guarantees=RETRYING),
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
    ("G2", "do not grow: 2000 ms, 1000 ms", trace(EVENT, tried(2, 1), guarantees=RETRYING)),
    # It waited for another delivery, and not long enough for that to be all.
    (
        "G2",
        "do not grow: 3000 ms, 2000 ms",
        trace(
            taken("b", "Placed", time=2.0),
            EVENT,
            started("b", "Placed.plain", time=2.1),
            succeeded("b", "Placed.plain", time=2.5),
            tried(3, 2),
            guarantees=RETRYING,
        ),
    ),
    # They are what passes between two calls, and no waits.
    ("G2", "do not grow: 0 ms, 0 ms", trace(EVENT, tried(0.0001, 0.0003), guarantees=RETRYING)),
    # It is the last that counts.
    (
        "G2",
        "do not grow: 1000 ms, 2000 ms, 1000 ms",
        trace(EVENT, tried(1, 2, 1), guarantees=replace(RETRYING, retries=3)),
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
        "G3",
        "Placed e2 was accepted, and lost",
        trace(
            taken("a", "Placed"),
            handled("a", "Placed.plain"),
            taken("b", "Placed"),
            broken("b", "Placed.plain"),
            CRASHED,
            RESTARTED,
            guarantees=RETRYING,
        ),
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
    # What a handler dispatched meanwhile has no place in the order, and hides nothing.
    (
        "G4",
        "received Placed e2 before Placed e1",
        trace(
            taken("a", "Placed", caller="one"),
            taken("b", "Placed", caller="one"),
            taken("x", "Placed", caller="one", cause="a"),
            handled("x", "Placed.plain"),
            handled("b", "Placed.plain"),
            handled("a", "Placed.plain"),
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


def test_coroutines_that_handlers_return_have_the_names_that_laws_know_them_by() -> None:
    names = {run_awaiting.__qualname__, probes._AsyncCall.__call__.__qualname__}
    assert {name.strip("'") for name in RETURNED_COROUTINES} == names


def test_a_registration_that_was_taken_counts_like_one_that_was_refused() -> None:
    built = Entry(kind=Kind.BUILT, note="a bad key")
    assert law("A4").observations(trace(rejected("RegistrationError", "Bad"), built)) == 2


def judgements() -> str:
    """How often each allowed trace shows what its law is about, and why each forbidden one breaks it."""
    said = [f"{law_id} observed {law(law_id).observations(allowed)}" for law_id, allowed in UPHELD]
    for law_id, _, forbidden in VIOLATED:
        violation = law(law_id).judge(forbidden)
        assert violation is not None
        clock = " (if the clock says so again)" if violation.timed else ""
        said.append(f"{law_id} violated: {violation.message}{clock}")
    return "\n".join(said) + "\n"


def test_judges_count_and_say_what_they_did_when_somebody_last_read_it() -> None:
    """``judgements.txt``, line by line; ``PYTHONPATH=tests python -m kit.test_judges`` writes it, to be read."""
    assert judgements().splitlines() == JUDGEMENTS.read_text("utf-8").splitlines()


@pytest.mark.parametrize("each", LAWS, ids=[each.id for each in LAWS])
def test_every_law_has_traces_for_both_sides(each: Law) -> None:
    assert any(allowed == each.id for allowed, _ in UPHELD)
    assert any(forbidden == each.id for forbidden, _, _ in VIOLATED)


@pytest.mark.parametrize("each", LAWS, ids=[each.id for each in LAWS])
def test_nothing_is_upheld_where_nothing_happened(each: Law) -> None:
    empty = trace(IDLE)
    assert each.judge(empty) is None
    assert each.observations(empty) == 0


def test_what_a_dispatcher_declares_decides_over_the_guarantees_alone() -> None:
    def promised(guarantees: Guarantees) -> list[str]:
        return [each.id for each in LAWS if each.promised(guarantees)]

    of_every_dispatcher = [each.id for each in LAWS if not each.id.startswith("G")]
    assert promised(MODEST) == of_every_dispatcher
    assert promised(BLOCKING) == [*of_every_dispatcher, "G1", "G4"]
    assert promised(RETRYING) == [*of_every_dispatcher, "G2", "G3", "G4"]


def test_what_is_not_promised_is_seen_to_be_absent_by_a_witness() -> None:
    one_attempt = law("G2").witness
    loss = law("G3").witness
    assert one_attempt is not None
    assert loss is not None
    assert (
        one_attempt(TraceView(trace(EVENT, broken("a", *BOTH))))
        == "Paid.plain failed with Paid e1, and had exactly one attempt"
    )
    assert one_attempt(TraceView(trace(GOOD))) is None
    assert loss(TraceView(trace(EVENT, handled("a", "Paid.plain"), CRASHED, RESTARTED, IDLE))) == (
        "Paid e1 was accepted before the kill, and Paid.coroutine never completed it"
    )
    assert loss(TraceView(trace(GOOD, CRASHED))) is None


def test_titles_and_promises_are_in_the_words_of_the_contract() -> None:
    text = files("eventpact_contracts").joinpath("CONTRACT.md").read_text("utf-8")
    words = dict(re.findall(r"^- \*\*([A-Z]\d+ [a-z_ ]+)\*\*: (.*)$", text, re.MULTILINE))
    of_dispatchers = {key: said for key, said in words.items() if key[0] not in "HX"}
    assert [f"{each.id} {each.title}" for each in LAWS] == list(of_dispatchers)
    assert [each.promise for each in LAWS] == list(of_dispatchers.values())


if __name__ == "__main__":
    JUDGEMENTS.write_text(judgements(), "utf-8")
