"""Counts of requests, answers and checks, taken from the NDJSON report of Schemathesis."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["Counts", "count", "table"]

PHASES: Final = ("examples", "coverage", "fuzzing", "stateful")


@dataclass(frozen=True)
class Counts:
    """Requests by phase and by mode, answers by operation and status, checks by name, links that were followed."""

    phases: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    links: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        return self.phases.total()

    def plain(self) -> dict[str, object]:
        """As JSON."""
        statuses = {f"{where}: {status}": number for (where, status), number in sorted(self.statuses.items())}
        return {"requests": self.requests, "statuses": statuses} | {
            name: dict(sorted(getattr(self, name).items()))
            for name in ("phases", "modes", "links", "checks", "failures")
        }


def count(counts: Counts, events: Path) -> None:
    """Add the counts of one run's NDJSON report."""
    with events.open(encoding="utf-8") as lines:
        for line in lines:
            scenario = json.loads(line).get("ScenarioFinished")
            if scenario:
                _add(counts, scenario["phase"], scenario["recorder"])


def _add(counts: Counts, phase: str, recorder: Mapping[str, Mapping[str, object]]) -> None:
    cases: Mapping[str, object] = recorder.get("cases", {})
    for case_id, interaction in recorder.get("interactions", {}).items():
        case = cases[case_id]["value"]  # type: ignore[index]
        response = interaction.get("response")  # type: ignore[attr-defined]
        counts.phases[phase] += 1
        counts.modes[case["meta"]["generation"]["mode"]] += 1
        counts.statuses[f"{case['method']} {case['path']}", response["status_code"] if response else 0] += 1
    for case in cases.values():
        if case["is_transition_applied"]:  # type: ignore[index]
            counts.links[case["transition"]["id"].rpartition(" -> ")[0]] += 1  # type: ignore[index]
    for checks in recorder.get("checks", {}).values():
        for check in checks:  # type: ignore[attr-defined]
            (counts.checks if check["status"] == "success" else counts.failures)[check["name"]] += 1


def table(columns: Mapping[str, Counts]) -> str:
    """The counts of several runs, side by side."""
    statuses = sorted({key for counts in columns.values() for key in counts.statuses if key[1] != 405})
    checks = sorted({name for counts in columns.values() for name in (*counts.checks, *counts.failures)})
    rows = [("", *columns)]
    rows += [(f"requests, {phase}", *(f"{each.phases[phase]:,}" for each in columns.values())) for phase in PHASES]
    rows += [("requests in all", *(f"{each.requests:,}" for each in columns.values()))]
    rows += [(f"requests, {mode}", *(f"{each.modes[mode]:,}" for each in columns.values())) for mode in _MODES]
    rows += [
        (f"{where}: {status}", *(f"{each.statuses[where, status]:,}" for each in columns.values()))
        for where, status in statuses
    ]
    refused = [sum(n for (_, status), n in each.statuses.items() if status == 405) for each in columns.values()]
    links = sorted({link for counts in columns.values() for link in counts.links})
    rows += [(f"link: {link}", *(f"{each.links[link]:,}" for each in columns.values())) for link in links]
    rows += [("other methods: 405", *(f"{n:,}" for n in refused))]
    rows += [
        (f"{name}: failed", *(f"{each.failures[name]:,} of {_ran(each, name):,}" for each in columns.values()))
        for name in checks
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n" + "\n".join(
        "  ".join(
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


_MODES: Final = ("positive", "negative")


def _ran(counts: Counts, name: str) -> int:
    return counts.checks[name] + counts.failures[name]
