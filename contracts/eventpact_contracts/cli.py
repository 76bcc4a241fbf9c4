"""``eventpact verify module:factory``: check dispatchers and handlers against the contract, and print the verdict."""

from __future__ import annotations

import argparse
import logging
import secrets
import shlex
import sys
import textwrap
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from eventpact.domain.dispatcher import Guarantees
from eventpact_contracts.checking.check import CouldNotRunError, play, results_of
from eventpact_contracts.checking.jobs import play_in_jobs, usual_jobs
from eventpact_contracts.checking.known import Known, KnownError, known_in, read_known, unknown_law
from eventpact_contracts.checking.outcomes import CONTRACT_VERSION, Evidence, LawResult, Outcome, Verdict, with_known
from eventpact_contracts.driver.recorder import logging_to
from eventpact_contracts.handlers.check import check_handler
from eventpact_contracts.handlers.laws import HANDLER_LAWS, HandlerLaw
from eventpact_contracts.laws import LAWS, Law
from eventpact_contracts.reports.files import FORMATS, unwritable, write
from eventpact_contracts.reports.summary import RunFacts, closing_lines, could_not_run, exit_code
from eventpact_contracts.reports.terminal import Progress, Style, matrix, reasons, violations
from eventpact_contracts.subjects.loading import (
    OURS,
    CandidateError,
    NoSuchTargetError,
    find,
    parse_guarantees,
    written,
)
from eventpact_contracts.subjects.subject import Subject

__all__ = ["main"]

BAD_USAGE: Final = 64
_REPEATS: Final = 20
"""Runs of the command that shows a violation again, where it does not show each time."""

_LONG_WAIT_SECONDS: Final = 5.0

INTERRUPTED: Final = 130

_DESCRIPTION = """\
Checks dispatchers against the EventDispatcher contract, and prints laws by dispatchers.

TARGET is module:factory, where factory is a class or a callable that takes handlers and on_failure and returns a
dispatcher, or a context manager that yields one; or it is an EventDispatcherContract class. The current directory is
importable. Ours have short names: {ours}.
"""

_EPILOGUE = """\
examples:
  eventpact verify sync asyncio
  eventpact verify shop.events:ShopDispatcher --html verdict.html
  eventpact verify shop.events:make --law R1 --law L1 --seed 7
  eventpact verify shop.events:make --known known.toml --junit verdict.xml
  eventpact verify shop.events:make --guarantees blocks_caller=yes,retries=0,delivery=at_most_once,ordering=fifo

exit codes: 0 no law is violated, or those alone that --known lists; 1 another is, or a listed one holds;
2 a law could not run; 64 bad usage
"""


