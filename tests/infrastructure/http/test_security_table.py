"""Every requirement of ``security.md`` names a test that exists, and a source."""

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (HERE / "security.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| requirement", "| ---"))
]
FILES = {path.name: path for path in HERE.rglob("test_*.py")}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0])[:60])
def test_a_requirement_has_tests_that_exist_and_a_source(row: list[str]) -> None:
    requirement, tests, source = row
    named = re.findall(r"`(\w+\.py)::(\w+)`", tests)
    assert requirement
    assert source
    assert named
    assert len(named) == tests.count("::")
    for file, name in named:
        tree = ast.parse(FILES[file].read_text(encoding="utf-8"))
        functions = {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in functions, f"{file} has no {name}"
