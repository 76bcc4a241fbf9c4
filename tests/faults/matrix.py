"""Which cells there are, and running them: several at a time, within a time that is given."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from urllib.parse import urlsplit

from faults import rows
from faults.cell import Cell, run_cell
from faults.columns import COLUMNS, Column
from faults.fault import FAULTS, Fault
from faults.rabbitmq_node import RabbitNode, server_script
from faults.world import Options

__all__ = ["Place", "UnavailableError", "places", "rows", "run", "service"]


class UnavailableError(Exception):
    """A service that the environment names does not answer, where it must (CI)."""


@dataclass(frozen=True)
class Place:
    """Where a row and a column meet."""

    fault: Fault
    column: Column

    @property
    def name(self) -> str:
        return f"{self.column.name}/{self.fault.name}"

    @property
    def counts(self) -> bool:
        """Whether its kills are among those asked for."""
        return self.fault.kills and self.column.promises


def places() -> list[Place]:
    """Every cell in which the fault can befall the column."""
    return [
        Place(fault, column) for column in COLUMNS.values() for fault in FAULTS.values() if not fault.not_for(column)
    ]


def service(variable: str, port: int) -> str | None:
    """The URL of a service, if one is named and answers.

    Raises:
        UnavailableError: it must answer, because this is CI, and does not.
    """
    url = os.environ.get(variable)
    if not url:
        return None
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or port), timeout=5).close()
    except OSError as error:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            raise UnavailableError(f"{variable} names a service that does not answer: {error}") from error
        return None
    return url


def run(
    chosen: Sequence[Place],
    options: Options,
    *,
    seed: int,
    kills: int,
    jobs: int,
    seconds: float,
    say: Callable[[str], None],
) -> Iterator[Cell]:
    """Run the cells; each is yielded when it and those before it are done.

    Args:
        kills: over all cells that count, at least.
        seconds: after which no further cell is begun.
    """
    chosen = sorted(chosen, key=lambda place: not place.counts)  # what was asked for first, should time run out
    rounds = ceil(kills / max(1, sum(place.counts for place in chosen)))
    deadline = time.monotonic() + seconds

    def one(place: Place) -> Cell:
        reason = _missing(place, options)
        if not reason and (options.stop.is_set() or time.monotonic() > deadline):
            reason = "out of time"
        if reason:
            return Cell(place.fault.name, place.column.name, seed, place.column.promises, reason=reason, not_run=True)
        cell = run_cell(
            place.fault,
            place.column,
            seed,
            options,
            kills=rounds,
            own_broker=RabbitNode if place.column.broker == "amqp" else None,
            say=say,
        )
        say(f"{place.name}: {'; '.join(cell.complaints) or 'as promised'} ({cell.seconds:.0f} s)")
        return cell

    with ThreadPoolExecutor(jobs, thread_name_prefix="cell") as executor:
        try:
            yield from executor.map(one, chosen)
        except BaseException:
            options.stop.set()
            executor.shutdown(cancel_futures=True)
            raise


def _missing(place: Place, options: Options) -> str:
    """What this machine lacks for a cell."""
    if place.column.broker == "amqp":
        if place.fault.breaks_broker and server_script() is None:
            return "rabbitmq-server is not installed, and no other may be harmed"
        if not place.fault.breaks_broker and options.rabbitmq is None:
            return "EVENTPACT_TEST_RABBITMQ names no RabbitMQ that answers"
    if place.fault.postgres and options.postgres is None:
        return "EVENTPACT_TEST_POSTGRES names no PostgreSQL that answers"
    return ""
