"""Runs the benchmarks, prints their tables and keeps the figures as JSON beside this file.

``python benchmarks/compare_dispatchers.py [--rounds N] [in-process] [redis URL] [rabbitmq URL]``
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from timing import machine, say, table

HERE = Path(__file__).resolve().parent


def in_process(rounds: int) -> None:
    """Dispatching in process."""
    import in_process as cases

    result: dict[str, object] = {
        "machine": machine("eventpact", "blinker", "pyee", "pluggy", "abxbus", "lato"),
        "blocking": cases.blocking(rounds),
        "blocking_100_handlers": cases.blocking(max(3, rounds // 3), handlers=100),
        "tasks": cases.tasks(rounds),
        "bytes_per_pending_event": cases.memory(),
        "nanoseconds_per_event_of_so_many": cases.scale(),
    }
    for part in ("blocking", "blocking_100_handlers", "tasks"):
        say(f"\n{part}\n{table(result[part])}")  # type: ignore[arg-type]
    _keep("in_process.json", result)


def publishing(url: str, rounds: int) -> None:
    """Publishing to the broker at ``url``."""
    import publishing as cases

    broker = "redis" if url.startswith("redis") else "rabbitmq"
    result = cases.publishing(url, rounds)
    say(f"\npublishing to {broker}\n{table(result)}")
    packages = ("eventpact", "celery", "kombu", "redis", "dramatiq", "huey", "rq", "taskiq")
    _keep(f"publishing_{broker}.json", {"machine": machine(*packages), "publishing": result})


def _keep(name: str, result: object) -> None:
    (HERE / name).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="how often each case is timed (default: %(default)s)")
    parser.add_argument("--redis", metavar="URL", help="publish to this Redis, too; it should be a scratch one")
    parser.add_argument("--rabbitmq", metavar="URL", help="publish to this RabbitMQ, too")
    options = parser.parse_args()
    in_process(options.rounds)
    for url in filter(None, (options.redis, options.rabbitmq)):
        publishing(url, options.rounds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
