"""An hour without a worker and then one, at sixty times the speed: ``python -m load.outage --help``.

The wait before a resend is a second instead of a minute, and the worker is missing for a minute instead of an hour.
Fails if more than two messages an event wait in the broker, or if an event is not delivered.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from faults.columns import COLUMNS
from faults.matrix import service
from faults.world import Options, World, opened

_SETTINGS: Final = {"EVENTPACT_OUTBOX_RESEND": "1", "EVENTPACT_RETRIES": "0"}
_MESSAGES_PER_EVENT: Final = 2
_PATIENCE_SECONDS: Final = 120.0


def main() -> int:
    """Returns 0 if the broker held at most twice the events, and each was delivered."""
    parser = argparse.ArgumentParser(prog="python -m load.outage", description=__doc__)
    parser.add_argument("--events", type=int, default=500, help="sign-ups while there is no worker (500)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long there is none (60)")
    parser.add_argument("--column", default="celery-redis+outbox", choices=[c for c in COLUMNS if "celery" in c])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    options = parser.parse_args()
    how = Options(rabbitmq=service("EVENTPACT_TEST_RABBITMQ", 5672))
    with opened(COLUMNS[options.column], how, "outage", settings=_SETTINGS) as world:
        result = _outage(world, options.events, options.seconds)
    print(json.dumps(result, indent=1))
    if options.json is not None:
        document = {"made_at": datetime.now(UTC).isoformat(timespec="seconds"), "column": options.column} | result
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if result["messages_at_most"] <= _MESSAGES_PER_EVENT * result["events"] and not result["lost"] else 1


def _outage(world: World, events: int, seconds: float) -> dict[str, float]:
    world.worker.stop()
    waiting: list[int] = []

    def over(moment: float) -> Callable[[], bool]:
        return lambda: time.monotonic() > moment

    ends_at = time.monotonic() + seconds
    for _ in range(events // 50):
        world.sign_up(50)
        waiting.append(world.backlog())
    while not world.comes_about(over(ends_at), 1.0):
        waiting.append(world.backlog())
    waiting.append(world.backlog())
    accepted = len(world.accepted())
    world.worker.start()
    started_at = time.monotonic()
    world.comes_about(lambda: world.is_settled() and not world.backlog(), _PATIENCE_SECONDS)
    drained = time.monotonic() - started_at
    balance = world.ledger.balance(world.mail.mails, world.kept())
    return {
        "events": accepted,
        "resend_waits_without_worker": seconds,
        "messages_at_most": max(waiting),
        "drain_seconds": round(drained, 1),
        "lost": balance.lost,
        "failed": balance.failed,
        "duplicated": balance.duplicated,
    }


if __name__ == "__main__":
    sys.exit(main())
