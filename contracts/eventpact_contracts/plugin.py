"""The pytest plugin: a run with contract classes ends with the matrix that ``eventpact verify`` prints.

Every process of a run (xdist has several) attaches its results to its test reports. One process, which xdist calls the
controller, receives all reports, prints the matrix and writes the files.

pytest loads this module at every start, so it imports nothing of the kit before a contract class is seen.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
import shutil
import sys
import tempfile
import zlib
from argparse import ArgumentTypeError
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from eventpact_contracts.place import Place, place_of
from eventpact_contracts.reports.files import FORMATS, unwritable, write

if TYPE_CHECKING:
    from eventpact.domain.dispatcher import Guarantees
    from eventpact.testing import RecordingEventDispatcher
    from eventpact_contracts.checking.outcomes import LawResult, Verdict
    from eventpact_contracts.reports.summary import RunFacts

__all__ = ["EXAMPLES", "RESULT", "RUN", "RunOptions", "StashedResult"]

# The package itself is imported by now, and pytest warns of modules that it can no longer rewrite.
_REWRITTEN = ("contract", "checking.check", "laws", "checking.model")
pytest.register_assert_rewrite(
    *(name for part in _REWRITTEN if (name := f"eventpact_contracts.{part}") not in sys.modules)
)

EXAMPLES: Final = 100
"""The number of examples a law, where none is asked for."""

_PROPERTY: Final = "eventpact"
"""The name under which a report carries the place of its test, and its result."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("eventpact", "event dispatcher contract")
    for name, words in FORMATS.items():
        group.addoption(
            f"--eventpact-{name}", metavar="FILE", type=Path, help=f"write the verdicts of contract classes {words}"
        )
    group.addoption(
        "--eventpact-known",
        metavar="FILE",
        type=Path,
        help='laws that are violated for now: lines like L1 = "the reason" (TOML)',
    )
    group.addoption("--eventpact-examples", metavar="N", type=_positive, help=f"examples a law (default {EXAMPLES})")
    group.addoption(
        "--eventpact-seed", metavar="N", type=int, help="repeat the run that had this seed (default: --hypothesis-seed)"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


@dataclass(frozen=True)
class RunOptions:
    """The options of a run, alike in all its processes.

    Attributes:
        examples: the number of examples a law.
        seed: the number that repeats the run.
        folder: where the processes of an xdist run share results; None in a run of one process.
        known: the file that lists known violations, if one was given.
    """

    examples: int
    seed: int
    folder: str | None = None
    known: str | None = None


RUN: Final[pytest.StashKey[RunOptions]] = pytest.StashKey()
"""The key of the run's options in the stash of a configuration."""


@dataclass(frozen=True)
class StashedResult:
    """A contract test's result, and the guarantees that its subject declared when it was opened."""

    result: LawResult
    guarantees: Guarantees | None


RESULT: Final[pytest.StashKey[StashedResult]] = pytest.StashKey()
"""The key of a contract test's result in the stash of its item."""


def pytest_configure(config: pytest.Config) -> None:
    given = getattr(config, "workerinput", None)  # of an xdist worker
    options = _options(config) if given is None else RunOptions(**given[_PROPERTY])
    config.stash[RUN] = options
    config.pluginmanager.register(_Items(), "eventpact-items")
    if given is None:
        files = {name: file for name in FORMATS if (file := config.getoption(f"eventpact_{name}"))}
        if reason := unwritable(files):
            raise pytest.UsageError(reason)
        config.pluginmanager.register(_Matrix(config, options, files), "eventpact-matrix")


def _options(config: pytest.Config) -> RunOptions:
    examples, seed = config.getoption("--eventpact-examples"), config.getoption("--eventpact-seed")
    if seed is None and (asked := config.getoption("--hypothesis-seed", None)) is not None:
        seed = int(asked) if re.fullmatch(r"-?\d+", str(asked)) else zlib.crc32(str(asked).encode())
    seed = secrets.randbelow(2**32) if seed is None else seed
    return RunOptions(EXAMPLES if examples is None else examples, seed, known=_known(config))


def _known(config: pytest.Config) -> str | None:
    """The absolute path of the list of known violations, which can be read."""
    file: Path | None = config.getoption("--eventpact-known")
    if file is None:
        return None
    from eventpact_contracts.checking.known import KnownError, read_known

    try:
        read_known(file)
    except KnownError as error:
        raise pytest.UsageError(str(error)) from error
    return str(file.resolve())


@pytest.fixture
def recording_dispatcher() -> RecordingEventDispatcher:
    """A dispatcher that records accepted events and refuses on request; it has no handlers."""
    from eventpact.testing import RecordingEventDispatcher

    return RecordingEventDispatcher()


class _Items:
    """Tells each report the place of its test, and its result."""

    def __init__(self) -> None:
        self._columns: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        grouped = config.pluginmanager.hasplugin("xdist")
        for item in items:
            if place := place_of(item):
                column = self._columns.setdefault(place.column, _column(place, item, number=len(self._columns)))
                item.user_properties.append((_PROPERTY, {"law": place.law, "column": column}))
                if grouped and not item.get_closest_marker("xdist_group"):
                    item.add_marker(pytest.mark.xdist_group(f"eventpact-{zlib.crc32(place.column.encode()):08x}"))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            if place := place_of(item):
                self._columns[place.column]["selected"].append(place.law)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        # A worker of xdist ends where it is to send half a surrogate pair, and dispatchers log the suite's failures, of
        # which some have one in their text. So what was captured is sent as it would be printed, the result as ASCII.
        report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
        if call.when == "call" and (stashed := item.stash.get(RESULT, None)) is not None:
            from eventpact_contracts.reports.document import result_as_json

            guarantees = stashed.guarantees and stashed.guarantees.to_dict()
            row = {"result": result_as_json(stashed.result), "guarantees": guarantees}
            report.user_properties.append((_PROPERTY, json.dumps(row)))
        return report


def _column(place: Place, item: pytest.Item, number: int) -> dict[str, Any]:
    cls: Any = item.cls  # type: ignore[attr-defined]  # a contract test is a method
    target = getattr(cls, "target", None) or cls.__module__
    module = str(target).partition(":")[0]
    return {"name": place.column, "kind": place.kind, "module": module, "number": number, "selected": []}


@dataclass
class _Column:
    """The results of one contract class with one set of parameters."""

    name: str
    kind: str
    module: str
    number: int
    selected: list[str]
    results: dict[str, LawResult] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    """The reason why there is no result of a law, by ID."""
    guarantees: Guarantees | None = None
    seconds: float = 0.0


class _Matrix:
    """Collects the results of all processes, prints the matrix and writes the files."""

    def __init__(self, config: pytest.Config, options: RunOptions, files: Mapping[str, Path]) -> None:
        self._config = config
        self._options = options
        self._files = files
        self._columns: dict[str, _Column] = {}
        self._said: list[str] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give an xdist worker the options of the run."""
        folder = self._options.folder or tempfile.mkdtemp(prefix="eventpact-")
        self._options = replace(self._options, folder=folder)
        node.workerinput[_PROPERTY] = vars(self._options)

    def pytest_unconfigure(self) -> None:
        if self._options.folder is not None:
            shutil.rmtree(self._options.folder, ignore_errors=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        mine = [value for name, value in report.user_properties if name == _PROPERTY]
        if not mine:
            return
        # Other plugins write properties into their files, and these are for the matrix alone.
        report.user_properties[:] = [(name, value) for name, value in report.user_properties if name != _PROPERTY]
        place: Any = mine[0]
        column = self._columns.setdefault(place["column"]["name"], _Column(**place["column"]))
        column.seconds += report.duration
        for row in mine[1:]:
            self._take(column, json.loads(str(row)))
        if report.skipped and not hasattr(report, "wasxfail"):
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            column.reasons.setdefault(place["law"], why.removeprefix("Skipped: "))
        elif report.failed and report.when != "teardown":
            last = report.longreprtext.strip().splitlines()[-1:]
            column.reasons.setdefault(place["law"], f"the test failed in its {report.when}: {' '.join(last)}")

    @staticmethod
    def _take(column: _Column, row: Any) -> None:
        from eventpact.domain.dispatcher import Guarantees
        from eventpact_contracts.reports.document import result_from_json

        result = result_from_json(row["result"])
        column.results[result.law_id] = result
        if row["guarantees"]:
            column.guarantees = Guarantees.from_dict(row["guarantees"])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._columns:
            return
        from eventpact_contracts.reports.summary import exit_code

        verdicts = self._verdicts()
        failed = bool(exit_code(verdicts))  # also where a law was skipped, which could not run
        try:
            self._said += write(self._files, verdicts, self._facts())
        except OSError as error:
            failed = True
            self._said.append(f"cannot write {error.filename}: {error.strerror}")
        if failed:
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._columns:
            return
        from eventpact_contracts.reports.summary import closing_lines
        from eventpact_contracts.reports.terminal import Style, matrix, reasons

        verdicts = self._verdicts()
        style = Style(terminalreporter._tw._file, colour=terminalreporter.hasmarkup)
        terminalreporter.section("event dispatcher contract")
        terminalreporter.write_line(matrix(verdicts, style))
        if said := reasons(verdicts, style):
            terminalreporter.write_line(f"\n{said}")
        terminalreporter.write_line(f"\n{closing_lines(verdicts, self._facts())}")
        for line in self._said:
            terminalreporter.write_line(line)

    def _facts(self) -> RunFacts:
        from eventpact_contracts.reports.summary import RunFacts

        given = [str(part) for part in self._config.invocation_params.args]
        if not any(part.partition("=")[0] == "--eventpact-seed" for part in given):
            given.append(f"--eventpact-seed={self._options.seed}")
        return RunFacts(self._options.seed, self._options.examples, shlex.join(["pytest", *given]))

    def _verdicts(self) -> list[Verdict]:
        columns = sorted(self._columns.values(), key=lambda column: column.number)
        return [_verdict(column) for column in columns]


def _verdict(column: _Column) -> Verdict:
    from eventpact_contracts.checking.outcomes import CONTRACT_VERSION, Verdict

    return Verdict(
        CONTRACT_VERSION,
        column.name,
        column.guarantees,
        tuple(_results(column)),
        column.seconds,
        column.module,
    )


def _results(column: _Column) -> Iterator[LawResult]:
    from eventpact_contracts.handlers.laws import HANDLER_LAWS
    from eventpact_contracts.laws import LAWS
    from eventpact_contracts.reports.summary import EVERYTHING, could_not_run, not_selected

    laws = HANDLER_LAWS if column.kind == "handler" else LAWS
    titles = {law.id: law.title for law in laws} | ({} if column.kind == "handler" else {EVERYTHING: "laws together"})
    for law, title in titles.items():
        if law in column.results:
            yield column.results[law]
        elif law in column.selected:
            yield could_not_run(law, title, column.reasons.get(law, "the run ended before it"))
        else:
            yield not_selected(law, title)
