"""The pytest plugin: after any run that holds contract classes, the same matrix that ``eventpact verify`` prints.

It is loaded at every start of pytest, so it imports nothing of the kit before a contract class was seen.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from eventpact_contracts.checking.outcomes import LawResult, Verdict

__all__ = ["RESULT", "asked"]

# The package itself is imported by now, and pytest warns of what it can no longer rewrite.
_REWRITTEN = ("contract", "checking.check", "laws", "checking.model")
pytest.register_assert_rewrite(
    *(name for part in _REWRITTEN if (name := f"eventpact_contracts.{part}") not in sys.modules)
)

RESULT: Final[pytest.StashKey[LawResult]] = pytest.StashKey()
"""Where a contract test leaves the result of its law, in the stash of its item."""

_LAW: Final = re.compile(r"test_([A-Z]\d+)(?:_|$)")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("eventpact", "event dispatcher contract")
    group.addoption(
        "--eventpact-json", metavar="FILE", type=Path, help="write the verdicts of contract classes as JSON"
    )
    group.addoption("--eventpact-html", metavar="FILE", type=Path, help="write them as one self-contained page")
    group.addoption("--eventpact-examples", metavar="N", type=_positive, help="examples a law (default 100)")
    group.addoption("--eventpact-seed", metavar="N", type=int, help="repeat the run that had this seed")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Matrix(config), "eventpact-matrix")


def asked(config: pytest.Config) -> tuple[int | None, int | None]:
    """The examples and the seed that the command line asks for."""
    return config.getoption("--eventpact-examples", None), config.getoption("--eventpact-seed", None)


@dataclass
class _Class:
    """A contract class in this run."""

    cls: type[Any]
    name: str
    items: dict[str, pytest.Item] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why there is no result of a law, by ID."""
    seconds: float = 0.0


class _Matrix:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._classes: dict[str, _Class] = {}
        self._of_item: dict[str, tuple[_Class, str]] = {}

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        cls = getattr(item, "cls", None)
        if cls is None or not _is_contract(cls) or not (found := _LAW.match(getattr(item, "originalname", item.name))):
            return
        parameters = f"[{item.callspec.id}]" if hasattr(item, "callspec") else ""
        name = item.nodeid.removesuffix(parameters).rpartition("::")[0] + parameters
        contract = self._classes.setdefault(name, _Class(cls, name))
        contract.items[found[1]] = item
        self._of_item[item.nodeid] = contract, found[1]

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        for item in items:
            self._note(item.nodeid, "deselected")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid not in self._of_item:
            return
        contract, _ = self._of_item[report.nodeid]
        contract.seconds += report.duration
        if report.skipped:
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            self._note(report.nodeid, why.removeprefix("Skipped: "))
        elif report.failed and report.when != "teardown":
            last = report.longreprtext.strip().splitlines()[-1:]
            self._note(report.nodeid, f"the test failed in its {report.when}: {' '.join(last)}")

    def _note(self, nodeid: str, why: str) -> None:
        if nodeid in self._of_item:
            contract, law = self._of_item[nodeid]
            contract.reasons.setdefault(law, why)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._config.option.collectonly:
            return
        verdicts = list(self._verdicts())
        if not verdicts:
            return
        from eventpact_contracts.reports import document, headline, page
        from eventpact_contracts.reports.terminal import Style, matrix, reasons

        style = Style(terminalreporter._tw._file, colour=terminalreporter.hasmarkup)
        terminalreporter.section("event dispatcher contract")
        terminalreporter.write_line(matrix(verdicts, style))
        if said := reasons(verdicts, style):
            terminalreporter.write_line(f"\n{said}")
        terminalreporter.write_line(f"\n{headline(verdicts)}")
        for option, write in (("eventpact_json", document), ("eventpact_html", page)):
            if file := self._config.getoption(option):
                file.write_text(write(verdicts), encoding="utf-8")
                terminalreporter.write_line(f"wrote {file}")

    def _verdicts(self) -> Iterator[Verdict]:
        """One for each contract class of which something was selected."""
        for contract in self._classes.values():
            if any(contract.reasons.get(law) != "deselected" for law in contract.items):
                yield _verdict(contract)


def _is_contract(cls: type[Any]) -> bool:
    return any(
        base.__name__ == "EventDispatcherContract" and base.__module__.startswith("eventpact_contracts.")
        for base in cls.__mro__
    )


def _law_tests(cls: type[Any]) -> dict[str, str]:
    """The contract's own test of each law, by ID."""
    [base] = [base for base in cls.__mro__ if _is_contract(base) and not any(map(_is_contract, base.__bases__))]
    return {found[1]: name for name in dir(base) if (found := _LAW.match(name))}


def _overrider(cls: type[Any], test: str) -> str | None:
    """The class that puts a test of its own in the place of the contract's."""
    [owner, *others] = [base for base in cls.__mro__ if test in vars(base)]
    return owner.__qualname__ if others else None


def _verdict(contract: _Class) -> Verdict:
    from eventpact_contracts.checking.outcomes import CONTRACT_VERSION, Verdict
    from eventpact_contracts.laws import LAWS
    from eventpact_contracts.reports import could_not_run

    tests = _law_tests(contract.cls)
    results = []
    for law in LAWS:
        test, item = tests.get(law.id, ""), contract.items.get(law.id)
        result = item.stash.get(RESULT, None) if item is not None else None
        if owner := _overrider(contract.cls, test):
            result = could_not_run(law.id, law.title, f"{owner} overrides {test}; remove it there")
        elif result is None:
            missing = "not selected" if item is None else "its test ended without a result"
            result = could_not_run(law.id, law.title, contract.reasons.get(law.id, missing))
        results.append(result)
    guarantees = getattr(contract.cls, "guarantees", None)
    return Verdict(CONTRACT_VERSION, contract.name, guarantees, tuple(results), contract.seconds)
