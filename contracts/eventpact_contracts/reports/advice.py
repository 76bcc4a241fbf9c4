"""Advice on a violated law: its promise, the usual causes, and a known-bad example with the same violation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from eventpact_contracts.reports.summary import laws_beside

__all__ = ["Advice", "advice"]


@dataclass(frozen=True)
class Advice:
    """Advice on a law.

    Attributes:
        promise: the law, as a sentence; code stands between backticks.
        causes: the usual reasons why it is broken.
        rogue: the target of another dispatcher, a known-bad example, that the same message convicts, or nothing.
    """

    promise: str = ""
    causes: tuple[str, ...] = ()
    rogue: str = ""


def advice(law_id: str, message: str = "", name: str = "") -> Advice:
    """The advice on this law to the dispatcher of this name; empty, if the contract has none of that ID."""
    for law in laws_beside([law_id]):
        if law.id == law_id:
            alike = _alike(law_id, message)
            itself = name in (alike, alike.partition(":")[2])
            return Advice(law.promise[:1].upper() + law.promise[1:], law.causes, "" if itself else alike)
    return Advice()


_SHORTEST_MESSAGE: Final = 8
"""Characters of a rogue's message below which it says too little to compare."""


def _alike(law_id: str, message: str) -> str:
    """The one rogue whose own message is the longest part of this one; none if several are."""
    from eventpact_contracts.rogues import ROGUES

    alike = [
        rogue
        for rogue in ROGUES
        if rogue.convicted_by == law_id
        and len(rogue.message) >= _SHORTEST_MESSAGE
        and re.search(rogue.message, message)
    ]
    longest = max((len(rogue.message) for rogue in alike), default=0)
    best = [rogue for rogue in alike if len(rogue.message) == longest]
    return f"eventpact_contracts.rogues:{best[0].name}" if len(best) == 1 else ""
