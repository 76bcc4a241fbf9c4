"""What helps somebody whose dispatcher violates a law: the promise in words, the usual causes, a rogue to compare."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from eventpact_contracts.laws import LAWS

__all__ = ["Advice", "advice"]


@dataclass(frozen=True)
class Advice:
    """What there is to say about a law.

    Attributes:
        promise: the law, as a sentence; code stands between backticks.
        causes: what usually breaks it.
        rogue: where the dispatcher of the known-bad gallery is that fails alike, or nothing.
    """

    promise: str = ""
    causes: tuple[str, ...] = ()
    rogue: str = ""


@cache
def advice(law_id: str) -> Advice:
    """What there is to say about this law; nothing, if the contract has none of that ID."""
    for law in LAWS:
        if law.id == law_id:
            rogue = f"eventpact_contracts.rogues:{law.rogue}" if law.rogue else ""
            return Advice(law.promise[:1].upper() + law.promise[1:], law.causes, rogue)
    return Advice()
