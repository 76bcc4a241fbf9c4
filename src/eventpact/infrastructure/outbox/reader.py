"""Decode rows of the outbox. Those that this version cannot read are stored as failed, or left to another."""

import json
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Final

from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import UnreadableMessage, UnreadableSink
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.monitoring.logs import harmless, log_about
from eventpact.infrastructure.outbox.entries import Entry
from eventpact.infrastructure.outbox.store import OutboxStore

_log = logging.getLogger("eventpact")

_MAX_LEFT_WAIT: Final = timedelta(hours=1)


class EntryReader:
    """Reads entries for the handlers that this process has.

    Args:
        on_unreadable: stores an entry that cannot be read. Without it, the entry stays in the outbox, and is read again
            after waits that grow, by any relay.
        lease: the shortest of these waits.
    """

    def __init__(
        self, store: OutboxStore, table: SubscriptionTable, on_unreadable: UnreadableSink | None, lease: timedelta
    ) -> None:
        self._store = store
        self._table = table
        self._on_unreadable = on_unreadable
        self._lease = lease

    def read(self, entry: Entry) -> tuple[Entry, DomainEvent] | None:
        """Return an entry with its event, for the handlers that this process has; None where it cannot be read."""
        try:
            event_type = self._table.named(entry.name)
        except KeyError:
            self._set_aside(entry, "no handler is registered for that name; is this relay older than the sender?")
            return None
        # By the key that is pending, which may be from before the handler's class was renamed.
        known = {key: now for key in entry.pending if (now := self._key(event_type, key)) is not None}
        unknown = [key for key in entry.pending if key not in known]
        if not known:
            self._set_aside(entry, f"there is no handler {unknown[0]!r} here; is this relay older than the sender?")
            return None
        try:
            event = event_type.from_dict(json.loads(entry.payload))
        except (TypeError, ValueError, RecursionError) as error:
            self._set_aside(entry, f"it is malformed ({error})")
            return None
        if unknown:
            self._store.split(entry, unknown)
        if any(key != now for key, now in known.items()):
            self._store.rename(entry, known)
        return replace(entry, pending=tuple(known.values())), event

    def _key(self, event_type: type[DomainEvent], key: str) -> str | None:
        try:
            return self._table.keyed(event_type, key).key
        except KeyError:
            return None

    def _set_aside(self, entry: Entry, reason: str) -> None:
        """Move an entry to the store of failures or, if that is not possible, leave it for later."""
        reason = harmless(reason)  # it may name fields, and whoever wrote the row chose them
        log_about(entry, logging.ERROR, "{event} cannot be read: %s", reason)
        if self._on_unreadable is None:
            self._leave(entry)
            return
        message = UnreadableMessage(
            reason, entry.name, str(entry.event_id), entry.payload.encode(), "application/json", entry.pending
        )
        try:
            with self._store.database.transaction():
                self._on_unreadable(message)
                self._store.drop(entry.entry_id)
        except Exception as error:  # noqa: BLE001 - the sink is not trusted
            _log.error("the sink of unreadable messages raised %s", type(error).__name__)
            self._leave(entry)

    def _leave(self, entry: Entry) -> None:
        self._store.leave([entry], min(max(self._lease, entry.age), _MAX_LEFT_WAIT))
