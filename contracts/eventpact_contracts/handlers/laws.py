"""Laws H1 to H3 of CONTRACT.md, which every handler keeps that is delivered to at least once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from eventpact_contracts.laws.law import contract_words

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


_CAUSES: Final = {
    "H1": (
        "a counter or a balance is changed by an amount, without a record of the events that it contains",
        "an identifier, a code or a time is made anew in each call, where it should follow from the event",
        "a mail or a request goes out without a key by which its receiver drops the second",
    ),
    "H2": (
        "the handler checks whether the event was handled, and acts afterwards: two calls pass the check together;"
        " let a unique key decide, in the transaction of the change",
        "a value is read, changed and written back without a lock or a conditional update",
    ),
    "H3": (
        "the event is marked as handled before the work is done, so that the second call does nothing",
        "a change is committed before a call that can fail, and made a second time by the next call",
        "a guard in memory or in a file stays set when the call that set it was interrupted",
    ),
}

HANDLER_LAWS: Final = tuple(
    HandlerLaw(id=law_id, title=contract_words()[law_id][0], promise=contract_words()[law_id][1], causes=causes)
    for law_id, causes in _CAUSES.items()
)
"""Every law about handlers, in CONTRACT.md's order."""
