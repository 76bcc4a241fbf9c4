"""Outcomes of deliveries and heartbeats of relays, and the thread that writes both to the database."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Final, TypeVar
from uuid import UUID, uuid4

import sqlalchemy as sa

from eventpact.domain.dispatcher import FailedDelivery, PermanentFailureError
from eventpact.infrastructure.dispatching.failures import FailureReporter, RetryPolicy, is_a
from eventpact.infrastructure.monitoring.logs import log_about
from eventpact.infrastructure.outbox.entries import relays
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.persistence.database import Database, kind_of

_log = logging.getLogger("eventpact")


class Heartbeats:
    """The table of living relays. Each counts up a number, so that no clock of any machine matters."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, relay_id: str) -> None:
        """Add a relay."""
        self._database.write(sa.insert(relays).values(relay_id=relay_id, beat=0))

    def beat(self, relay_id: str) -> bool:
        """Count up; False if the relay has expired, so that its entries may be another's."""
        mine = sa.update(relays).where(relays.c.relay_id == relay_id)
        return self._database.write(mine.values(beat=relays.c.beat + 1)) == 1

    def counts(self) -> dict[str, int]:
        """Return the living relays, each with its count."""
        return {row.relay_id: row.beat for row in self._database.fetch(sa.select(relays))}

    def expire(self, relay_id: str, beat: int) -> None:
        """Remove a relay, unless it has counted beyond ``beat``; its entries are free to be claimed.

        A row that is locked is passed over: its relay is counting up or, if its host was cut off meanwhile, the server
        ends that transaction soon. Waiting for it would hold up the whole outbox.
        """
        this = sa.select(relays.c.relay_id).where(relays.c.relay_id == relay_id, relays.c.beat == beat)
        self._database.write(sa.delete(relays).where(relays.c.relay_id.in_(this.with_for_update(skip_locked=True))))

    def remove(self, relay_id: str) -> None:
        """Remove a relay that ends in good order."""
        self._database.write(sa.delete(relays).where(relays.c.relay_id == relay_id))


class LivenessMonitor:
    """Expires relays that were silent for ``lease`` seconds, by watching them, not by comparing clocks.

    Of a gap between two looks only twice ``poll`` counts as watched.
    """

    def __init__(self, heartbeats: Heartbeats, lease: float, poll: float) -> None:
        self._heartbeats = heartbeats
        self._lease = lease
        self._poll = poll
        # The others: their count when it last changed, and for how long it has been watched since.
        self._silent: dict[str, tuple[int, float]] = {}
        self._looked_at: float | None = None

    def look(self, own: str) -> None:
        """Expire each relay that was silent for a lease; its entries are free to be claimed."""
        now = time.monotonic()
        passed = 0.0 if self._looked_at is None else min(now - self._looked_at, 2 * self._poll)
        counts = self._heartbeats.counts()
        self._looked_at = now
        silent = {}
        for relay_id, beat in counts.items():
            before, silence = self._silent.get(relay_id, (beat, 0.0))
            silent[relay_id] = (beat, silence + passed if before == beat else 0.0)
        self._silent = silent
        for relay_id, (beat, silence) in silent.items():
            if silence >= self._lease and relay_id != own:
                _log.warning("a relay has been silent for %.0f s; its entries are taken over", silence)
                self._heartbeats.expire(relay_id, beat)

    def reset(self) -> None:
        """Forget when the last look was: while the database is unreachable, silence proves nothing."""
        self._looked_at = None


_T = TypeVar("_T")

_BATCH: Final = 200
_FIRST_WAIT_SECONDS: Final = 0.1

_UNREACHABLE: Final = (sa.exc.InterfaceError, sa.exc.InternalError, sa.exc.OperationalError, sa.exc.TimeoutError)
"""Errors of a database that is unreachable, busy or read-only. Any other is the sink's own, and would come again."""


class NeverSettledError(PermanentFailureError):
    """The process that handled the event ended before it was settled, each time; perhaps the handler kills it."""

    def __init__(self, crashes: int) -> None:
        super().__init__(f"the process that handled it ended {crashes} times; does the handler kill it?")


class FailureJudge:
    """Decides whether a delivery that failed is tried again: that is written to the database, and survives a crash."""

    def __init__(self, store: OutboxStore, policy: RetryPolicy) -> None:
        self._store = store
        self._policy = policy

    def judge(self, failed: FailedDelivery, key: str) -> tuple[FailedDelivery | None, list[UUID], float | None]:
        """Record the failed attempt.

        Returns:
            The failure, if it is final, with all its attempts; the entries of the delivery; the seconds until the next
            attempt. Without an entry the delivery was settled elsewhere, and there is nothing to report.
        """
        is_permanent = is_a(failed.exception, PermanentFailureError)
        made = 0 if is_a(failed.exception, NeverSettledError) else failed.attempts
        total, wait, entries = self._store.park(
            failed.event.event_id, key, made, None if is_permanent else self._policy
        )
        if wait is not None:
            text = "attempt %d of {event} by %s failed and is repeated in %.1f s: %s"
            kind = type(failed.exception).__name__
            log_about(failed.event, logging.WARNING, text, total, key, wait, kind, handler=key, attempt=total)
            return None, entries, wait
        if not entries:
            text = "a failure of {event} by %s is ignored: it was settled elsewhere"
            log_about(failed.event, logging.WARNING, text, key, handler=key)
            return None, entries, None
        attempts = failed.attempts if is_a(failed.exception, NeverSettledError) else total
        return FailedDelivery(failed.event, failed.handler, failed.exception, attempts), entries, None


