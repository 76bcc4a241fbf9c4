"""Runs the benchmarks, prints their tables, and keeps the figures as JSON beside this file, with plots of them.

Takes less than ten minutes. What cannot run, because its broker does not answer, is told at the end, and leaves the
figures of the last run in place. ``--quick`` tries everything in about a minute, and keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tables
from timing import machine, say, table

HERE = Path(__file__).resolve().parent
TASK_QUEUES = ("dramatiq", "huey", "rq", "taskiq", "taskiq-aio-pika", "taskiq-redis")


@dataclass
class Run:
    """One run of the benchmarks.

    Attributes:
        quick: a try, whose figures are worth nothing.
        brokers: the URLs of those that answer, by name.
        silent: where each of the others does not.
        not_run: what did not run, and why.
    """

    quick: bool
    brokers: dict[str, str] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    not_run: list[str] = field(default_factory=list)

    def answers(self, broker: str, what: str) -> bool:
        """Whether the broker answers; if not, ``what`` does not run."""
        if broker in self.silent:
            self.not_run.append(f"{what}, because no {broker} answers at {self.silent[broker]}")
        return broker in self.brokers

    def keep(self, name: str, result: object) -> None:
        if not self.quick:
            (HERE / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def in_process(run: Run) -> None:
    """Dispatching in process."""
    import in_process as cases

    rounds, seconds = (2, 0.002) if run.quick else (15, 0.05)
    result: dict[str, Any] = {"machine": machine("eventpact", "blinker", "pyee", "pluggy", "abxbus", "lato")}
    for name, handlers in {"blocking": 1, "blocking_10_handlers": 10, "blocking_100_handlers": 100}.items():
        result[name] = cases.blocking(rounds, seconds, handlers)
        say(f"\n{name}\n{table(result[name])}")
    result["tasks"] = cases.tasks(rounds, seconds)
    say(f"\ntasks\n{table(result['tasks'])}")
    result["bytes_per_pending_event"] = cases.memory()
    result["nanoseconds_per_event_of_so_many"] = cases.scale([10**power for power in range(4 if run.quick else 7)])
    run.keep("in_process", result)


def publishing(run: Run) -> None:
    """Publishing to each broker."""
    import publishing as cases

    rounds, seconds = (2, 0.01) if run.quick else (15, 0.2)
    for broker in ("Redis", "RabbitMQ"):
        if not run.answers(broker, f"publishing to {broker}"):
            continue
        versions = machine("eventpact", "celery", "kombu", "redis", *TASK_QUEUES)
        result = cases.publishing(run.brokers[broker], rounds, seconds)
        say(f"\npublishing to {broker}\n{table(result)}")
        run.keep(f"publishing_{broker.lower()}", {"machine": versions, "publishing": result})


def end_to_end(run: Run) -> None:
    """From dispatch to the handler."""
    import end_to_end as cases

    complete = [run.answers(broker, f"end to end on {broker}") for broker in ("Redis", "RabbitMQ")]
    rounds, one_by_one, at_once = (1, 3, 20) if run.quick else (7, 30, 500)
    result = {"machine": machine("eventpact", "celery", "kombu", "redis")}
    result |= cases.end_to_end(run.brokers, rounds, one_by_one, at_once)
    say(f"\nend to end\n{tables.end_to_end(result)}")
    if all(complete):
        run.keep("end_to_end", result)


def api(run: Run) -> None:
    """``POST /accounts`` with each dispatcher."""
    import api as cases

    redis = run.brokers["Redis"] if run.answers("Redis", "the API with Celery on Redis") else None
    rounds, requests, seconds = (1, 3, 0.5) if run.quick else (7, 30, 1.5)
    result = {"machine": machine("eventpact", "fastapi", "uvicorn", "sqlalchemy", "aiosmtplib", "celery")}
    result |= cases.api(redis, rounds, requests, seconds, (0, 20) if run.quick else (0, 20, 200))
    say(f"\nPOST /accounts\n{tables.api(result)}")
    if redis is not None:
        run.keep("api", result)


def contract(run: Run) -> None:
    """The contract suite over our dispatchers."""
    command = [sys.executable, "-m", "eventpact", "verify", "sync", "asyncio"]
    command += ["--examples", "2"] if run.quick else ["celery", "outbox", "--json", str(HERE / "verdicts.json")]
    subprocess.run([*command, "--quiet"], check=True)


PARTS: dict[str, Callable[[Run], None]] = {
    "in-process": in_process,
    "publishing": publishing,
    "end-to-end": end_to_end,
    "api": api,
    "contract": contract,
}


def _answers(url: str) -> bool:
    import kombu

    with kombu.Connection(url, connect_timeout=2, transport_options={"socket_connect_timeout": 2}) as connection:
        try:
            connection.ensure_connection(max_retries=0)
        except kombu.exceptions.OperationalError:
            return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="see whether everything runs; keep no figures")
    for name, url in {"Redis": "redis://127.0.0.1:6379/9", "RabbitMQ": "amqp://guest:guest@127.0.0.1:5672//"}.items():
        parser.add_argument(
            f"--{name.lower()}",
            metavar="URL",
            default=os.environ.get(f"EVENTPACT_BENCH_{name.upper()}", url),
            help=f"a {name} that holds nothing of worth",
        )
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    run, started = Run(options.quick), time.monotonic()
    for name in ("Redis", "RabbitMQ"):
        url = getattr(options, name.lower())
        if _answers(url):
            run.brokers[name] = url
        else:
            run.silent[name] = f"{urlsplit(url).hostname}:{urlsplit(url).port}"
    for name in options.parts or PARTS:
        PARTS[name](run)
    if not run.quick:
        import plots
        import readme

        plots.main()
        readme.main()
    say(f"\nran for {time.monotonic() - started:.0f} s")
    for what in run.not_run:
        say(f"NOT RUN: {what}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
