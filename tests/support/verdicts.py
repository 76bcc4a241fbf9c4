"""Verdicts made by hand, for the tests of the reports."""

from __future__ import annotations

from eventpact.domain.dispatcher import Delivery, Guarantees, Ordering
from eventpact_contracts.checking.outcomes import LawResult, Outcome, Verdict, Violation
from eventpact_contracts.driver.trace import Trace
from eventpact_contracts.laws import LAWS

MODEST = Guarantees(blocks_caller=True, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO)
BOLD = Guarantees(blocks_caller=False, retries=3, delivery=Delivery.AT_LEAST_ONCE, ordering=Ordering.NONE)

NASTY = """</pre><script>alert("1")</script> & 'quoted' \x1b[31m \ud800"""
"""What a dispatcher under test might put into a message: markup, an escape sequence, half a surrogate pair."""


def verdict(
    dispatcher: str = "shop.events.ShopDispatcher",
    guarantees: Guarantees | None = MODEST,
    *,
    message: str = "event 1 was accepted, and Second never received it",
    trace: Trace | None = None,
    **outcomes: Outcome,
) -> Verdict:
    """A verdict over all laws: upheld, save those that are given by ID."""
    results = []
    for law in LAWS:
        outcome = outcomes.get(law.id, Outcome.UPHELD)
        ran = outcome not in (Outcome.COULD_NOT_RUN, Outcome.NOT_SELECTED)
        violated = outcome in (Outcome.VIOLATED, Outcome.KNOWN)
        results.append(
            LawResult(
                law_id=law.id,
                title=law.title,
                outcome=outcome,
                examples=100 if ran else 0,
                observations=231 if ran else 0,
                detail="" if outcome is Outcome.UPHELD else message,
                seconds=0.25,
                violation=Violation(law.id, message, Trace() if trace is None else trace) if violated else None,
                script=f"eventpact verify shop.events:ShopDispatcher --law {law.id} --seed 7" if violated else None,
                known="issue 7" if outcome is Outcome.KNOWN else "",
            )
        )
    return Verdict("1.1", dispatcher, guarantees, tuple(results), seconds=8.25)