class Settlements:
    """Outcomes that any thread adds and one thread writes. None is lost: it is in the database, or still here.

    Args:
        lease: seconds of silence after which other relays take this one for dead.
        on_identity: called with each id that this relay gets: the first one, and another after it was silent too long.
        on_retry: called with the seconds until a delivery of this relay is due again.
    """

    def __init__(
        self,
        store: OutboxStore,
        reporter: FailureReporter,
        judge: FailureJudge,
        lease: float,
        on_identity: Callable[[str], None],
        on_retry: Callable[[float], None],
    ) -> None:
        self._store = store
        self._heartbeats = Heartbeats(store.database)
        self._reporter = reporter
        self._judge = judge
        self._lease = lease
        self._on_identity = on_identity
        self._on_retry = on_retry
        self._relay_id: str | None = None
        self._succeeded: deque[tuple[UUID, str]] = deque()
        self._failed: deque[tuple[FailedDelivery, str]] = deque()
        # Reported failures, each with an entry that was there before: one that came later is a replay.
        self._reported: deque[tuple[UUID, str]] = deque()
        self._sent: deque[tuple[UUID, timedelta]] = deque()
        self._last = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="eventpact-outbox-settlements", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def succeeded(self, event_id: UUID, key: str) -> None:
        """Add a delivery that succeeded."""
        self._add(self._succeeded, (event_id, key))

    def failed(self, failed: FailedDelivery, key: str) -> None:
        """Add an attempt that failed."""
        self._add(self._failed, (failed, key))

    def sent(self, entry_id: UUID, wait: timedelta) -> None:
        """Add an entry that an engine in other processes has accepted; it is due again after ``wait``."""
        self._add(self._sent, (entry_id, wait))

    def finish(self, timeout: float) -> None:
        """Write the outcomes, let other relays have the entries that are not settled, and end the thread."""
        with self._changed:
            self._last = True
            self._changed.notify()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _add(self, queue: deque[_T], outcome: _T) -> None:
        with self._changed:
            queue.append(outcome)
            self._changed.notify()

    def _is_pending(self) -> bool:
        return bool(self._succeeded or self._failed or self._reported or self._sent)

    def _run(self) -> None:
        beat_at = 0.0
        failures = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._last or self._is_pending(), max(0.0, beat_at - time.monotonic()))
                last = self._last and (not self._is_pending() or failures > 0)
            try:
                if last:
                    self._abandon()
                    return
                if time.monotonic() >= beat_at:
                    self._beat()
                    beat_at = time.monotonic() + self._lease / 4
                self._flush()
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it is, this relay would be taken for dead without it
                failures += 1
                _log.warning("the outbox cannot be written (%s); is the database up, and migrated?", kind_of(error))
                if last:
                    return
                with self._changed:
                    wait = min(_FIRST_WAIT_SECONDS * 2.0 ** min(failures, 30), self._lease / 4)
                    self._changed.wait_for(lambda: self._last, wait)

    def _beat(self) -> None:
        if self._relay_id is not None and self._heartbeats.beat(self._relay_id):
            return
        relay_id = uuid4().hex
        self._heartbeats.register(relay_id)
        if self._relay_id is not None:
            _log.warning("this relay was silent for too long; others may have the deliveries that it had not begun")
        self._relay_id = relay_id
        self._on_identity(relay_id)

    def _flush(self) -> None:
        while self._failed:
            failed, key = self._failed[0]
            final, entries, wait = self._judge.judge(failed, key)
            if final is not None:
                self._report(final)
                self._reported.extend((entry_id, key) for entry_id in entries)
            self._failed.popleft()
            if wait is not None:
                self._on_retry(wait)
        _empty(self._succeeded, self._store.settle)
        _empty(self._reported, self._store.settle_entries)
        _empty(self._sent, self._mark_sent)

    def _mark_sent(self, batch: list[tuple[UUID, timedelta]]) -> None:
        for wait in {wait for _, wait in batch}:
            self._store.postpone([entry_id for entry_id, each in batch if each == wait], wait, sent=True)

    def _abandon(self) -> None:
        """End. A delivery whose outcome is not written stays pending, and is made again."""
        if self._failed:
            _log.error("%d failure(s) were not stored; these deliveries are made again", len(self._failed))
        if self._relay_id is not None:
            with self._store.database.transaction():
                self._store.release(self._relay_id)
                self._heartbeats.remove(self._relay_id)

    def _report(self, failed: FailedDelivery) -> None:
        """Call the failure sink; raise if it was the database that it lacked, so that it is called again later."""
        unreachable: list[sa.exc.SQLAlchemyError] = []

        def sink(failed: FailedDelivery) -> None:
            try:
                self._reporter(failed)
            except _UNREACHABLE as error:
                unreachable.append(error)

        self._reporter.around(lambda _: sink).report(failed)
        if unreachable:
            raise unreachable[0]


def _empty(queue: deque[_T], write: Callable[[list[_T]], None]) -> None:
    while batch := [queue[place] for place in range(min(_BATCH, len(queue)))]:  # not iterated over: others append
        write(batch)
        for _ in batch:
            queue.popleft()
