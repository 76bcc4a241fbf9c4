"""From a row of the outbox to an event; what cannot be read is kept as failed."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace

from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.dispatching.unreadable import UnreadableMessage, UnreadableSink
from eventpact.infrastructure.monitoring.logs import about
from eventpact.infrastructure.outbox.store import Entry, OutboxStore

__all__ = ["EntryReader"]

_log = logging.getLogger("eventpact")


class EntryReader:
    """Reads entries, and sets aside those that another version wrote.

    Args:
        table: what handlers there are.
        on_unreadable: called with what cannot be read; it is logged in any case.
    """

    def __init__(self, store: OutboxStore, table: SubscriptionTable, on_unreadable: UnreadableSink | None) -> None:
        self._store = store
        self._table = table
        self._on_unreadable = on_unreadable

    def read(self, entry: Entry) -> tuple[Entry, DomainEvent] | None:
        """An entry with its event, for the handlers that this process has; None where it has none of them.

        What is for others has been kept.

        Raises:
            Exception: it could not be kept either, and stays where it is.
        """
        try:
            event_type = self._table.named(entry.name)
        except KeyError:
            self._set_aside(entry, "no handler is registered for that name; is this relay older than the sender?")
            return None
        try:
            event = event_type.from_dict(json.loads(entry.payload))
        except (TypeError, ValueError) as error:
            self._set_aside(entry, f"it is malformed ({error})")
            return None
        known = {subscription.key for subscription in self._table[event_type]}
        strange = [key for key in entry.pending if key not in known]
        if strange:
            self._set_aside(entry, f"there is no handler {strange[0]!r} here", strange)
        pending = tuple(key for key in entry.pending if key in known)
        return (replace(entry, pending=pending), event) if pending else None

    def _set_aside(self, entry: Entry, reason: str, keys: Sequence[str] = ()) -> None:
        """Keep it as failed: for these handlers or, where none are given, as a whole."""
        _log.error(
            "%s %s was set aside: %s", entry.name, entry.event_id, reason, extra=about(entry.name, entry.event_id)
        )
        message = UnreadableMessage(reason, entry.name, str(entry.event_id), entry.payload.encode(), "application/json")
        with self._store.database.transaction():
            if self._on_unreadable is not None:
                self._on_unreadable(message)
            if keys:
                self._store.settle([(entry.event_id, key) for key in keys])
            else:
                self._store.drop(entry.entry_id)
