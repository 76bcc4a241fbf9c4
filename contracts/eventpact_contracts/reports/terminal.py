"""The verdict in a terminal: a matrix, laws by dispatchers, and what there is to say where a law does not hold."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import ClassVar, TextIO

from eventpact_contracts.checking.outcomes import LawResult, Outcome, Verdict
from eventpact_contracts.reports.advice import advice
from eventpact_contracts.reports.summary import (
    SYMBOLS,
    columns,
    figures,
    group_of,
    guarantee_rows,
    printable,
    rows,
    tally,
)

__all__ = ["Progress", "Style", "explain", "matrix", "reasons", "violations"]

_ASCII = str.maketrans({"✓": "+", "✗": "X", "○": "o", "─": "-", "·": "-", "…": "."})


class Style:
    """Colours where the stream is a terminal, and plain ASCII where it can show no more.

    ``NO_COLOR`` and ``FORCE_COLOR`` in the environment are respected.
    """

    _CODES: ClassVar = {
        Outcome.UPHELD: "32",
        Outcome.VIOLATED: "1;31",
        Outcome.ABSENT: "36",
        Outcome.UNCLAIMED: "33",
        Outcome.COULD_NOT_RUN: "1;33",
    }

    def __init__(self, stream: TextIO | None = None, *, colour: bool | None = None) -> None:
        stream = stream or sys.stdout
        self.interactive = hasattr(stream, "isatty") and stream.isatty()
        if colour is None:
            wanted = self.interactive and os.environ.get("TERM") != "dumb"
            colour = not os.environ.get("NO_COLOR") and (wanted or bool(os.environ.get("FORCE_COLOR")))
        self._colour = colour
        encoding = getattr(stream, "encoding", None) or "ascii"
        try:
            "".join(SYMBOLS.values()).encode(encoding)
            self._ascii = False
        except (UnicodeEncodeError, LookupError):
            self._ascii = True

    def plain(self, text: str) -> str:
        """The text as the stream can show it."""
        return text.translate(_ASCII).encode("ascii", "backslashreplace").decode() if self._ascii else text

    def outcome(self, outcome: Outcome, text: str) -> str:
        return self._paint(self._CODES[outcome], text)

    def bold(self, text: str) -> str:
        return self._paint("1", text)

    def faint(self, text: str) -> str:
        return self._paint("2", text)

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour and text.strip() else text


def matrix(verdicts: Sequence[Verdict], style: Style | None = None) -> str:
    """Laws by dispatchers: each outcome, and how often what the law is about was seen in how many examples."""
    style = style or Style(colour=False)
    if not verdicts:
        return "no dispatcher was checked"
    table = rows(verdicts)
    names = columns(verdicts)
    heading = f"eventpact contract {verdicts[0].contract_version}"
    left = max(len(heading), *(len(f"  {law} {title}") for law, title, _ in table)) + 2
    cells = [[_cell(result) for result in results] for _, _, results in table]
    declared = [guarantee_rows(verdict.guarantees) for verdict in verdicts]
    widths = [
        max(len(names[n]), *(len(row[n]) for row in cells), *(len(value) for value in declared[n].values())) + 2
        for n in range(len(verdicts))
    ]
    lines = [style.bold(heading.ljust(left) + _across(names, widths)), style.faint("declares")]
    for label in declared[0]:
        lines.append(f"  {label}".ljust(left) + _across([values[label] for values in declared], widths))
    group = ""
    for (law, title, results), row in zip(table, cells, strict=True):
        if group_of(law) != group:
            group = group_of(law)
            lines.append(style.faint(group))
        shown = "".join(
            style.outcome(result.outcome, text.ljust(width)) if result else style.faint(text.ljust(width))
            for result, text, width in zip(results, row, widths, strict=True)
        )
        lines.append(f"  {law} {title}".ljust(left) + shown.rstrip())
    lines.append(style.faint("─" * (left + sum(widths) - 2)))
    for name, verdict in zip(names, verdicts, strict=True):
        counts = ", ".join(style.outcome(o, f"{n} {o.value}") for o, n in tally(verdict).items())
        lines.append(f"{name}: {counts} {style.faint(f'({verdict.seconds:.1f} s)')}")
    return style.plain("\n".join(line.rstrip() for line in lines))


def _across(values: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(value.ljust(width) for value, width in zip(values, widths, strict=True)).rstrip()


def _cell(result: LawResult | None) -> str:
    if result is None:
        return "not asked"
    numbers = figures(result)
    return f"{SYMBOLS[result.outcome]} {result.outcome.value}" + (f" ({numbers})" if numbers else "")


def violations(verdicts: Sequence[Verdict], style: Style | None = None) -> str:
    """What there is to say about each law that is violated; empty where there is nothing."""
    style = style or Style(colour=False)
    parts = []
    for name, verdict in zip(columns(verdicts), verdicts, strict=True):
        parts += [explain(name, r, style) for r in verdict.results if r.outcome is Outcome.VIOLATED]
    return "\n\n".join(parts)


def reasons(verdicts: Sequence[Verdict], style: Style | None = None) -> str:
    """Why laws could not run, and with what reservation others are upheld; empty where there is nothing to say."""
    style = style or Style(colour=False)
    parts = []
    for name, verdict in zip(columns(verdicts), verdicts, strict=True):
        why: dict[str, list[str]] = {}
        for result in verdict.results:
            if result.outcome is Outcome.COULD_NOT_RUN:
                why.setdefault(result.detail or "no reason was given", []).append(result.law_id)
        parts += [_could_not_run(name, reason, laws, style) for reason, laws in why.items()]
        parts += [
            _with_reservation(name, r, style) for r in verdict.results if r.outcome is Outcome.UPHELD and r.detail
        ]
    return style.plain("\n\n".join(parts))


def explain(name: str, result: LawResult, style: Style | None = None) -> str:
    """What there is to learn from a violation: law, counterexample, usual causes, how to see it again."""
    style = style or Style(colour=False)
    given = advice(result.law_id)
    lines = [style.outcome(Outcome.VIOLATED, f"✗ {name} violates {result.law_id} {result.title}")]
    if given.promise:
        promise = f"The law: {given.promise.replace('`', '')}"
        lines += textwrap.wrap(promise, _width(), initial_indent="  ", subsequent_indent="  ")
    message = result.violation.message if result.violation else result.detail
    lines.append(textwrap.indent(printable(message), "  "))
    if result.violation:
        lines += ["", textwrap.indent(printable(str(result.violation.trace)), "    "), ""]
    if given.causes:
        lines += ["  Usual causes:", *(f"    - {cause}" for cause in given.causes)]
    if given.rogue:
        lines.append(f"  A known-bad dispatcher that fails alike: {given.rogue}")
    if result.script:
        lines += ["  To see it again:", textwrap.indent(printable(result.script), "    ")]
    return style.plain("\n".join(lines))


def _could_not_run(name: str, reason: str, laws: Sequence[str], style: Style) -> str:
    title = style.outcome(Outcome.COULD_NOT_RUN, f"! {name}: {', '.join(laws)} could not run")
    return f"{title}\n{textwrap.indent(printable(reason), '  ')}"


def _with_reservation(name: str, result: LawResult, style: Style) -> str:
    title = style.outcome(Outcome.UPHELD, f"✓ {name}: {result.law_id} is upheld, but")
    return f"{title}\n{textwrap.indent(printable(result.detail), '  ')}"


def _width() -> int:
    return min(100, shutil.get_terminal_size((100, 24)).columns)


class Progress:
    """Says on ``stream`` what is being checked: one line that changes on a terminal, one line a law elsewhere."""

    def __init__(self, stream: TextIO, total: int) -> None:
        self._stream = stream
        self._style = Style(stream)
        self._total = total
        self._done = 0

    def starts(self, name: str, law_id: str, title: str) -> None:
        """A law is being checked now."""
        if self._style.interactive:
            self._rewrite(f"[{self._done + 1}/{self._total}] {name}: {law_id} {title} …")

    def ends(self, name: str, result: LawResult) -> None:
        """A law has been checked."""
        self._done += 1
        said = f"{SYMBOLS[result.outcome]} {result.outcome.value}"
        if not self._style.interactive:
            line = (
                f"[{self._done}/{self._total}] {name}: {result.law_id} {result.title}: {said} ({result.seconds:.1f} s)"
            )
            print(self._style.plain(line), file=self._stream, flush=True)
        elif self._done == self._total:
            self._rewrite("")

    def _rewrite(self, text: str) -> None:
        room = shutil.get_terminal_size((100, 24)).columns - 1
        print(f"\r\033[K{self._style.plain(text)[:room]}", end="", file=self._stream, flush=True)
