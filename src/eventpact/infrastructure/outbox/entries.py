"""The outbox table: accepted events, each with the handlers that have not settled it yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa

from eventpact.infrastructure.persistence.database import UtcDateTime, metadata

__all__ = ["Backlog", "Entry", "KnownHandlers", "outbox"]

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("entry_id", sa.Uuid, primary_key=True),
    sa.Column("event_id", sa.Uuid, nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("pending", sa.Text, nullable=False),
    sa.Column("claimed_by", sa.String(32), index=True),
    sa.Column("appended_at", UtcDateTime, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("context", sa.Text),
    sa.Column("due_at", UtcDateTime),
    sa.Column("sends", sa.Integer, nullable=False, server_default="0"),
    sa.Column("attempts", sa.Text),
)

KnownHandlers = Mapping[str, Collection[str]]
"""The wire names of event types, each with the keys of its handlers: those that one process has."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the outbox.

    Attributes:
        entry_id: the event's id or, for a replay, one of its own.
        name: the event type's wire name.
        payload: the event's fields, as JSON.
        pending: the keys of the handlers that have not settled it and are to be called.
        context: the caller's, when the event was dispatched.
        crashes: relays that have crashed while they had it.
        sends: how often an engine that outlives the process has accepted it.
        age: since it was appended.
        retry: only handlers that failed are to be called; the others may be running.
    """

    entry_id: UUID
    event_id: UUID
    name: str
    payload: str
    pending: tuple[str, ...]
    context: Mapping[str, str] = field(default_factory=dict)
    crashes: int = 0
    sends: int = 0
    age: timedelta = timedelta(0)
    retry: bool = False


@dataclass(frozen=True, slots=True)
class Backlog:
    """The number of entries and, if there are any, the age of the oldest."""

    entries: int
    oldest: timedelta | None
