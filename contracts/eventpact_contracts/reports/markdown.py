"""The verdict as Markdown, for a pull request or the summary of a continuous integration job."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eventpact_contracts.checking.outcomes import LawResult, Verdict
from eventpact_contracts.reports.summary import RunFacts, cell, columns, guarantee_rows, headline, printable, rows

__all__ = ["markdown"]


def markdown(verdicts: Sequence[Verdict], run: RunFacts) -> str:
    """A table of laws by dispatchers, the reasons below it, and each counterexample in a fold."""
    names = [_inline(name) for name in columns(verdicts)]
    lines = [f"## {headline(verdicts)}", "", _row("law", *names), _row(*["---"] * (len(names) + 1))]
    declared = [guarantee_rows(verdict.guarantees) for verdict in verdicts]
    for label in guarantee_rows(None):
        lines.append(_row(f"*{label}*", *(values[label] for values in declared)))
    for law, title, results in rows(verdicts):
        lines.append(_row(f"{law} {title}", *map(cell, results)))
    lines.append("")
    for name, verdict in zip(names, verdicts, strict=True):
        for result in verdict.results:
            lines += _note(name, result)
    lines.append(f"Contract {run.contract_version}, {run.examples} examples a law, seed {run.seed}. ")
    lines[-1] += f"Python {run.python}, eventpact {run.kit}, {run.platform}."
    return "\n".join([*lines, ""])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _note(name: str, result: LawResult) -> list[str]:
    if result.violation:
        known = f" (known: {_inline(result.known)})" if result.known else ""
        text = f"{result.violation.trace}\n\nTo see it again: {result.script}"
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        return [
            f"<details><summary>{name}: {result.law_id} {result.title} is violated{known}</summary>",
            "",
            _inline(result.violation.message),
            "",
            fence,
            printable(text),
            fence,
            "",
            "</details>",
            "",
        ]
    if result.detail and result.exit_code:
        return [f"- {name}: {result.law_id} {result.outcome.value}: {_inline(result.detail)}", ""]
    return []


def _inline(text: str) -> str:
    """The text in one line, in which nothing is markup."""
    flat = " ".join(printable(text).split())
    return re.sub(r"([\\`*_{}\[\]<>|#~&])", r"\\\1", flat)
