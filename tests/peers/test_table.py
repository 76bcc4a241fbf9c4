"""The table of known libraries is of the results beside it, and its adapters are as small as it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from peers.libraries import LIBRARIES, Library
from peers.table import HERE, documented, markdown

FACTS: dict[str, Any] = json.loads((HERE / "peers.json").read_text("utf-8"))
README = (HERE / "README.md").read_text("utf-8")
ROWS = {row["library"]: row for row in FACTS["libraries"]}
_LINES = 30


def test_the_table_is_of_the_results() -> None:
    assert markdown(FACTS, documented()) == README, "run python -m peers --render in tests"


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_the_table_names_the_versions_that_were_judged(library: Library) -> None:
    [row] = [line for line in README.splitlines() if line.startswith(f"| [{library.name}](")]
    versions = ROWS[library.name]["versions"]
    assert set(versions) == set(library.distributions)
    assert all(version in row for version in versions.values())


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_whatever_a_library_does_not_has_a_trace_a_source_and_a_look_by_hand(library: Library) -> None:
    row, said = ROWS[library.name], documented()[library.name]
    for law, result in row["laws"].items():
        if result["outcome"] == "does not" and "doubted" not in said[law]:
            assert result["trace"]
            assert "url" not in said[law] or re.match(r"https://\S+$", said[law]["url"])
            assert row["by_hand"].get(law) or said[law]["by_hand"]


@pytest.mark.parametrize("adapter", sorted((HERE / "adapters").glob("[!_]*.py")), ids=lambda path: path.stem)
def test_an_adapter_has_at_most_thirty_lines(adapter: Path) -> None:
    assert len(adapter.read_text("utf-8").splitlines()) <= _LINES


def test_the_table_says_does_not_and_never_fails() -> None:
    ours = re.sub(r"```.*?```", "", README, flags=re.S)
    assert not re.search(r"\bfails\b", ours)
