"""How a relay finds out that another one has died."""

from __future__ import annotations

import logging
import time

from eventpact.infrastructure.outbox.store import OutboxStore

__all__ = ["Watch"]

_log = logging.getLogger("eventpact")


class Watch:
    """Buries relays that are silent. Silence is measured by what is seen, not by comparing clocks.

    Args:
        lease: seconds of watching after which a relay that is silent counts as dead.
        poll: seconds between two looks; more than twice as long was not watched, and does not count.
    """

    def __init__(self, store: OutboxStore, lease: float, poll: float) -> None:
        self._store = store
        self._lease = lease
        self._poll = poll
        # The others: their count when it last changed, and for how long it has been watched since.
        self._silent: dict[str, tuple[int, float]] = {}
        self._looked_at: float | None = None

    def look(self, own: str) -> None:
        """Bury what was silent for a lease; what it left is free to be claimed.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot be reached, or refused.
        """
        now = time.monotonic()
        passed = 0.0 if self._looked_at is None else min(now - self._looked_at, 2 * self._poll)
        beats = self._store.beats()
        self._looked_at = now
        silent = {}
        for relay_id, beat in beats.items():
            before, silence = self._silent.get(relay_id, (beat, 0.0))
            silent[relay_id] = (beat, silence + passed if before == beat else 0.0)
            if silent[relay_id][1] >= self._lease and relay_id != own:
                _log.warning("a relay has been silent for %.0f s; what it left is taken over", silent[relay_id][1])
                self._store.bury(relay_id, beat)
                del silent[relay_id]
        self._silent = silent

    def lapse(self) -> None:
        """Nobody watches, as the database is away."""
        self._looked_at = None
