"""The verdict in a terminal: a matrix of laws by dispatchers, and an explanation of each law that does not hold."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, TextIO

from eventpact_contracts.checking.outcomes import LawResult, Outcome, Verdict
from eventpact_contracts.reports.advice import advice
from eventpact_contracts.reports.summary import (
    SYMBOLS,
    cell,
    columns,
    count,
    group_of,
    guarantee_rows,
    printable,
    rows,
    tally,
)

__all__ = ["Progress", "Style", "explain", "matrix", "reasons", "violations"]

_ASCII = str.maketrans({"✓": "+", "✗": "X", "○": "o", "─": "-", "·": "-", "…": "."})

_WIDEST: Final = 100
_ROOM_FOR_NAME: Final = 24
_SHORT_NAME: Final = 13
"""Characters of a line, and of a dispatcher's name where there is room and where there is little."""


class Style:
    """Colours where the stream is a terminal, and plain ASCII where it can show no more.

    ``NO_COLOR`` and ``FORCE_COLOR`` in the environment are respected.
    """

    _CODES: ClassVar = {
        Outcome.UPHELD: "32",
        Outcome.VIOLATED: "1;31",
        Outcome.ABSENT: "36",
        Outcome.UNCLAIMED: "33",
        Outcome.NOT_APPLICABLE: "2",
        Outcome.NOT_SELECTED: "2",
        Outcome.KNOWN: "33",
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
        """Text in the characters of the stream."""
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
    """Laws by dispatchers, in at most 100 columns; several blocks where they are too many for one.

    Each cell is an outcome, the observations behind it, and the number of examples in which they were made.
    """
    style = style or Style(colour=False)
    if not verdicts:
        return "no dispatcher was checked"
    lines = _block(verdicts, columns(verdicts), style)
    for name, verdict in zip(columns(verdicts), verdicts, strict=True):
        counts = ", ".join(style.outcome(o, f"{n} {o.value}") for o, n in tally(verdict).items())
        lines.append(f"{_fitting(name, _ROOM_FOR_NAME)}: {counts} {style.faint(f'({verdict.seconds:.1f} s)')}")
    return style.plain("\n".join(line.rstrip() for line in lines))


def _block(verdicts: Sequence[Verdict], names: Sequence[str], style: Style) -> list[str]:
    """The lines of a table with the longest cells and names that fit, or of two with half the columns each."""
    table = rows(verdicts)
    heading = f"eventpact contract {verdicts[0].contract_version}"
    left = max(len(heading), *(len(f"  {law} {title}") for law, title, _ in table)) + 2
    declared = [guarantee_rows(verdict.guarantees) for verdict in verdicts]
    for shown_as, room in ((cell, _ROOM_FOR_NAME), (_short_cell, _ROOM_FOR_NAME), (_short_cell, _SHORT_NAME)):
        shown = [[shown_as(result) for result in results] for _, _, results in table]
        contents = [*shown, *_transposed(declared)]
        widths = [max(min(len(name), room), *(len(row[n]) for row in contents)) + 2 for n, name in enumerate(names)]
        if left + sum(widths) - 2 <= _width():
            break
    else:
        if len(verdicts) > 1:
            half = (len(verdicts) + 1) // 2
            return [*_block(verdicts[:half], names[:half], style), *_block(verdicts[half:], names[half:], style)]
    cut = [_fitting(name, width - 2) for name, width in zip(names, widths, strict=True)]
    lines = [style.bold(heading.ljust(left) + _across(cut, widths))]
    if any(verdict.guarantees is not None for verdict in verdicts):
        lines.append(style.faint("declares"))
        lines += [
            f"  {label}".ljust(left) + _across(values, widths)
            for label, values in zip(declared[0], _transposed(declared), strict=True)
        ]
    group = ""
    for (law, title, results), row in zip(table, shown, strict=True):
        if group_of(law) != group:
            group = group_of(law)
            lines.append(style.faint(group))
        painted = "".join(
            style.outcome(result.outcome, text.ljust(width)) if result else style.faint(text.ljust(width))
            for result, text, width in zip(results, row, widths, strict=True)
        )
        lines.append(f"  {law} {title}".ljust(left) + painted.rstrip())
    if shown_as is _short_cell:
        used = dict.fromkeys(result.outcome for _, _, results in table for result in results if result)
        legend = "  ".join(f"{SYMBOLS[outcome]} {outcome.value}" for outcome in used)
        lines += [style.faint(line) for line in textwrap.wrap(legend, _width())]
    lines.append(style.faint("─" * (left + sum(widths) - 2)))
    return lines


def _transposed(declared: Sequence[Mapping[str, str]]) -> list[list[str]]:
    return [[values[label] for values in declared] for label in declared[0]]


def _across(values: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(value.ljust(width) for value, width in zip(values, widths, strict=True)).rstrip()


def _fitting(name: str, width: int) -> str:
    """The name without its middle, if it is longer than that: module and parameters stand at its ends."""
    head = (width - 1) // 2
    return name if len(name) <= width else f"{name[:head]}…{name[len(name) - (width - 1 - head) :]}"


def _short_cell(result: LawResult | None) -> str:
    if result is None:
        return ""
    return SYMBOLS[result.outcome] + (f" {count(result.observations)}" if result.examples else "")


def violations(verdicts: Sequence[Verdict], style: Style | None = None) -> str:
    """An explanation of each violated law; empty where there is none."""
    style = style or Style(colour=False)
    parts = []
    for name, verdict in zip(columns(verdicts), verdicts, strict=True):
        parts += [explain(name, result, style) for result in verdict.results if result.outcome is Outcome.VIOLATED]
    return "\n\n".join(parts)


def reasons(verdicts: Sequence[Verdict], style: Style | None = None) -> str:
    """Reasons why laws could not run, known violations, and reservations; empty where there are none."""
    style = style or Style(colour=False)
    parts = []
    for name, verdict in zip(columns(verdicts), verdicts, strict=True):
        why: dict[str, list[str]] = {}
        for result in verdict.results:
            if result.outcome is Outcome.COULD_NOT_RUN:
                why.setdefault(result.detail or "no reason was given", []).append(result.law_id)
        remarks = [(Outcome.COULD_NOT_RUN, f"{', '.join(laws)} could not run", reason) for reason, laws in why.items()]
        remarks += [remark for result in verdict.results if (remark := _remark(result))]
        for outcome, title, said in remarks:
            heading = style.outcome(outcome, f"{SYMBOLS[outcome]} {name}: {title}")
            parts.append(f"{heading}\n{textwrap.indent(printable(said), '  ')}")
    return style.plain("\n\n".join(parts))


def _remark(result: LawResult) -> tuple[Outcome, str, str] | None:
    """The outcome whose look a remark has, its title and its text; None where there is nothing to remark."""
    if result.outcome is Outcome.KNOWN:
        return Outcome.KNOWN, f"{result.law_id} is violated, which is known", f"{result.known}\n{result.detail}"
    if result.exit_code == 1 and result.outcome is not Outcome.VIOLATED:
        return Outcome.VIOLATED, f"{result.law_id} is {result.outcome.value}", result.detail
    if result.outcome is Outcome.UPHELD and result.detail:
        return Outcome.UPHELD, f"{result.law_id} is upheld, but", result.detail
    return None


def explain(name: str, result: LawResult, style: Style | None = None) -> str:
    """An explanation of a violation: the law, the counterexample, usual causes, and how to see it again."""
    style = style or Style(colour=False)
    message = result.violation.message if result.violation else result.detail
    given = advice(result.law_id, message, name)
    lines = [style.outcome(Outcome.VIOLATED, f"✗ {name} violates {result.law_id} {result.title}")]
    if given.promise:
        promise = f"The law: {given.promise.replace('`', '')}"
        lines += textwrap.wrap(promise, _width(), initial_indent="  ", subsequent_indent="  ")
    lines.append(textwrap.indent(printable(message), "  "))
    if result.violation:
        lines += ["", textwrap.indent(printable(str(result.violation.trace)), "    "), ""]
    if given.causes:
        lines += ["  Usual causes:", *(f"    - {cause}" for cause in given.causes)]
    if given.rogue:
        lines.append(
            f"  A known-bad example with the same message: eventpact verify {given.rogue} --law {result.law_id}"
        )
    if result.script:
        lines += [f"  To see it again{_how_often(result)}:", textwrap.indent(printable(result.script), "    ")]
    return style.plain("\n".join(lines))


def _how_often(result: LawResult) -> str:
    if result.replays is None:
        return ""
    seen, runs = result.replays
    return f" (it showed in {seen} of {runs} repeats)"


def _width() -> int:
    return min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)


class Progress:
    """Progress on ``stream``: one line that changes on a terminal, one line a part elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._style = Style(stream)

    def at(self, name: str, part: str, done: int, total: int) -> None:
        """The part of the check that begins now, after ``done`` of ``total`` parts."""
        text = self._style.plain(f"[{done + 1}/{total}] {name}: {part}")
        if self._style.interactive:
            self._rewrite(text)
        else:
            print(text, file=self._stream, flush=True)

    def end(self) -> None:
        """Leave nothing on a terminal."""
        if self._style.interactive:
            self._rewrite("")

    def _rewrite(self, text: str) -> None:
        room = shutil.get_terminal_size((100, 24)).columns - 1
        print(f"\r\033[K{text[:room]}", end="", file=self._stream, flush=True)
