"""Verdicts in numbers and in one sentence, and the facts of their run, for every report."""

from __future__ import annotations

import html
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Final

from eventpact.domain.dispatcher import Guarantees
from eventpact_contracts.checking.outcomes import CONTRACT_VERSION, LawResult, Outcome, Verdict, gravest
from eventpact_contracts.handlers.laws import HANDLER_LAWS, HandlerLaw
from eventpact_contracts.laws import LAWS, Law

__all__ = [
    "EVERYTHING",
    "GROUPS",
    "SYMBOLS",
    "RunFacts",
    "cell",
    "closing_lines",
    "columns",
    "could_not_run",
    "count",
    "escape",
    "exit_code",
    "figures",
    "group_of",
    "guarantee_rows",
    "headline",
    "is_whole",
    "laws_beside",
    "not_selected",
    "printable",
    "rows",
    "tally",
    "version_of",
]

SYMBOLS = {
    Outcome.UPHELD: "✓",
    Outcome.VIOLATED: "✗",
    Outcome.ABSENT: "○",
    Outcome.UNCLAIMED: "~",
    Outcome.NOT_APPLICABLE: "·",
    Outcome.NOT_SELECTED: "-",
    Outcome.KNOWN: "#",
    Outcome.COULD_NOT_RUN: "!",
}

GROUPS = {
    "R": "Routing",
    "I": "Isolation",
    "A": "Acceptance",
    "C": "Concurrency",
    "L": "Lifecycle",
    "G": "Declared guarantees",
    "H": "Handlers",
    "X": "Interchangeability",
}

EVERYTHING: Final = "all"
"""The row of the test that judges all laws at once, against an independent model."""


def printable(text: str) -> str:
    """Text without escape sequences and lone surrogates, for terminals and files. Line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)


def escape(text: str) -> str:
    """Text for HTML and SVG."""
    return html.escape(printable(text))


def could_not_run(law_id: str, title: str, reason: str) -> LawResult:
    """The result of a law that was not checked, with the reason."""
    return LawResult(law_id, title, Outcome.COULD_NOT_RUN, 0, 0, reason, 0.0)


def not_selected(law_id: str, title: str) -> LawResult:
    """The result of a law that is not in the part of the contract that was asked for."""
    return LawResult(law_id, title, Outcome.NOT_SELECTED, 0, 0, "", 0.0)


def is_whole(verdicts: Iterable[Verdict]) -> bool:
    """Tell whether each verdict is about every law of its contract."""
    return all(verdict.results and not _missing(verdict) for verdict in verdicts)


def _missing(verdict: Verdict) -> set[str]:
    asked = {result.law_id for result in verdict.results if result.outcome is not Outcome.NOT_SELECTED}
    return {law.id for law in laws_beside(result.law_id for result in verdict.results)} - asked


def laws_beside(law_ids: Iterable[str]) -> Sequence[Law | HandlerLaw]:
    """The laws of the contract that these laws belong to: that of handlers, or that of dispatchers."""
    return HANDLER_LAWS if any(law_id.startswith("H") for law_id in law_ids) else LAWS


def group_of(law_id: str) -> str:
    """The heading in CONTRACT.md that a law stands under."""
    return "All laws at once" if law_id == EVERYTHING else GROUPS.get(law_id[:1], "Other laws")


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """The exit code of several verdicts at once."""
    return gravest(verdict.exit_code for verdict in verdicts)


def tally(verdict: Verdict) -> dict[Outcome, int]:
    """The number of laws of each outcome that occurs, the gravest last."""
    counted = Counter(result.outcome for result in verdict.results)
    return {outcome: counted[outcome] for outcome in Outcome if counted[outcome]}


def columns(verdicts: Sequence[Verdict]) -> list[str]:
    """A short name for each dispatcher: without its module, unless two would be called alike."""
    short = [verdict.dispatcher.rpartition(":")[2].rpartition(".")[2] or verdict.dispatcher for verdict in verdicts]
    return [
        printable(name if short.count(name) == 1 else verdict.dispatcher)
        for name, verdict in zip(short, verdicts, strict=True)
    ]


def rows(verdicts: Sequence[Verdict]) -> list[tuple[str, str, list[LawResult | None]]]:
    """Each law of any verdict, in the contract's order: its ID, its title, a result for each verdict."""
    titles: dict[str, str] = {}
    for verdict in verdicts:
        for result in verdict.results:
            titles.setdefault(result.law_id, result.title)
    found = [{result.law_id: result for result in verdict.results} for verdict in verdicts]
    order = [*GROUPS.values(), "Other laws", "All laws at once"]
    ranked = sorted(titles, key=lambda law: order.index(group_of(law)))
    return [(law, titles[law], [results.get(law) for results in found]) for law in ranked]


