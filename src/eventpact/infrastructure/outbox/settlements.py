"""What came of the events that a relay dispatched, until the database has been told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar
from uuid import UUID

import sqlalchemy as sa

from eventpact.domain.dispatcher import FailedDelivery, FailureSink
from eventpact.infrastructure.dispatching.failures import FailureReporter, log_failure
from eventpact.infrastructure.outbox.store import OutboxStore

__all__ = ["DEATHS", "NeverSettledError", "Outcomes"]

_T = TypeVar("_T")

DEATHS: Final = 5
"""How many processes may die with an event before it is kept as failed."""

_BATCH: Final = 200

_AWAY: Final = (sa.exc.InterfaceError, sa.exc.InternalError, sa.exc.OperationalError, sa.exc.TimeoutError)
"""What a database says that is away, busy or read-only. Any other error is the sink's own, and would come again."""


class NeverSettledError(Exception):
    """Whoever handled the event ended before it was settled, each time; perhaps the handler kills its process."""

    def __init__(self, tries: int) -> None:
        super().__init__(f"the process that handled it ended {tries} times; does the handler kill it?")


class Outcomes:
    """Any thread adds, under the relay's lock; one thread tells. What it has taken is in the database, or still here.

    Args:
        on_failure: the failure sink; the log where it is not given.
    """

    def __init__(self, on_failure: FailureSink | None) -> None:
        self._failures = FailureReporter(on_failure)
        self._settled: deque[tuple[UUID, str]] = deque()
        self._failed: deque[tuple[FailedDelivery, str]] = deque()
        # Failures that the sink was told, each with an entry that was there before: one that came later is a replay.
        self._told: deque[tuple[UUID, str]] = deque()
        self._sent: deque[UUID] = deque()

    def __bool__(self) -> bool:
        return bool(self._settled or self._failed or self._told or self._sent)

    def succeeded(self, event_id: UUID, key: str) -> None:
        """A delivery is settled."""
        self._settled.append((event_id, key))

    def failed(self, failed: FailedDelivery, key: str) -> None:
        """A delivery has failed for good: the failure sink is told before it counts as settled."""
        self._failed.append((failed, key))

    def sent(self, entry_id: UUID) -> None:
        """An engine that outlives this process has accepted an entry."""
        self._sent.append(entry_id)

    def tell(self, store: OutboxStore) -> None:
        """Tell the failure sink and the database.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot be reached, or refused; what is left is told next time.
        """
        while self._failed:
            failed, key = self._failed[0]
            entries = store.pending(failed.event.event_id, key)
            self._report(failed)
            self._told.extend((entry_id, key) for entry_id in entries)
            self._failed.popleft()
        _empty(self._settled, store.settle)
        _empty(self._told, store.settle_entries)
        _empty(self._sent, store.mark_sent)

    def abandon(self) -> None:
        """The database is away for good: what has failed is logged; it will be delivered, and fail, again."""
        for failed, _ in self._failed:
            log_failure(failed)

    def _report(self, failed: FailedDelivery) -> None:
        """Tell the failure sink; if what it lacks is a database, it is told again when there is one."""
        away: list[sa.exc.SQLAlchemyError] = []

        def sink(failed: FailedDelivery) -> None:
            try:
                self._failures(failed)
            except _AWAY as error:
                away.append(error)

        self._failures.around(lambda _: sink).report(failed)
        if away:
            raise away[0]


def _empty(queue: deque[_T], tell: Callable[[list[_T]], None]) -> None:
    while batch := [queue[place] for place in range(min(_BATCH, len(queue)))]:  # not iterated over: others append
        tell(batch)
        for _ in batch:
            queue.popleft()
