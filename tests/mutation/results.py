"""The outcomes of a run as JSON: survivors one by one, and how many share each other outcome."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from score import KILLED, Mutant

__all__ = ["RESULTS", "load", "save"]

RESULTS: Final = Path(__file__).with_name("results.json")
"""Those of the last run that was kept; the README's figures are made from them."""


def save(file: Path, mutants: Iterable[Mutant], *, mutmut: str) -> None:
    """Keep the outcomes of a run by this version of mutmut."""
    alike: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
    alive = []
    for mutant in mutants:
        if {*mutant.outcomes.values()} <= KILLED | {"not checked"}:
            alike[mutant.scope, tuple(mutant.outcomes.items())] += 1
        else:
            alive.append(
                {
                    "name": mutant.name,
                    "scope": mutant.scope,
                    "outcomes": dict(mutant.outcomes),
                    "was": mutant.was,
                    "becomes": mutant.becomes,
                }
            )
    results = {
        "python": platform.python_version(),
        "mutmut": mutmut,
        "alike": [
            {"scope": scope, "outcomes": dict(outcomes), "mutants": count}
            for (scope, outcomes), count in sorted(alike.items())
        ],
        "survivors": sorted(alive, key=lambda mutant: (str(mutant["scope"]), str(mutant["name"]))),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(file: Path = RESULTS) -> list[Mutant]:
    """What was saved; mutants that are alike have no name. Nothing, where there is no such file."""
    if not file.exists():
        return []
    results = json.loads(file.read_text(encoding="utf-8"))
    alike = [Mutant("", each["scope"], each["outcomes"]) for each in results["alike"] for _ in range(each["mutants"])]
    return [*alike, *(Mutant(**each) for each in results["survivors"])]
