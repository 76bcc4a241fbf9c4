"""What a fault is, and the register of all of them: the rows of the matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from faults.columns import Column
from faults.world import World

__all__ = ["FAULTS", "Fault", "fault"]

Play = Callable[[World], float]
"""Signs people up, does the fault and repairs it. Returns the moment, on the monotonic clock, from which recovery is
counted: the kill, or the end of what lasted."""


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        kills: whether it kills with SIGKILL, so that it is repeated until the kills asked for are made.
        not_for: why this fault cannot befall a column; empty where it can.
        breaks_broker: the broker must be ours.
        postgres: the data is in PostgreSQL, behind a proxy.
        rounds: how often at least it is repeated, so that each of its variants is had.
    """

    name: str
    what: str
    play: Play
    kills: bool = False
    not_for: Callable[[Column], str] = lambda column: ""
    breaks_broker: bool = False
    postgres: bool = False
    rounds: int = 1


FAULTS: Final[dict[str, Fault]] = {}


def fault(
    name: str,
    *,
    kills: bool = False,
    not_for: Callable[[Column], str] = lambda column: "",
    breaks_broker: bool = False,
    postgres: bool = False,
    rounds: int = 1,
) -> Callable[[Play], Play]:
    """Register a function as the fault ``name``; its docstring says what is done."""

    def register(play: Play) -> Play:
        what = (play.__doc__ or "").strip().splitlines()[0]
        FAULTS[name] = Fault(name, what, play, kills, not_for, breaks_broker, postgres, rounds)
        return play

    return register


def needs_worker(column: Column) -> str:
    """For faults of a worker, or of a broker."""
    return "" if column.has_worker else "events stay in the server"
