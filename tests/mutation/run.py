"""``python tests/mutation/run.py``: mutate, test, print both scores, keep them as JSON, and fail below the gate.

A run goes on where the one before it was ended, and takes up only what has changed since. With ``--since COMMIT`` only
the scopes are run whose modules or tests differ from that commit; with ``--minutes N`` it ends in time. What was left
out is said, and is not counted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from campaign import ROOT, differences, run_scope
from results import RESULTS, load, save
from scopes import SCOPES, Scope
from score import KILLED, Explained, Mutant, Score, by_contract, by_suite, load_explained

# Of the mutants that explained.toml gives no reason for.
SUITE_GATE: Final = 0.90
CONTRACT_GATE: Final = 0.80


def main(arguments: Sequence[str] | None = None) -> int:
    """0 at or above both gates, 1 below one."""
    parser = argparse.ArgumentParser(description="mutation scores of the whole suite, and of the contract alone")
    parser.add_argument("scopes", nargs="*", metavar="scope", help=f"{', '.join(scope.name for scope in SCOPES)}")
    parser.add_argument("--work", type=Path, default=ROOT / "mutants", help="the folder that a later run goes on from")
    parser.add_argument("--json", type=Path, help="where the results are kept (default: results.json in --work)")
    parser.add_argument("--keep", action="store_true", help=f"take them into {RESULTS.relative_to(ROOT)} as well")
    parser.add_argument("--since", metavar="COMMIT", help="only scopes that differ from this commit")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after so many minutes")
    parser.add_argument("--sample", type=int, metavar="N", help="at most N mutants of each scope, always the same ones")
    parser.add_argument("--children", type=int, default=2, help="mutants that are tested at once")
    given = parser.parse_args(arguments)
    if unknown := set(given.scopes) - {scope.name for scope in SCOPES}:
        parser.error(f"there is no scope {sorted(unknown)[0]}")

    chosen = [scope for scope in SCOPES if not given.scopes or scope.name in given.scopes]
    if given.since:
        changed = _changed_since(given.since)
        for scope in [scope for scope in chosen if not _touched(scope, changed)]:
            print(f"{scope.name}: NOT RUN, nothing of it has changed since {given.since}")
            chosen.remove(scope)
    deadline = time.monotonic() + given.minutes * 60
    mutants: list[Mutant] = []
    for scope in chosen:
        began = time.monotonic()
        outcomes = run_scope(scope, given.work, children=given.children, deadline=deadline, sample=given.sample)
        mutants += (found := _described(scope, outcomes, given.work))
        _print_scope(scope, found, time.monotonic() - began)

    for file in {given.json or given.work / "results.json", *([RESULTS] if given.keep else [])}:
        kept = [mutant for mutant in load(file) if mutant.scope not in {scope.name for scope in chosen}]
        save(file, [*kept, *mutants], mutmut=version("mutmut"))
    return _verdict(mutants, load_explained())


def _described(scope: Scope, outcomes: dict[str, dict[str, str]], work: Path) -> list[Mutant]:
    """The mutants of a scope; of those that live somewhere, also what they change."""
    first, *_ = outcomes.values()
    own = {name: {stage: found.get(name, "not checked") for stage, found in outcomes.items()} for name in first}
    alive = [name for name, found in own.items() if {*found.values()} - KILLED - {"not checked"}]
    changes = differences(work / f"{scope.name}-{scope.stages[0].name}", alive)
    return [Mutant(name, scope.name, found, *changes.get(name, ("", ""))) for name, found in own.items()]


def _print_scope(scope: Scope, mutants: Sequence[Mutant], seconds: float) -> None:
    explained = load_explained()
    print(f"{scope.name}: {len(mutants)} mutants, {seconds:.0f} s")
    print(f"  whole suite     {_told(by_suite(mutants, explained))}")
    if any("contract" in mutant.outcomes for mutant in mutants):
        print(f"  contract alone  {_told(by_contract(mutants, explained))}")
    if left := sum("not checked" in mutant.outcomes.values() for mutant in mutants):
        print(f"  NOT CHECKED     {left} mutants: there was no time, or they are not in the sample")


def _told(score: Score) -> str:
    return (
        f"{score.killed} of {score.total} killed: {score.share:.1%};"
        f" {score.share_of_rest:.1%} without the {score.explained} explained ones"
    )


def _verdict(mutants: Sequence[Mutant], explained: Sequence[Explained]) -> int:
    missed = 0
    for name, score, gate in (
        ("whole suite", by_suite(mutants, explained), SUITE_GATE),
        ("contract alone", by_contract(mutants, explained), CONTRACT_GATE),
    ):
        if score.total:
            ok = score.share_of_rest >= gate
            missed += not ok
            print(f"{name:14}  {_told(score)} (gate {gate:.0%}: {'met' if ok else 'MISSED'})")
    return 1 if missed else 0


def _changed_since(commit: str) -> list[str]:
    done = subprocess.run(
        ["git", "diff", "--name-only", commit, "--"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def _touched(scope: Scope, changed: Iterable[str]) -> bool:
    tests = {f"tests/{test}" for stage in scope.stages for test in stage.tests}
    return any(
        path in tests or any(Path(path.replace("contracts/", "src/", 1)).match(pattern) for pattern in scope.modules)
        for path in changed
    )


if __name__ == "__main__":
    sys.exit(main())
