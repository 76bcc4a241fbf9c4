"""Columns of the matrix: the results of one contract class with one set of parameters, computed once a run.

The first test of a column computes the results of all its laws; the others read them. Processes of an xdist run share
them through a file, so that the tests of a class may be distributed in any way, and its engine is opened once.
"""

from __future__ import annotations

import difflib
import inspect
import json
import os
import shlex
import sqlite3
import unittest
import zlib
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from eventpact.domain.dispatcher import Guarantees
from eventpact_contracts.checking.known import KnownError, known_in, read_known
from eventpact_contracts.checking.outcomes import LawResult, Outcome, with_known
from eventpact_contracts.place import place_of
from eventpact_contracts.plugin import RESULT, RUN, RunOptions, StashedResult
from eventpact_contracts.reports.document import result_as_json, result_from_json
from eventpact_contracts.reports.summary import could_not_run
from eventpact_contracts.reports.terminal import explain

__all__ = ["Check", "ContractTests", "each_law", "end_test", "run_law_test", "run_of"]

Check = Callable[[Any, list[str], int, int], Sequence[LawResult]]
"""Takes a contract class's instance, the IDs of laws, a number of examples and a seed."""

_RESULTS: Final[pytest.StashKey[dict[str, Mapping[str, LawResult] | Exception]]] = pytest.StashKey()
"""The results of each column by law, or the error that kept them from being had."""

_LIKENESS: Final = 0.85
"""Names that are as like one another as this are one name, misspelt."""

_PATIENCE_SECONDS: Final = 3600.0
"""The time for which a process waits for another that computes the results of a column."""


def each_law(laws: Sequence[Any]) -> pytest.MarkDecorator:
    """Parametrise a test by these laws, so that ``-k L1`` selects one."""
    return pytest.mark.parametrize("law", laws, ids=lambda law: f"{law.id}-{law.title.replace(' ', '_')}")


class ContractTests(ABC):
    """The hooks of every contract class, and the guard of its one test.

    A law's test cannot be passed by leaving it out: where it is overridden or skipped, its law *could not run*.
    """

    needs_loop: ClassVar[bool] = False
    settle_timeout: ClassVar[float] = 5.0
    known_violations: ClassVar[Mapping[str, str]] = {}
    contract_of: ClassVar[str]
    laws: ClassVar[Sequence[Any]]
    _law_test: ClassVar[Any]

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if ContractTests in cls.__bases__:
            cls._law_test = cls.__dict__["test_law"]
        _check_hooks(cls)
        try:
            known_in(cls)
        except KnownError as error:
            raise TypeError(str(error)) from None
        if getattr(cls, "test_law", None) is not cls._law_test:
            setattr(cls, "test_law", _overridden(cls.laws))  # noqa: B010 - an assignment would declare it untyped


def _check_hooks(cls: type[ContractTests]) -> None:
    """Refuse what would be overlooked: a hook that is misspelt, and tests that pytest does not parametrise.

    Raises:
        TypeError: says which.
    """
    if issubclass(cls, unittest.TestCase):
        raise TypeError(
            f"{cls.__qualname__} is a unittest.TestCase, whose tests have no parameters; leave that base out"
        )
    ours = [base for base in cls.__mro__ if base.__module__.startswith("eventpact_contracts")]
    hooks = {
        "unavailable",
        *(name for base in ours for name in (*vars(base), *inspect.get_annotations(base))),
    }
    for name in vars(cls).keys() - hooks:
        if close := difflib.get_close_matches(name, hooks, 1, _LIKENESS):
            raise TypeError(f"there is no hook {name}; did you mean {close[0]}? ({cls.__qualname__})")


def _overridden(laws: Sequence[Any]) -> Any:
    @each_law(laws)
    def test_law(self: ContractTests, law: Any, request: pytest.FixtureRequest) -> None:
        reason = f"{type(self).__qualname__} overrides test_law. Take that away: a law is not checked by another test."
        if self.contract_of == "dispatcher":
            reason += " The guarantees say what a dispatcher does not promise."
        end_test(self, request, could_not_run(law.id, law.title, reason))

    return test_law


def run_of(request: pytest.FixtureRequest) -> RunOptions:
    """The options of the run; without the plugin, which has them, the test fails."""
    options = request.config.stash.get(RUN, None)
    if options is None:
        pytest.fail(
            "could not run: the pytest plugin eventpact is not loaded; take -p no:eventpact away, or where plugins are"
            " not loaded by themselves, give -p eventpact_contracts.plugin",
            pytrace=False,
        )
    return options


