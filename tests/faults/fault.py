"""Faults, and the register of all of them: the rows of the matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

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
        embedded: the broker is the one that the server starts.
        passing: no handler fails for good, so with an outbox no accepted event may end as failed.
        loud: an event that is lost is a complaint even without a promise.
        rounds: how often at least it is repeated, so that each of its variants is had.
    """

    name: str
    summary: str
    play: Play
    kills: bool = False
    not_for: Callable[[Column], str] = lambda column: ""
    breaks_broker: bool = False
    postgres: bool = False
    embedded: bool = False
    passing: bool = False
    loud: bool = False
    rounds: int = 1


FAULTS: Final[dict[str, Fault]] = {}


def fault(name: str, **how: Any) -> Callable[[Play], Play]:
    """Register a function as the fault ``name``, with attributes of :class:`Fault`. Its docstring describes it."""

    def register(play: Play) -> Play:
        summary = (play.__doc__ or "").strip().splitlines()[0]
        FAULTS[name] = Fault(name, summary, play, **how)
        return play

    return register


def needs_worker(column: Column) -> str:
    """For faults of a worker, or of a broker."""
    return "" if column.has_worker else "events stay in the server"


def needs_outbox(column: Column) -> str:
    """For faults of a relay."""
    return "" if column.outbox else "there is no outbox"


def needs_redis(column: Column) -> str:
    """For faults that are done to Redis by its own commands, or to the embedded Valkey."""
    return "" if column.broker == "redis" else "the broker is not Redis"


def at_edge(column: Column) -> str:
    """For faults of the HTTP server, before any engine: one column in this process and one beside it will do."""
    return "" if column.name in {"sync+outbox", "asyncio", "asyncio+outbox", "celery-redis+outbox"} else "as elsewhere"