class _UsageError(Exception):
    """A fault of the command line, in one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UsageError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``eventpact verify`` and return its exit code: 0, 1, 2, or 64 for bad usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    if not arguments:
        parser.print_help(sys.stderr)
        return BAD_USAGE
    try:
        try:
            options = parser.parse_args(arguments)
        except SystemExit:  # --help
            return 0
        return _verify(options)
    except (_UsageError, NoSuchTargetError, KnownError) as error:
        print(f"eventpact verify: {error}", file=sys.stderr)
        return BAD_USAGE
    except KeyboardInterrupt:
        print("\neventpact verify: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="eventpact verify",
        description=_DESCRIPTION.format(ours=", ".join(OURS)),
        epilog=_EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="module:factory; several are shown side by side")
    parser.add_argument("--list", action="store_true", help="print every law with its words, and check nothing")
    parser.add_argument("--law", action="append", metavar="ID", type=_law, help="check only this law; repeatable")
    parser.add_argument("--examples", type=_positive, default=100, metavar="N", help="examples a law (default 100)")
    parser.add_argument("--seed", type=int, metavar="N", help="repeat the run that had this seed (default: a new one)")
    parser.add_argument(
        "--guarantees",
        type=_guarantees,
        metavar="LIST",
        help="the declaration of a dispatcher that has no guarantees attribute",
    )
    parser.add_argument(
        "--needs-loop",
        action="store_true",
        default=None,
        help="build and drive it inside a running event loop (default: its needs_loop attribute)",
    )
    parser.add_argument(
        "--settle-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="how long to wait for accepted events (default: its settle_timeout attribute, or 5)",
    )
    parser.add_argument(
        "--known", type=Path, metavar="FILE", help='laws that are violated for now: lines like L1 = "the reason" (TOML)'
    )
    parser.add_argument(
        "--jobs",
        type=_positive,
        metavar="N",
        help="divide the scenarios among N processes (default: 3 where max_open is more than 1; where there are two"
        " cores, 2 for all laws of a dispatcher that declares at_most_once; else 1)",
    )
    parser.add_argument(
        "--repeat", type=_positive, default=1, metavar="N", help="check up to N times, until a law is violated"
    )
    for name, words in FORMATS.items():
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"write the verdict {words}")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def _law(text: str) -> str:
    if unknown_law(text.upper()):
        raise argparse.ArgumentTypeError(unknown_law(text))
    return text.upper()


def _positive(text: str) -> int:
    with suppress(ValueError):
        if (number := int(text)) > 0:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (number := float(text)) < float("inf"):
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no positive number of seconds")


def _guarantees(text: str) -> Guarantees:
    try:
        return parse_guarantees(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _verify(options: argparse.Namespace) -> int:
    if options.list:
        _list_laws()
        return 0
    if not options.targets:
        raise _UsageError("there is no TARGET; write module:factory, e.g. shop.events:ShopDispatcher")
    files = {option: file for option in FORMATS if (file := getattr(options, option)) is not None}
    if reason := unwritable(files):
        raise _UsageError(reason)
    known = read_known(options.known) if options.known else Known()
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    found = {target: _find(target, options) for target in options.targets}
    laws = {target: _laws_of(target, candidate, options.law) for target, candidate in found.items()}
    progress = None if options.quiet else Progress(sys.stderr)
    run = _Verification(options, seed, known, progress)
    with logging_to(logging.NullHandler()):  # lest Python print the records that laws provoke
        verdicts = [run.verdict_on(target, candidate, laws[target]) for target, candidate in found.items()]
    style = Style(sys.stdout)
    print(matrix(verdicts, style))
    for said in filter(None, (violations(verdicts, style), reasons(verdicts, style), *run.remarks)):
        print(f"\n{said}")
    facts = RunFacts(seed, options.examples, run.again(*options.targets))
    print(f"\n{closing_lines(verdicts, facts)}")
    try:
        for line in write(files, verdicts, facts):
            print(line)
    except OSError as error:
        raise _UsageError(f"cannot write {error.filename}: {error.strerror}") from error
    return exit_code(verdicts)


def _list_laws() -> None:
    laws: list[Law | HandlerLaw] = [*LAWS, *HANDLER_LAWS]
    for law in laws:
        print(textwrap.fill(f"{law.id} {law.title}: {law.promise}".replace("`", ""), 100, subsequent_indent="    "))


def _laws_of(target: str, candidate: Any, asked: Sequence[str] | None) -> Sequence[Law | HandlerLaw]:
    """The laws to be checked of a target: of those that are asked for, if any are."""
    of_handlers = getattr(candidate, "contract_of", "dispatcher") == "handler"
    laws: Sequence[Law | HandlerLaw] = HANDLER_LAWS if of_handlers else LAWS
    chosen = [law for law in laws if not asked or law.id in asked]
    if not chosen:
        raise _UsageError(f"{target} has no law {' or '.join(asked or ())}; it has {', '.join(law.id for law in laws)}")
    return chosen


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The options that stand for hooks."""
    return {name: getattr(options, name) for name in ("guarantees", "needs_loop", "settle_timeout")}


def _find(target: str, options: argparse.Namespace) -> Any:
    try:
        candidate = find(target, **_given(options))
    except CouldNotRunError as error:
        return error
    try:
        known_in(candidate)
    except KnownError as error:
        return CandidateError(str(error), getattr(candidate, "contract_of", "dispatcher"))
    return candidate


