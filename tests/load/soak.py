"""Steady load for minutes or an hour, while faults come and go: ``python -m load.soak --help`` (tox -e soak).

Fails if memory, descriptors, rows, messages or logs of the server and the worker grow, if an accepted sign-up is lost,
or if one failed for good though every fault passed. Growth is the slope of a straight line through the samples of the
second half. Only samples at rest count: the load goes on, and the last fault has been over for a while.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import linear_regression
from typing import Final

import sqlalchemy as sa
from faults.columns import COLUMNS
from faults.matrix import service
from faults.rabbitmq_node import RabbitNode
from faults.world import Options, World, opened

from eventpact.infrastructure.outbox.store import outbox
from eventpact.infrastructure.persistence.failure_store import failures
from load.tables import table

__all__ = ["BOUNDS", "Growth", "growths"]

BOUNDS: Final = {
    "server memory, MB": 0.5,
    "worker memory, MB": 0.5,
    "server descriptors": 1.0,
    "worker descriptors": 1.0,
    "outbox rows": 2.0,
    "failure rows": 0.2,
    "messages in the broker": 2.0,
    "server log, KB": 300.0,
    "worker log, KB": 300.0,
}
"""How much each may grow in a minute. A leak of 2 KB a sign-up is 0.6 MB a minute; 300 KB is 1 KB a sign-up."""

_SAMPLE_SECONDS: Final = 2.0
_FAULT_SECONDS: Final = 6.0
_REST_SECONDS: Final = 20.0
"""Recovery after a fault; samples at rest come later."""
_CLIENTS: Final = 8
_SETTLE_SECONDS: Final = 120.0

Sample = dict[str, float]


@dataclass(frozen=True)
class Growth:
    """The slope of one measure, in its unit a minute."""

    per_minute: float
    bound: float
    samples: int

    @property
    def is_bounded(self) -> bool:
        return self.per_minute <= self.bound


def growths(samples: Sequence[Sample], seconds: float) -> dict[str, Growth]:
    """The slopes over the samples at rest of the second half of a run."""
    late = [sample for sample in samples if sample["at rest"] and sample["second"] >= seconds / 2]
    found = {}
    for name, bound in BOUNDS.items():
        points = [(sample["second"] / 60, sample[name]) for sample in late if name in sample]
        if len(points) > 1:
            minutes, values = zip(*points, strict=True)
            found[name] = Growth(linear_regression(minutes, values).slope, bound, len(points))
    return found


@dataclass
class Soak:
    """One column under load."""

    world: World
    rate: float
    seconds: float
    samples: list[Sample] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _quiet_since: float = float("inf")

    def run(self) -> None:
        """Load, disturb and measure for the given time, then wait until all is settled."""
        began = time.monotonic()
        with ThreadPoolExecutor(_CLIENTS + 2) as executor:
            work = [executor.submit(self._sign_up, self._numbers()) for _ in range(_CLIENTS)]
            work += [executor.submit(self._disturb, began + self.seconds), executor.submit(self._measure, began)]
            try:
                self._stop.wait(self.seconds)
            finally:
                self._stop.set()
            for each in work:
                each.result()
        self.world.comes_about(self.world.is_settled, _SETTLE_SECONDS)

    def _numbers(self) -> Iterator[float]:
        """When one client signs somebody up, in seconds from now."""
        return itertools.count(random.uniform(0, _CLIENTS / self.rate), _CLIENTS / self.rate)

    def _sign_up(self, moments: Iterator[float]) -> None:
        began = time.monotonic()
        for moment in moments:
            if self._stop.wait(max(0.0, began + moment - time.monotonic())):
                return
            self.world.sign_up(1, together=False, name="soak")

    def _disturb(self, until: float) -> None:
        cycle = _FAULT_SECONDS + 2 * _REST_SECONDS
        for fault in itertools.cycle(self._kinds()):
            if self._stop.wait(_REST_SECONDS) or time.monotonic() + cycle > until:
                return
            self._quiet_since = float("inf")
            self.faults.append(fault.__name__.strip("_"))
            fault()
            self._quiet_since = time.monotonic() + _REST_SECONDS
            if self._stop.wait(_REST_SECONDS):
                return

    def _kinds(self) -> list[Callable[[], None]]:
        kinds = [self._mail_server_unreachable, self._mail_server_slow, self._database_unreachable]
        if self.world.own is not None:
            kinds.append(self._broker_killed)
        return kinds

    def _mail_server_unreachable(self) -> None:
        self.world.smtp.cut()
        self._stop.wait(_FAULT_SECONDS)
        self.world.smtp.open()

    def _mail_server_slow(self) -> None:
        self.world.mail.delay = 1.0
        self._stop.wait(_FAULT_SECONDS)
        self.world.mail.delay = 0.0

    def _database_unreachable(self) -> None:
        """Cut off PostgreSQL, or lock the SQLite file."""
        if self.world.database is not None:
            self.world.database.cut()
            self._stop.wait(_FAULT_SECONDS)
            self.world.database.open()
            return
        connection = sqlite3.connect(self.world.folder / "eventpact.db", isolation_level=None, timeout=5)
        connection.execute("BEGIN IMMEDIATE")
        self._stop.wait(_FAULT_SECONDS)
        connection.close()

    def _broker_killed(self) -> None:
        self.world.own.kill()
        self._stop.wait(_FAULT_SECONDS)
        self.world.own.start()

    def _measure(self, began: float) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            sample: Sample = {"second": round(time.monotonic() - began, 1)}
            sample["at rest"] = float(time.monotonic() > self._quiet_since)
            parts = {"server": self.world.server} | (
                {"worker": self.world.worker} if self.world.column.has_worker else {}
            )
            for name, part in parts.items():
                usage = part.usage()
                sample[f"{name} memory, MB"] = usage.memory / 1e6
                sample[f"{name} descriptors"] = usage.descriptors
                sample[f"{name} log, KB"] = part.log_size() / 1e3
            with self.world.evidence.connect() as connection:
                for name, rows in (("outbox rows", outbox), ("failure rows", failures)):
                    sample[name] = connection.execute(sa.select(sa.func.count()).select_from(rows)).scalar_one()
            with suppress(OSError, *self.world.broker_errors):  # it is killed now and then
                if self.world.column.has_worker:
                    sample["messages in the broker"] = self.world.backlog()
            self.samples.append(sample)


def _soak(name: str, options: argparse.Namespace) -> dict[str, object]:
    """Soak one column. Returns the document of what was measured."""
    how = Options(
        patience=60.0,
        logs=options.logs,
        rabbitmq=service("EVENTPACT_TEST_RABBITMQ", 5672),
        postgres=service("EVENTPACT_TEST_POSTGRES", 5432),
    )
    column = COLUMNS[name]
    own_broker = RabbitNode if column.broker == "amqp" else None
    postgres = how.postgres is not None
    with opened(column, how, f"soak {name}", own_broker=own_broker, breaks_broker=True, postgres=postgres) as world:
        soak = Soak(world, options.rate, options.minutes * 60)
        soak.run()
        world.accepted()
        balance = world.ledger.balance(world.mail.mails, world.kept())
        found = growths(soak.samples, soak.seconds)
    complaints = [
        f"{measure} grows by {growth.per_minute:.2f} a minute, more than {growth.bound:g}"
        for measure, growth in found.items()
        if not growth.is_bounded
    ]
    complaints += [f"{balance.lost} accepted sign-ups are lost"] if balance.lost else []
    complaints += [f"{balance.failed} accepted sign-ups failed, though each fault passed"] if balance.failed else []
    complaints += [] if len(found) > 3 else ["there are too few samples; give it more minutes"]
    return {
        "column": name,
        "database": "PostgreSQL" if postgres else "SQLite",
        "minutes": options.minutes,
        "sign_ups_per_second": options.rate,
        "faults": soak.faults,
        "longest_answer": round(world.ledger.longest_answer, 2),
        "balance": asdict(balance),
        "growth": {measure: asdict(growth) | {"bounded": growth.is_bounded} for measure, growth in found.items()},
        "complaints": complaints,
        "samples": soak.samples,
    }


def main() -> int:
    """Returns 0 if nothing grew and no accepted sign-up was lost or failed."""
    parser = argparse.ArgumentParser(prog="python -m load.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10); 60 for a full soak")
    parser.add_argument("--rate", type=float, default=5.0, help="sign-ups a second (5)")
    parser.add_argument("--column", action="append", choices=tuple(COLUMNS), help="default: two, side by side")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the logs of servers and workers")
    options = parser.parse_args()
    names = options.column or ["asyncio+outbox", "celery-redis+outbox"]
    with ThreadPoolExecutor(len(names)) as executor:
        results = list(executor.map(lambda name: _soak(name, options), names))
    for result in results:
        print(f"\n{result['column']}, {result['database']}, {options.minutes:g} min: {result['balance']}")
        growth: dict[str, dict[str, float]] = result["growth"]  # type: ignore[assignment]
        rows = [[name, f"{row['per_minute']:.3f}", f"{row['bound']:g}"] for name, row in growth.items()]
        print(table(("", "a minute", "bound"), rows))
        for complaint in result["complaints"]:  # type: ignore[attr-defined]
            print(f"FAILED {result['column']}: {complaint}")
    if options.json is not None:
        document = {"made_at": datetime.now(UTC).isoformat(timespec="seconds"), "bounds": BOUNDS, "runs": results}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if any(result["complaints"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
