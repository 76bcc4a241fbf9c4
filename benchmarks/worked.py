"""What the worker processes of ``end_to_end.py`` import: ``celery -A worked worker``, told by its environment.

The handler writes into a named pipe when it was called. The clock is the machine's monotonic one, which all of its
processes share.
"""

from __future__ import annotations

import os
import time

from eventpact.domain.events import AccountCreatedEvent
from eventpact.infrastructure.celery.app import make_celery
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher
from eventpact.settings import Settings

BROKER, QUEUE, PIPE = "EVENTPACT_BENCH_BROKER", "EVENTPACT_BENCH_QUEUE", "EVENTPACT_BENCH_PIPE"


class Tells:
    """An ``async def`` handler, as those of the application are."""

    def __init__(self, path: str) -> None:
        self._pipe = os.open(path, os.O_WRONLY)

    async def handle(self, event: AccountCreatedEvent) -> None:
        os.write(self._pipe, f"{event.account_id} {time.monotonic()}\n".encode())  # short, so written at once


if BROKER in os.environ:
    app = make_celery(
        Settings(dispatcher="celery", broker=os.environ[BROKER], celery_queue=os.environ[QUEUE]), role="worker"
    )
    dispatcher = CeleryEventDispatcher(app, {AccountCreatedEvent: Tells(os.environ[PIPE])})
