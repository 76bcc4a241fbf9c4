"""What a verdict comes to, in numbers and in one sentence: shared by every report."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Sequence

from eventpact.domain.dispatcher import Guarantees
from eventpact_contracts.checking.outcomes import LawResult, Outcome, Verdict
from eventpact_contracts.laws import LAWS

__all__ = [
    "GROUPS",
    "SYMBOLS",
    "columns",
    "could_not_run",
    "escape",
    "exit_code",
    "figures",
    "group_of",
    "guarantee_rows",
    "headline",
    "is_whole",
    "printable",
    "rows",
    "tally",
]

SYMBOLS = {
    Outcome.UPHELD: "✓",
    Outcome.VIOLATED: "✗",
    Outcome.ABSENT: "○",
    Outcome.UNCLAIMED: "~",
    Outcome.COULD_NOT_RUN: "!",
}

GROUPS = {
    "R": "Routing",
    "I": "Isolation",
    "A": "Acceptance",
    "C": "Concurrency",
    "L": "Lifecycle",
    "G": "Declared guarantees",
    "X": "Interchangeability",
}


def printable(text: str) -> str:
    """The text without what a terminal would obey or a file cannot hold; lines stay lines."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)


def escape(text: str) -> str:
    """The text as HTML and SVG can hold it."""
    return html.escape(printable(text))


def could_not_run(law_id: str, title: str, reason: str) -> LawResult:
    """What became of a law that was not checked at all."""
    return LawResult(law_id, title, Outcome.COULD_NOT_RUN, 0, 0, reason, 0.0)


def is_whole(verdicts: Iterable[Verdict]) -> bool:
    """Whether each law of the contract was asked of each dispatcher."""
    return all({law.id for law in LAWS} <= {result.law_id for result in verdict.results} for verdict in verdicts)


def group_of(law_id: str) -> str:
    """The heading in CONTRACT.md that a law stands under."""
    return GROUPS.get(law_id[:1], "Other laws")


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """The exit code of several verdicts at once: a violation outweighs what could not run."""
    codes = {verdict.exit_code for verdict in verdicts}
    return 1 if 1 in codes else max(codes, default=2)


def tally(verdict: Verdict) -> dict[Outcome, int]:
    """How many laws came to each outcome; only those that occur, the gravest last to be read."""
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
    """Each law that any verdict speaks of, in the contract's order: its ID, its title, a result for each verdict."""
    titles: dict[str, str] = {}
    for verdict in verdicts:
        for result in verdict.results:
            titles.setdefault(result.law_id, result.title)
    found = [{result.law_id: result for result in verdict.results} for verdict in verdicts]
    order = list(GROUPS)
    ranked = sorted(titles, key=lambda law: order.index(law[:1]) if law[:1] in order else len(order))
    return [(law, titles[law], [results.get(law) for results in found]) for law in ranked]


def guarantee_rows(guarantees: Guarantees | None) -> dict[str, str]:
    """What is declared, in words; question marks where that could not be learned."""
    if guarantees is None:
        return dict.fromkeys(("blocks caller", "retries", "delivery", "ordering"), "?")
    return {
        "blocks caller": "yes" if guarantees.blocks_caller else "no",
        "retries": str(guarantees.retries),
        "delivery": guarantees.delivery.value,
        "ordering": guarantees.ordering.value,
    }


def figures(result: LawResult) -> str:
    """The numbers behind an outcome: in how many examples how often that was seen which the law is about."""
    if not result.examples:
        return ""
    return f"{_count(result.observations)} in {_count(result.examples)}"


def _count(number: int) -> str:
    return str(number) if number < 10_000 else f"{number / 1000:.0f}k"


def headline(verdicts: Sequence[Verdict]) -> str:
    """One sentence that says it all."""
    counted = Counter(result.outcome for verdict in verdicts for result in verdict.results)
    said = []
    if violated := counted[Outcome.VIOLATED]:
        said.append(f"{violated} {'law' if violated == 1 else 'laws'} violated")
    if missing := counted[Outcome.COULD_NOT_RUN]:
        said.append(f"{missing} {'law' if missing == 1 and not said else 'laws' if not said else ''} could not run")
    if said:
        return " ".join(", ".join(said).split())
    checked = len({result.law_id for verdict in verdicts for result in verdict.results})
    if not checked:
        return "nothing was checked"
    if checked < len(LAWS):
        return f"{checked} of {len(LAWS)} laws checked, none violated"
    who = {1: "the dispatcher conforms", 2: "both dispatchers conform"}.get(
        len(verdicts), f"all {len(verdicts)} dispatchers conform"
    )
    return f"{checked} laws checked, {who}"
