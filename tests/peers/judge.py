"""``python -m peers.judge NAME``: judge one library in this process, and print what it does as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Final

from eventpact_contracts.checking.check import check_laws
from eventpact_contracts.checking.outcomes import LawResult, Outcome
from eventpact_contracts.driver.trace import Entry, Kind
from eventpact_contracts.laws import LAWS, Law
from eventpact_contracts.laws.isolation import caller_spared, neighbours_spared
from eventpact_contracts.laws.law import Fault
from eventpact_contracts.laws.routing import delivered, nowhere_else, once
from eventpact_contracts.laws.view import TraceView
from eventpact_contracts.subjects.loading import find
from peers.adapters import BrokerPeer, Peer
from peers.libraries import LIBRARIES, Library

__all__ = ["JUDGED"]

# fmt: off
JUDGED: Final = (
    "R1", "R2", "R3", "R4", "R5", "R6", "R7", "I1", "I2", "I5", "C1", "C2", "C3", "G1", "G2", "G3", "G4", "L4",
)
# fmt: on
"""The laws of behaviour. The others are about refusal, a failure sink and closing as only this contract has them."""

DOES: Final = {
    Outcome.UPHELD: "does",
    Outcome.VIOLATED: "does not",
    Outcome.ABSENT: "does not claim to",
    Outcome.UNCLAIMED: "did, without claiming to",
    Outcome.COULD_NOT_RUN: "not seen",
}
GROUPS: Final = (
    ("R1", "R2", "R3", "R4", "R5", "R6", "R7"),
    ("I1", "I2", "I5"),
    ("C1",),
    ("C2",),
    ("G1", "G2", "G4"),
    ("L4",),
    ("G3",),
)
"""Laws that are judged together, so that each group has its time, however long another waits in vain."""

_SECONDS: Final = 20.0
_SECONDS_OVER_A_BROKER: Final = 15.0
"""The suite doubles it for an engine that is slow."""

_LINES: Final = 24


def judge(library: Library, examples: int, seed: int) -> dict[str, Any]:
    """Judge one library by all laws that it has a notion of."""
    started = time.monotonic()
    candidate = find(library.target)
    adapter: type[Peer] = candidate.factory
    missing = no_notion_of(adapter)
    laws = {law.id: law for law in LAWS if law.id in JUDGED and law.id not in missing}
    laws["I5"] = replace(laws["I5"], find_fault=_without_a_sink(laws["I5"]))
    scheduled = laws.pop("C3")
    seconds = _SECONDS_OVER_A_BROKER if issubclass(adapter, BrokerPeer) else _SECONDS
    how: dict[str, Any] = {"examples": examples, "seed": seed, "seconds": seconds}
    results: dict[str, LawResult] = {}
    for group in GROUPS:
        if together := [laws[law_id] for law_id in group if law_id in laws]:
            results |= {each.law_id: each for each in check_laws(together, candidate, **how)}
    held = {law_id for law_id, each in results.items() if each.outcome is Outcome.UPHELD}
    results["C3"] = check_laws([replace(scheduled, find_fault=_on_each_schedule(held))], candidate, **how)[0]
    return {
        "library": library.name,
        "target": library.target,
        "versions": {name: version(name) for name in library.distributions},
        "guarantees": candidate.guarantees.to_dict(),
        "seconds": round(time.monotonic() - started, 1),
        "laws": {
            law_id: _no_notion(missing[law_id]) if law_id in missing else _row(results[law_id]) for law_id in JUDGED
        },
    }


def no_notion_of(adapter: type[Peer]) -> dict[str, str]:
    """The laws that are about something that the library has no notion of, each with what that is."""
    missing = {}
    if not adapter.async_handlers:
        missing["R5"] = "`async def` handlers"
    if adapter.aclose is Peer.aclose:
        missing["L4"] = "closing"
    if adapter.guarantees.blocks_caller:
        missing["G3"] = "accepting an event before it is handled"
    return missing


def _without_a_sink(law: Law) -> Callable[[TraceView], Fault | None]:
    """Judge interruptions by whom they reach and whom they hurt: no library has a failure sink to report to."""

    def find_fault(view: TraceView) -> Fault | None:
        heard = tuple(
            Entry(kind=Kind.REPORTED, time=entry.time, event=entry.event, handler=entry.handler)
            for entry in view.interruptions
        )
        return law.find_fault(TraceView(replace(view.trace, entries=(*view.trace.entries, *heard))))

    return find_fault


def _on_each_schedule(held: set[str]) -> Callable[[TraceView], Fault | None]:
    """Judge other schedules by those laws that hold on the usual one."""
    judges = {"R1": delivered, "R2": nowhere_else, "R3": once, "I1": caller_spared, "I2": neighbours_spared}

    def find_fault(view: TraceView) -> Fault | None:
        if view.is_usual or view.closing is not None:
            return None
        for law_id in sorted(held & judges.keys()):
            if fault := judges[law_id](view):
                return Fault(f"{law_id} does not hold on this schedule: {fault.message}", fault.timed)
        return None

    return find_fault


def _no_notion(what: str) -> dict[str, Any]:
    return {"outcome": "no notion", "message": what}


def _row(result: LawResult) -> dict[str, Any]:
    row: dict[str, Any] = {
        "outcome": DOES[result.outcome],
        "observations": result.observations,
        "message": result.detail,
    }
    if result.violation:
        lines = str(result.violation.trace).splitlines()
        cut = len(lines) - _LINES
        row["trace"] = lines if cut <= 0 else [*lines[:_LINES], f"... and {cut} more lines"]
    return row


def main() -> None:
    """Judge the library of this name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[library.name for library in LIBRARIES])
    parser.add_argument("--examples", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with redirect_stdout(sys.stderr):
        row = judge(next(each for each in LIBRARIES if each.name == options.name), options.examples, options.seed)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