@dataclass
class _Verification:
    options: argparse.Namespace
    seed: int
    known: Known
    progress: Progress | None
    remarks: list[str] = field(default_factory=list)
    """Sentences about the run, for after the matrix."""

    def verdict_on(self, target: str, candidate: Any, laws: Sequence[Law | HandlerLaw]) -> Verdict:
        """Check a target: once, or until a law is violated."""
        started = time.monotonic()
        known = {**known_in(candidate), **self.known.of(target)}
        for number in range(1, self.options.repeat + 1):
            results = [with_known(result, known) for result in self._check(target, laws, candidate)]
            violated = any(result.violation for result in results)
            if violated or number == self.options.repeat:
                break
        if self.options.repeat > 1:
            said = (
                f"violated in run {number} of {self.options.repeat}" if violated else f"not violated in {number} runs"
            )
            self.remarks.append(f"{target}: {said}")
        if self.progress:
            self.progress.end()
        return Verdict(
            CONTRACT_VERSION,
            getattr(candidate, "name", target),
            getattr(candidate, "guarantees", None),
            tuple(results),
            time.monotonic() - started,
            OURS.get(target, target).partition(":")[0],
        )

    def _check(self, target: str, laws: Sequence[Law | HandlerLaw], candidate: Any) -> list[LawResult]:
        try:
            if isinstance(candidate, CouldNotRunError):
                raise candidate
            of_dispatchers = [law for law in laws if isinstance(law, Law)]
            results = self._check_dispatcher(target, of_dispatchers, candidate) if of_dispatchers else []
            for number, law in enumerate(law for law in laws if isinstance(law, HandlerLaw)):
                self._progress(candidate, f"{law.id} {law.title}", number, len(laws))
                results.append(check_handler(law, candidate, examples=self.options.examples, seed=self.seed))
        except CouldNotRunError as error:
            return [could_not_run(law.id, law.title, str(error)) for law in laws]
        except Exception:  # noqa: BLE001
            # The check itself broke: that convicts nobody, and must not pass for a result either.
            failed = f"the check itself failed:\n{traceback.format_exc()}"
            return [could_not_run(law.id, law.title, failed) for law in laws]
        return [self._to_follow(target, result) for result in results]

    def _check_dispatcher(self, target: str, laws: Sequence[Law], candidate: Any) -> list[LawResult]:
        examples, seed = self.options.examples, self.seed
        jobs = self.options.jobs or usual_jobs(Subject.of(candidate), laws)
        if jobs > 1:
            self._progress(candidate, f"in {jobs} processes", 0, 1)
            evidence = play_in_jobs(laws, target, _given(self.options), examples=examples, seed=seed, jobs=jobs)
        else:
            evidence = play(laws, candidate, examples=examples, seed=seed, progress=partial(self._progress, candidate))
        if said := _waits(evidence):
            self.remarks.append(f"{getattr(candidate, 'name', target)}: {said}")
        return results_of(laws, candidate, evidence)

    def _progress(self, candidate: Any, part: str, done: int, total: int) -> None:
        if self.progress:
            self.progress.at(getattr(candidate, "name", ""), part, done, total)

    def _to_follow(self, target: str, result: LawResult) -> LawResult:
        """The result in terms of the command line: hooks as options, and the command that shows a violation again."""
        if result.outcome is Outcome.COULD_NOT_RUN:
            return replace(result, detail=result.detail.replace(" settle_timeout", " --settle-timeout"))
        if result.violation is None:
            return result
        seen, runs = result.replays or (1, 1)
        repeat = f" --repeat {_REPEATS}" if seen < runs else ""
        return replace(result, script=f"{self.again(target, laws=[result.law_id])}{repeat}")

    def again(self, *targets: str, laws: Sequence[str] | None = None) -> str:
        """The command that shows the same again."""
        asked = self.options.law or () if laws is None else laws
        given = [*(f"--law {law}" for law in asked), f"--examples {self.options.examples}", f"--seed {self.seed}"]
        if self.options.guarantees:
            given.append(f"--guarantees {written(self.options.guarantees)}")
        if self.options.needs_loop:
            given.append("--needs-loop")
        if self.options.settle_timeout:
            given.append(f"--settle-timeout {self.options.settle_timeout:g}")
        if laws is None:
            given += [f"--jobs {self.options.jobs}"] if self.options.jobs else []
        if self.options.known and laws is None:
            given.append(f"--known {shlex.quote(str(self.options.known))}")
        return " ".join(["eventpact verify", *map(shlex.quote, targets), *given])


def _waits(evidence: Evidence) -> str:
    """A word on a run that was stopped, or that spent its time on waiting in vain."""
    if evidence.stopped:
        return evidence.stopped.replace("settle_timeout", "--settle-timeout")
    if evidence.waited < max(_LONG_WAIT_SECONDS, evidence.seconds / 3):
        return ""
    return (
        f"{evidence.waited:.0f} of {evidence.seconds:.0f} s went into waiting in vain for accepted events; a lower"
        " --settle-timeout shortens that"
    )
