"""``tox -e mutation``: the scores of the whole suite and of the contract alone, kept with the commit they belong to.

``mutmut run`` needs nothing of this: it mutates domain, application and dispatchers by its table in pyproject.toml,
with the tests of the tier ``pytest``. The table cannot say that each dispatcher is to face nothing but its contract
class, so that campaign runs here, in a copy of the sources with a table of its own. Both go on where they were ended.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = Path(__file__).with_name("results.json")
SUITE_GATE: Final = 0.90
CONTRACT_GATE: Final = 0.80
_CONTRACT: Final = {
    "TestSync": "sync_dispatcher",
    "TestAsyncio": "asyncio_dispatcher",
    "TestCelery": "celery_dispatcher",
}
_EXAMPLES: Final = 10


@dataclass(frozen=True)
class Score:
    """The counts of one campaign; a mutant that hangs would be noticed, so it counts as killed."""

    killed: int
    total: int

    @property
    def share(self) -> float:
        return self.killed / self.total if self.total else 0.0

    def __str__(self) -> str:
        return f"{self.killed} of {self.total} killed: {self.share:.1%}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 where both scores meet their gates, else 1."""
    parser = argparse.ArgumentParser(description="mutation scores of the suite and of the contract alone")
    parser.add_argument("campaigns", nargs="*", metavar="campaign", help=f"suite, {', '.join(_CONTRACT)}; default: all")
    parser.add_argument("--work", type=Path, default=ROOT / "mutants" / "contract", help="a folder to go on from")
    parser.add_argument("--children", type=int, default=os.cpu_count() or 1, help="mutants that are tested at once")
    parser.add_argument("--keep", action="store_true", help=f"write the scores to {RESULTS.relative_to(ROOT)}")
    given = parser.parse_args(arguments)
    if unknown := {*given.campaigns} - {"suite", *_CONTRACT}:
        parser.error(f"there is no campaign {min(unknown)}")

    scores: dict[str, Score] = {}
    for name in given.campaigns or ["suite", *_CONTRACT]:
        folder = ROOT if name == "suite" else _laid_out(given.work / name, name)
        scores[name] = _mutmut(folder, given.children)
        print(f"{name}: {scores[name]}", flush=True)
    if given.keep:
        _keep(scores)
    missed = [name for name, score in scores.items() if score.share < _gate(name)]
    for name in missed:
        print(f"MISSED: {name} is below its gate of {_gate(name):.0%}; mutmut results lists the survivors")
    return 1 if missed else 0


def _gate(name: str) -> float:
    return SUITE_GATE if name == "suite" else CONTRACT_GATE


def _laid_out(folder: Path, name: str) -> Path:
    """Copy what is mutated and what tests it, and write a table for this campaign."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("src", "tests"):
        shutil.copytree(
            ROOT / part, folder / part, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "mutants")
        )
    arguments = [*("-n0", "-p", "no:cacheprovider", "-x", "-m", ""), *("-k", name)]
    arguments += [f"--eventpact-examples={_EXAMPLES}", "--eventpact-seed=1", "--hypothesis-seed=0"]
    table = {
        "only_mutate": [f"src/eventpact/infrastructure/{_CONTRACT[name]}.py"],
        "pytest_add_cli_args": arguments,
        "pytest_add_cli_args_test_selection": ["tests/contract/test_dispatchers.py"],
    }
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for key, value in table.items():
        before, found, after = re.split(rf"^({key} = )\[.*?\]$", text, maxsplit=1, flags=re.M | re.S)
        text = f"{before}{found}{json.dumps(value)}{after}"
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    return folder


def _mutmut(folder: Path, children: int) -> Score:
    # Python looks no second time for a folder that was not there, and would mutate nothing that is imported.
    (folder / "mutants" / "src").mkdir(parents=True, exist_ok=True)
    for command in (["run", "--max-children", str(children)], ["export-cicd-stats"]):
        # Processes that a test starts import the mutant, too.
        path = os.pathsep.join(filter(None, [str(folder / "mutants" / "src"), os.environ.get("PYTHONPATH", "")]))
        subprocess.run(
            [sys.executable, "-m", "mutmut", *command], cwd=folder, env={**os.environ, "PYTHONPATH": path}, check=True
        )
    counts = json.loads((folder / "mutants" / "mutmut-cicd-stats.json").read_text(encoding="utf-8"))
    tested = [counts[kind] for kind in ("killed", "timeout", "survived", "suspicious", "segfault", "no_tests")]
    return Score(sum(tested[:2]), sum(tested))


def _keep(scores: dict[str, Score]) -> None:
    """Write the scores beside those of other campaigns, all at once."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"campaigns": {}}
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    made_by = {"commit": commit, "python": platform.python_version(), "mutmut": version("mutmut")}
    for name, score in scores.items():
        counts = {"killed": score.killed, "total": score.total, "share": round(score.share, 4)}
        kept["campaigns"][name] = counts | made_by
    new = RESULTS.with_suffix(".new")
    new.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    new.replace(RESULTS)


if __name__ == "__main__":
    sys.exit(main())
