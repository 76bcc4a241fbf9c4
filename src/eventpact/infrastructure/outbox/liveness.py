"""Detect relays that have stopped sending heartbeats."""

from __future__ import annotations

import logging
import time

import sqlalchemy as sa

from eventpact.infrastructure.persistence.database import Database, metadata

__all__ = ["Heartbeats", "LivenessMonitor", "relays"]

_log = logging.getLogger("eventpact")

relays = sa.Table(
    "outbox_relays",
    metadata,
    sa.Column("relay_id", sa.String(32), primary_key=True),
    sa.Column("beat", sa.BigInteger, nullable=False),
)


class Heartbeats:
    """The table of living relays. Each counts up a number, so that no clock of any machine matters.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: from each method, where the database cannot be reached, or refused.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, relay_id: str) -> None:
        """Add a relay."""
        with self._database.transaction() as connection:
            connection.execute(sa.insert(relays).values(relay_id=relay_id, beat=0))

    def beat(self, relay_id: str) -> bool:
        """Count up; False if the relay has expired, so that its entries may be another's."""
        mine = sa.update(relays).where(relays.c.relay_id == relay_id).values(beat=relays.c.beat + 1)
        with self._database.transaction() as connection:
            return connection.execute(mine).rowcount == 1

    def counts(self) -> dict[str, int]:
        """Return the living relays, each with its count."""
        with self._database.transaction() as connection:
            return {row.relay_id: row.beat for row in connection.execute(sa.select(relays))}

    def expire(self, relay_id: str, beat: int) -> None:
        """Remove a relay, unless it has counted beyond ``beat``; its entries are free to be claimed.

        A row that is locked is passed over: its relay is counting up or, if its host was cut off meanwhile, the server
        ends that transaction soon. Waiting for it would hold up the whole outbox.
        """
        this = sa.select(relays.c.relay_id).where(relays.c.relay_id == relay_id, relays.c.beat == beat)
        statement = sa.delete(relays).where(relays.c.relay_id.in_(this.with_for_update(skip_locked=True)))
        with self._database.transaction() as connection:
            connection.execute(statement)

    def remove(self, relay_id: str) -> None:
        """Remove a relay that ends in good order."""
        with self._database.transaction() as connection:
            connection.execute(sa.delete(relays).where(relays.c.relay_id == relay_id))


class LivenessMonitor:
    """Expires relays that are silent. Silence is measured by watching, not by comparing clocks.

    Args:
        lease: seconds of watching after which a silent relay expires.
        poll: seconds between two looks; of a longer gap only twice as much counts as watched.
    """

    def __init__(self, heartbeats: Heartbeats, lease: float, poll: float) -> None:
        self._heartbeats = heartbeats
        self._lease = lease
        self._poll = poll
        # The others: their count when it last changed, and for how long it has been watched since.
        self._silent: dict[str, tuple[int, float]] = {}
        self._looked_at: float | None = None

    def look(self, own: str) -> None:
        """Expire each relay that was silent for a lease; its entries are free to be claimed.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot be reached, or refused.
        """
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
