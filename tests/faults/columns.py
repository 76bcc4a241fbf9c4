"""The columns of the matrix: each engine, with the outbox and without."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from eventpact.bootstrap import bootstrap
from eventpact.domain.dispatcher import Delivery, Guarantees
from eventpact.settings import load_settings

__all__ = ["COLUMNS", "Column"]


@dataclass(frozen=True)
class Column:
    """One way to carry events.

    Attributes:
        broker: the scheme of its URL; empty where events stay in the server.
    """

    dispatcher: str
    broker: str
    outbox: bool

    @property
    def name(self) -> str:
        engine = {"": self.dispatcher, "redis": "celery-redis", "amqp": "celery-rabbitmq"}[self.broker]
        return f"{engine}+outbox" if self.outbox else engine

    @property
    def has_worker(self) -> bool:
        return bool(self.broker)

    @cached_property
    def guarantees(self) -> Guarantees:
        """What the dispatcher that these settings build declares."""

        async def declared(folder: str) -> Guarantees:
            application = bootstrap(
                load_settings(
                    dispatcher=self.dispatcher,
                    broker=f"{self.broker}://127.0.0.1:1" if self.broker else None,  # nobody connects
                    outbox=self.outbox,
                    data_dir=Path(folder),
                    drain_timeout=0,
                )
            )
            guarantees = application.dispatcher.guarantees
            await application.aclose()
            return guarantees

        with tempfile.TemporaryDirectory(prefix="eventpact-faults-") as folder:
            return asyncio.run(declared(folder))

    @property
    def promises(self) -> bool:
        """Whether it promises that no accepted event is lost."""
        return self.guarantees.delivery is Delivery.AT_LEAST_ONCE


COLUMNS: Final = {
    column.name: column
    for dispatcher, broker in (("sync", ""), ("asyncio", ""), ("celery", "redis"), ("celery", "amqp"))
    for outbox in (False, True)
    for column in (Column(dispatcher, broker, outbox),)
}
