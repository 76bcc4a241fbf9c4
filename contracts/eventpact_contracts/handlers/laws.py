"""Laws H1 to H3 of CONTRACT.md, which every handler keeps that is delivered to at least once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["HANDLER_LAWS", "HandlerLaw"]


@dataclass(frozen=True, kw_only=True)
class HandlerLaw:
    """One law of CONTRACT.md about handlers.

    Attributes:
        id: its ID there.
        title: its title there.
        promise: its words there.
        causes: the usual reasons why a handler breaks it.
    """

    id: str
    title: str
    promise: str
    causes: tuple[str, ...]


HANDLER_LAWS: Final = (
    HandlerLaw(
        id="H1",
        title="twice is once",
        promise=("handling the same event twice, one after the other, leaves the state that handling it once leaves."),
        causes=(
            "a counter or a balance is changed by an amount, without a record of which events it contains",
            "an identifier, a code or a time is made anew in each call, where it should follow from the event",
            "a mail or a request goes out without a key by which its receiver drops the second",
        ),
    ),
    HandlerLaw(
        id="H2",
        title="together is once",
        promise="so does handling it twice at the same time.",
        causes=(
            "the handler checks whether the event was handled, and acts afterwards: two calls pass the check together;"
            " let a unique key decide, in the transaction of the change",
            "a value is read, changed and written back without a lock or a conditional update",
        ),
    ),
    HandlerLaw(
        id="H3",
        title="interrupted and again",
        promise="so does handling it again after an interruption at any await or call to a port.",
        causes=(
            "the event is marked as handled before the work is done, so that the second call does nothing",
            "a change is committed before a call that can fail, and made a second time by the next call",
            "a guard in memory or in a file stays set when the call that set it was interrupted",
        ),
    ),
)
"""Every law about handlers, in CONTRACT.md's order."""
