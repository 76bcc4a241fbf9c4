"""``eventpact verify module:factory``: checks dispatchers against the contract, and says how they did."""

from __future__ import annotations

import argparse
import difflib
import logging
import secrets
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NoReturn

from eventpact.domain.dispatcher import Guarantees
from eventpact_contracts.checking.check import check, opened
from eventpact_contracts.checking.outcomes import CONTRACT_VERSION, LawResult, Verdict
from eventpact_contracts.laws import LAWS, Law
from eventpact_contracts.reports import badge, could_not_run, document, exit_code, headline, page
from eventpact_contracts.reports.terminal import Progress, Style, matrix, reasons, violations
from eventpact_contracts.subjects.loading import (
    OURS,
    CandidateError,
    NoSuchTargetError,
    Subject,
    find,
    parse_guarantees,
    written,
)

__all__ = ["main"]

BAD_USAGE: Final = 64
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
  eventpact verify shop.events:make --guarantees blocks_caller=yes,retries=0,delivery=at_most_once,ordering=fifo

exit codes: 0 all laws upheld or absent as declared, 1 a law is violated, 2 a law could not run, 64 bad usage
"""


_WRITERS: Final[dict[str, Callable[[Sequence[Verdict], str], str]]] = {
    "json": lambda verdicts, _: document(verdicts),
    "html": lambda verdicts, command: page(verdicts, footer=f"To see it again: {command}"),
    "badge": lambda verdicts, _: badge(verdicts),
}


class _UsageError(Exception):
    """What is wrong with the command line, in one line."""


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
    except (_UsageError, NoSuchTargetError) as error:
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
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="what to check; several are shown side by side")
    parser.add_argument("--law", action="append", metavar="ID", type=_law, help="check only this law; repeatable")
    parser.add_argument("--examples", type=_positive, default=100, metavar="N", help="examples a law (default 100)")
    parser.add_argument("--seed", type=int, metavar="N", help="repeat the run that had this seed (default: a new one)")
    parser.add_argument(
        "--guarantees",
        type=_guarantees,
        metavar="LIST",
        help="what is declared, for a dispatcher without a guarantees attribute",
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
        help="how long to wait for what was accepted (default: its settle_timeout attribute, or 5)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdict as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the verdict as one self-contained page")
    parser.add_argument("--badge", type=Path, metavar="FILE", help="write the verdict as an SVG badge")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def _law(text: str) -> Law:
    by_id = {law.id: law for law in LAWS}
    if text.upper() in by_id:
        return by_id[text.upper()]
    close = difflib.get_close_matches(text.upper(), by_id, 1, cutoff=0.4)
    hint = f"did you mean {close[0]}?" if close else "there are"
    raise argparse.ArgumentTypeError(f"there is no law {text}; {hint} ({', '.join(by_id)})")


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
    files = {option: file for option in _WRITERS if (file := getattr(options, option)) is not None}
    for file in files.values():
        if file.is_dir():
            raise _UsageError(f"cannot write {file}: it is a directory")
        if not file.parent.is_dir():
            raise _UsageError(f"cannot write {file}: there is no directory {file.parent}")
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    laws = [law for law in LAWS if not options.law or law in options.law]
    found = {target: _find(target, options) for target in options.targets}
    progress = None if options.quiet else Progress(sys.stderr, len(found) * len(laws))
    run = _Run(laws, options, seed, progress)
    with _quiet_log():
        verdicts = [run.judge(target, candidate) for target, candidate in found.items()]
    style = Style(sys.stdout)
    print(matrix(verdicts, style))
    for said in filter(None, (violations(verdicts, style), reasons(verdicts, style))):
        print(f"\n{said}")
    print(f"\n{headline(verdicts)} (seed {seed}, {options.examples} examples a law)")
    for option, file in files.items():
        try:
            file.write_text(_WRITERS[option](verdicts, run.again(*options.targets)), encoding="utf-8")
        except OSError as error:
            raise _UsageError(f"cannot write {file}: {error.strerror}") from error
        print(f"wrote {file}")
    return exit_code(verdicts)


@contextmanager
def _quiet_log() -> Generator[None]:
    """Dispatchers log what the laws do to them. Where nobody set up logging, Python would print it all."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def _find(target: str, options: argparse.Namespace) -> Subject | CandidateError:
    try:
        found: Subject = find(
            target,
            guarantees=options.guarantees,
            needs_loop=options.needs_loop,
            settle_timeout=options.settle_timeout,
        )
        return found
    except CandidateError as error:
        return error


@dataclass(frozen=True)
class _Run:
    laws: Sequence[Law]
    options: argparse.Namespace
    seed: int
    progress: Progress | None

    def judge(self, target: str, candidate: Subject | CandidateError) -> Verdict:
        started = time.monotonic()
        name = getattr(candidate, "name", target)
        results = []
        with nullcontext() if isinstance(candidate, CandidateError) else opened(candidate):
            for law in self.laws:
                if self.progress:
                    self.progress.starts(name, law.id, law.title)
                result = self._check(target, law, candidate)
                results.append(result)
                if self.progress:
                    self.progress.ends(name, result)
        guarantees = None if isinstance(candidate, CandidateError) else candidate.guarantees
        return Verdict(CONTRACT_VERSION, name, guarantees, tuple(results), time.monotonic() - started)

    def _check(self, target: str, law: Law, candidate: Subject | CandidateError) -> LawResult:
        if isinstance(candidate, CandidateError):
            return could_not_run(law.id, law.title, str(candidate))
        try:
            result = check(law, candidate, examples=self.options.examples, seed=self.seed)
        except Exception:  # noqa: BLE001
            # The check itself broke: that convicts nobody, and must not pass for a result either.
            return could_not_run(law.id, law.title, f"the check itself failed:\n{traceback.format_exc()}")
        return replace(result, script=self.again(target, laws=[law])) if result.violation else result

    def again(self, *targets: str, laws: Sequence[Law] | None = None) -> str:
        """The command that shows the same again."""
        asked = self.options.law or () if laws is None else laws
        given = [*(f"--law {law.id}" for law in asked), f"--examples {self.options.examples}", f"--seed {self.seed}"]
        if self.options.guarantees:
            given.append(f"--guarantees {written(self.options.guarantees)}")
        if self.options.needs_loop:
            given.append("--needs-loop")
        if self.options.settle_timeout:
            given.append(f"--settle-timeout {self.options.settle_timeout:g}")
        return " ".join(["eventpact verify", *map(shlex.quote, targets), *given])
