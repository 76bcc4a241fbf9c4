"""The figures of the README are those of the last run, and what is said of a survivor is about one that there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def _beside_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


def test_the_readme_shows_the_scores_of_the_last_run() -> None:
    done = subprocess.run([sys.executable, HERE / "readme.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run python tests/mutation/readme.py\n{done.stderr}"


def test_both_scores_are_at_their_gates() -> None:
    from results import load
    from run import CONTRACT_GATE, SUITE_GATE
    from score import by_contract, by_suite, load_explained

    mutants = load()
    assert by_suite(mutants, load_explained()).share_of_rest >= SUITE_GATE
    assert by_contract(mutants, load_explained()).share_of_rest >= CONTRACT_GATE


def test_every_explanation_is_about_a_survivor_of_the_last_run() -> None:
    from results import load
    from score import KILLED, function_of, load_explained

    alive = {
        (function_of(mutant.name), mutant.becomes)
        for mutant in load()
        if any(outcome not in KILLED | {"not checked"} for outcome in mutant.outcomes.values())
    }
    assert [each for each in load_explained() if (each.function, each.becomes) not in alive] == []
    assert all(each.reason for each in load_explained())


def test_a_score_counts_what_was_checked_and_knows_what_is_explained() -> None:
    from score import Explained, Mutant, Score, by_contract, by_suite, function_of

    mutants = [
        Mutant("m.x_f__mutmut_1", "s", {"units": "killed", "contract": "survived"}, "a", "b"),
        Mutant("m.xǁCǁg__mutmut_1", "s", {"units": "survived", "contract": "timeout"}, "a", "c"),
        Mutant("m.xǁCǁg__mutmut_2", "s", {"units": "survived", "contract": "no tests"}, "a", "d"),
        Mutant("m.x_f__mutmut_2", "s", {"units": "not checked", "contract": "not checked"}),
        Mutant("m.x_f__mutmut_3", "s", {"units": "survived", "contract": "not checked"}, "a", "e"),
        Mutant("m.x_h__mutmut_1", "t", {"units": "survived"}, "a", "f"),
    ]
    assert function_of("m.xǁCǁg__mutmut_2") == "m.C.g"
    assert by_suite(mutants, []) == Score(killed=2, survived=3, explained=0)
    assert by_contract(mutants, []) == Score(killed=1, survived=2, explained=0)
    explained = [Explained("m.f", "b", "no law says so", contract_only=True), Explained("m.C.g", "d", "the same")]
    assert by_suite(mutants, explained) == Score(killed=2, survived=3, explained=1)
    assert by_contract(mutants, explained) == Score(killed=1, survived=2, explained=2)
    assert by_contract(mutants, explained).share_of_rest == 1.0


def test_what_is_saved_is_loaded_with_the_same_scores(tmp_path: Path) -> None:
    from results import load, save
    from score import Mutant, by_contract, by_suite

    mutants = [
        Mutant("m.x_f__mutmut_1", "sync", {"units": "killed", "contract": "survived"}, "a", "b"),
        Mutant("m.x_f__mutmut_2", "sync", {"units": "killed", "contract": "killed"}),
        Mutant("m.x_f__mutmut_3", "sync", {"units": "not checked", "contract": "not checked"}),
        Mutant("m.x_f__mutmut_4", "sync", {"units": "killed", "contract": "killed"}),
    ]
    save(tmp_path / "results.json", mutants, mutmut="3.8")
    loaded = load(tmp_path / "results.json")
    assert len(loaded) == len(mutants)
    assert by_suite(loaded, []) == by_suite(mutants, [])
    assert by_contract(loaded, []) == by_contract(mutants, [])
