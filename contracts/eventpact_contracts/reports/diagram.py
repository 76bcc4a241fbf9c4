"""Draws a sequence diagram as SVG: lanes, arrows between them, notes beside them and bands across them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from eventpact_contracts.reports.summary import escape

__all__ = ["Arrow", "Band", "Diagram", "Note", "Row"]

_ROW: Final = 38
_HEAD: Final = 34
_GAP: Final = 18
_MARGIN: Final = 96
_CHARACTER: Final = 7.3
"""The average advance of the page's 12 px monospaced label, in pixels."""


@dataclass(frozen=True)
class Arrow:
    """A message from one lane to another."""

    source: str
    target: str
    label: str
    style: str = "call"
    """Its look: ``call``, ``back`` (dashed) or ``bad`` (dashed, in the colour of errors)."""
    opens: str = ""
    """The work that the target begins here."""
    closes: str = ""
    """The work that the source ends here."""


@dataclass(frozen=True)
class Note:
    """Words beside one lane."""

    lane: str
    label: str
    style: str = "note"


@dataclass(frozen=True)
class Band:
    """Words across all lanes: something that happens to everyone."""

    label: str
    style: str = "band"


Row = Arrow | Note | Band


@dataclass
class Diagram:
    """A sequence diagram.

    Attributes:
        lanes: who takes part, from left to right.
        rows: the events from top to bottom, each with words for the margin, for example its time.
        title: a description for readers who cannot see it.
    """

    lanes: Sequence[str]
    rows: Sequence[tuple[str, Row]]
    title: str
    _x: dict[str, float] = field(default_factory=dict, init=False)
    _width: float = field(default=0, init=False)

    def svg(self) -> str:
        """The diagram, styled by the page's classes (see the ``seq-*`` rules of its stylesheet)."""
        self._place()
        height = _HEAD + _GAP + _ROW * len(self.rows) + _GAP
        parts = [
            f'<svg class="seq" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self._width:.0f} {height}"'
            f' width="{self._width:.0f}" height="{height}" role="img" aria-label="{escape(self.title)}">'
        ]
        for lane, x in self._x.items():
            parts.append(f'<line class="seq-life" x1="{x:.0f}" y1="{_HEAD}" x2="{x:.0f}" y2="{height}"/>')
            wide = len(lane) * _CHARACTER + 24
            parts.append(
                f'<rect class="seq-head" x="{x - wide / 2:.0f}" y="1" width="{wide:.0f}" height="{_HEAD - 4}" rx="6"/>'
                f'<text class="seq-name" x="{x:.0f}" y="21">{escape(lane)}</text>'
            )
        parts += self._busy(height)
        for number, (margin, row) in enumerate(self.rows):
            y = _HEAD + _GAP + _ROW * number + _ROW / 2
            if margin:
                parts.append(self._label(_MARGIN - 14, y + 4, margin, "seq-margin", "end"))
            match row:
                case Arrow():
                    parts.append(self._arrow(row, y))
                case Note():
                    parts.append(self._label(self._x[row.lane] + 12, y + 4, row.label, f"seq-{row.style}", "start"))
                case Band():
                    wide = self._width - _MARGIN - 4
                    box = f'x="{_MARGIN}" y="{y - 12:.0f}" width="{wide:.0f}" height="24" rx="5"'
                    parts.append(f'<rect class="seq-{row.style}" {box}/>')
                    parts.append(self._label(_MARGIN + 12, y + 4, row.label, f"seq-{row.style}-text", "start"))
        return "".join([*parts, "</svg>"])

    def _place(self) -> None:
        """Lanes as far apart as the longest words between them need."""
        order = list(self.lanes)
        gaps = [(len(a) + len(b)) * _CHARACTER / 2 + 40 for a, b in pairwise(order)]
        rows = [row for _, row in self.rows]
        for row in rows:
            if isinstance(row, Arrow) and row.source != row.target:
                left, right = sorted((order.index(row.source), order.index(row.target)))
                missing = len(row.label) * _CHARACTER + 44 - sum(gaps[left:right])
                if missing > 0:
                    gaps[left:right] = [gap + missing / (right - left) for gap in gaps[left:right]]
        at = _MARGIN + len(order[0]) * _CHARACTER / 2 + 20
        for lane, gap in zip(order, [*gaps, 0.0], strict=True):
            self._x[lane] = at
            at += gap
        ends = [self._x[order[-1]] + len(order[-1]) * _CHARACTER / 2 + 24]
        ends += [self._x[row.lane] + len(row.label) * _CHARACTER + 30 for row in rows if isinstance(row, Note)]
        ends += [
            self._x[row.source] + len(row.label) * _CHARACTER + 60
            for row in rows
            if isinstance(row, Arrow) and row.source == row.target
        ]
        ends += [_MARGIN + len(row.label) * _CHARACTER + 30 for row in rows if isinstance(row, Band)]
        self._width = max(ends)

    def _busy(self, height: float) -> list[str]:
        """A bar on a lane for as long as it is at work."""
        bars: list[str] = []
        since: dict[tuple[str, str], int] = {}
        for number, (_, row) in enumerate(self.rows):
            if not isinstance(row, Arrow):
                continue
            if row.closes and (start := since.pop((row.source, row.closes), None)) is not None:
                bars.append(self._bar(row.source, start, number))
            if row.opens:
                since[row.target, row.opens] = number
        end = (height - _HEAD - _GAP) / _ROW - 0.5
        return bars + [self._bar(lane, start, end) for (lane, _), start in since.items()]

    def _bar(self, lane: str, start: int, end: float) -> str:
        top = _HEAD + _GAP + _ROW * (start + 0.5)
        tall = _ROW * (end - start)
        return (
            f'<rect class="seq-busy" x="{self._x[lane] - 5:.0f}" y="{top:.0f}" width="10" height="{tall:.0f}" rx="3"/>'
        )

    def _arrow(self, row: Arrow, y: float) -> str:
        start, end = self._x[row.source], self._x[row.target]
        if row.source == row.target:
            loop = f"M{start:.0f} {y - 8:.0f}h26v14h-22"
            return f'<path class="seq-{row.style}" d="{loop}"/>{_head(start + 4, y + 6, -1, row.style)}' + self._label(
                start + 34, y + 4, row.label, f"seq-label seq-{row.style}-text", "start"
            )
        toward = 1 if end > start else -1
        tip = end - 6 * toward
        return (
            f'<line class="seq-{row.style}" x1="{start:.0f}" y1="{y:.0f}" x2="{tip - 6 * toward:.0f}" y2="{y:.0f}"/>'
            + _head(tip, y, toward, row.style)
            + self._label((start + end) / 2, y - 6, row.label, f"seq-label seq-{row.style}-text", "middle")
        )

    @staticmethod
    def _label(x: float, y: float, text: str, classes: str, anchor: str) -> str:
        return f'<text class="{classes}" x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(text)}</text>'


def _head(x: float, y: float, toward: int, style: str) -> str:
    back = x - 9 * toward
    return (
        f'<path class="seq-tip seq-{style}-tip" d="M{x:.0f} {y:.0f}L{back:.0f} {y - 4:.0f}L{back:.0f} {y + 4:.0f}z"/>'
    )