def run_law_test(test: Any, request: pytest.FixtureRequest, law_id: str, check: Check) -> None:
    """Check the laws of the test's column, unless that is done, and end the test as the result of its law says."""
    place, run = place_of(request.node), run_of(request)
    assert place is not None
    results = request.config.stash.setdefault(_RESULTS, {})
    if place.column not in results:
        others = filter(None, map(place_of, request.session.items))
        laws = [other.law for other in others if other.column == place.column]
        try:
            found = _shared(run.folder, place.column, lambda: check(test, laws, run.examples, run.seed))
        except Exception as error:  # noqa: BLE001 - raised below, for each of the laws
            results[place.column] = error
        else:
            results[place.column] = {result.law_id: result for result in found}
    known = results[place.column]
    if isinstance(known, Exception):
        raise known
    end_test(test, request, known[law_id])


def _shared(folder: str | None, column: str, compute: Callable[[], Sequence[LawResult]]) -> Sequence[LawResult]:
    """The results of a column, computed by whichever process of the run comes first."""
    if folder is None:
        return compute()
    Path(folder).mkdir(parents=True, exist_ok=True)
    file = Path(folder, f"{zlib.crc32(column.encode()):08x}.db")
    connection = sqlite3.connect(file, timeout=_PATIENCE_SECONDS, isolation_level=None)
    try:
        # The lock of a process that is killed is free again, and the next computes.
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("CREATE TABLE IF NOT EXISTS result (place INTEGER, row TEXT)")
        rows = connection.execute("SELECT row FROM result ORDER BY place").fetchall()
        if rows:
            return [result_from_json(json.loads(row)) for (row,) in rows]
        results = compute()
        written = [(place, json.dumps(result_as_json(result))) for place, result in enumerate(results)]
        connection.executemany("INSERT INTO result VALUES (?, ?)", written)
        connection.execute("COMMIT")
        return results
    finally:
        connection.close()


def end_test(test: Any, request: pytest.FixtureRequest, result: LawResult) -> None:
    """Stash the result for the matrix, and end the test as the result says."""
    law = f"law {result.law_id} ({result.title})"
    try:
        result = with_known(_with_script(request, result), {**known_in(test), **_known(test, request)})
    except KnownError as error:  # of an instance, which a fixture may have given a list of its own
        result = could_not_run(result.law_id, result.title, str(error))
    guarantees = getattr(test, "guarantees", None)
    request.node.stash[RESULT] = StashedResult(result, guarantees if isinstance(guarantees, Guarantees) else None)
    if result.outcome is Outcome.COULD_NOT_RUN:
        pytest.fail(f"{law} could not run: {result.detail}", pytrace=False)
    if result.outcome is Outcome.KNOWN:
        pytest.xfail(f"{law} is violated, which is known: {result.known}")
    if result.outcome is Outcome.VIOLATED:
        pytest.fail(explain(type(test).__qualname__, result), pytrace=False)
    if result.exit_code:
        pytest.fail(f"{law} is {result.outcome.value}: {result.detail}", pytrace=False)
    if result.outcome is Outcome.NOT_APPLICABLE:
        pytest.skip(f"{law} is not applicable: {result.detail}")


def _known(test: Any, request: pytest.FixtureRequest) -> Mapping[str, str]:
    """The violations that the run lists as known: those of the target, and those of the class by its node ID."""
    file, place = run_of(request).known, place_of(request.node)
    if file is None or place is None:
        return {}
    known = read_known(Path(file))
    return known.of(str(getattr(test, "target", None))) | known.of(place.column.partition("[")[0])


def _with_script(request: pytest.FixtureRequest, result: LawResult) -> LawResult:
    """The result with the command that shows a violation again."""
    if result.violation is None:
        return result
    node_id, run = str(request.node.nodeid), run_of(request)
    place = node_id[: node_id.rindex("]") + 1] if "]" in node_id else node_id  # without the group that xdist adds
    path, colons, name = place.partition("::")
    path = os.path.relpath(request.config.rootpath / path, request.config.invocation_params.dir)
    where = shlex.quote(f"{path}{colons}{name}")
    options = f"--eventpact-seed={run.seed} --eventpact-examples={run.examples}"
    return replace(result, script=f"pytest {where} {options}")