def guarantee_rows(guarantees: Guarantees | None) -> dict[str, str]:
    """The declaration in words; question marks where it is not known."""
    if guarantees is None:
        return dict.fromkeys(("blocks caller", "retries", "delivery", "ordering"), "?")
    return {
        "blocks caller": "yes" if guarantees.blocks_caller else "no",
        "retries": str(guarantees.retries),
        "delivery": guarantees.delivery.value,
        "ordering": guarantees.ordering.value,
    }


def figures(result: LawResult) -> str:
    """The numbers behind an outcome: observations, and the examples in which they were made."""
    if not result.examples:
        return ""
    return f"{count(result.observations)} in {count(result.examples)}"


def cell(result: LawResult | None) -> str:
    """An outcome, with its sign and the numbers behind it."""
    if result is None:
        return "not asked"
    numbers = figures(result)
    return f"{SYMBOLS[result.outcome]} {result.outcome.value}" + (f" ({numbers})" if numbers else "")


def count(number: int) -> str:
    """A number in at most five characters."""
    return str(number) if number < 10_000 else f"{number / 1000:.0f}k"


def closing_lines(verdicts: Sequence[Verdict], run: RunFacts) -> str:
    """The verdicts in one sentence, and how to repeat the run."""
    return f"{headline(verdicts)} (seed {run.seed}, {run.examples} examples a law)\nTo repeat this run: {run.again}"


def headline(verdicts: Sequence[Verdict]) -> str:
    """The verdicts in one sentence."""
    results = [result for verdict in verdicts for result in verdict.results]
    counted = Counter(result.outcome for result in results)
    stale = sum(result.exit_code == 1 and result.outcome is not Outcome.VIOLATED for result in results)
    said: list[str] = []
    for number, words in (
        (counted[Outcome.VIOLATED], "violated"),
        (stale, "listed as known, but not violated"),
        (counted[Outcome.COULD_NOT_RUN], "could not run"),
    ):
        if number:
            said.append(f"{number} {words}" if said else f"{number} {'law' if number == 1 else 'laws'} {words}")
    if said:
        return ", ".join(said)
    checked = len({r.law_id for r in results if r.outcome is not Outcome.NOT_SELECTED and r.law_id != EVERYTHING})
    if not checked:
        return "nothing was checked"
    known = counted[Outcome.KNOWN]
    no_other = f"{known} known {'violation' if known == 1 else 'violations'} and no other"
    if not is_whole(verdicts):
        of = len(laws_beside(result.law_id for result in results))
        return f"{checked} of {of} laws checked, {no_other if known else 'none violated'}"
    if known:
        return f"{checked} laws checked, {no_other}"
    kind = "handler" if all(verdict.guarantees is None for verdict in verdicts) else "dispatcher"
    who = {1: f"the {kind} conforms", 2: f"both {kind}s conform"}.get(
        len(verdicts), f"all {len(verdicts)} {kind}s conform"
    )
    return f"{checked} laws checked, {who}"


@cache
def version_of(module: str) -> str | None:
    """The version of the distribution that a module belongs to; None for a module of no distribution."""
    package = module.partition(".")[0]
    if not package:
        return None
    # Most distributions are named like their package; to find another one reads the file lists of all.
    with suppress(PackageNotFoundError):
        return version(package)
    for distribution in packages_distributions().get(package, ()):
        with suppress(PackageNotFoundError):
            return version(distribution)
    return None


@dataclass(frozen=True)
class RunFacts:
    """The facts of one run.

    Attributes:
        seed: the number that repeats the run.
        examples: the number of examples a law that was asked for.
        again: the command line that repeats the run.
        kit: the version of this kit.
    """

    seed: int
    examples: int
    again: str = ""
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    contract_version: str = CONTRACT_VERSION
    python: str = field(default_factory=platform.python_version)
    platform: str = field(default_factory=platform.platform)
    kit: str | None = field(default_factory=partial(version_of, "eventpact"))
