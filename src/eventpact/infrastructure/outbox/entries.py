"""The tables of the outbox: accepted events, each with the handlers that have not settled it yet and their attempts."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from eventpact.infrastructure.persistence.database import UtcDateTime, metadata

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

relays = sa.Table(
    "outbox_relays",
    metadata,
    sa.Column("relay_id", sa.String(32), primary_key=True),
    sa.Column("beat", sa.BigInteger, nullable=False),
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


@dataclass(slots=True)
class Attempts:
    """The content of one column: the attempts of one entry, by the keys of its handlers.

    Attributes:
        made: attempts that failed.
        due: when a handler that failed is called again. Until then the delivery is parked.
        begun: the handlers that other processes have called since they were sent the event.
        surplus: for each handler, how often it was sent the event only because its neighbours were: an engine in other
            processes is sent the whole event. So many calls of one that has begun come to nothing: it may be running,
            and they may arrive when the neighbour that was meant has settled. More calls are an engine's own, which
            had a message of a process that died.
    """

    made: dict[str, int] = field(default_factory=dict)
    due: dict[str, datetime] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    surplus: dict[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> Attempts:
        """Read the column."""
        if text is None:
            return cls()
        data: dict[str, Any] = json.loads(text)
        due = {key: datetime.fromisoformat(moment) for key, moment in data["due"].items()}
        return cls(data["made"], due, set(data["begun"]), data.get("surplus", {}))  # 0.1 wrote none

    def dump(self) -> str | None:
        """Write the column; None where there is nothing to write."""
        if not (self.made or self.begun or self.surplus):
            return None
        due = {key: moment.isoformat() for key, moment in self.due.items()}
        return json.dumps({"made": self.made, "due": due, "begun": sorted(self.begun), "surplus": self.surplus})

    def has_ripe(self, now: datetime) -> bool:
        """Tell whether a retry is due."""
        return any(moment <= now for moment in self.due.values())

    @property
    def next_due(self) -> datetime | None:
        """When the first of the parked deliveries is due."""
        return min(self.due.values(), default=None)

    def park(self, key: str, made: int, due: datetime) -> None:
        """Record a failed attempt, and when the next one is due."""
        self.made[key] = made
        self.due[key] = due

    def take(self, pending: Collection[str], now: datetime, *, everything: bool) -> tuple[str, ...]:
        """Return the handlers that are meant by the next dispatch of the event: those whose retry is due.

        Args:
            everything: all that are not parked, because nobody is making any of these deliveries, as far as is known.
        """
        ripe = {key for key, moment in self.due.items() if moment <= now}
        self.due = {key: moment for key, moment in self.due.items() if key not in ripe}
        if everything:
            meant = [key for key in pending if key not in self.due]
            self.surplus.clear()
        else:
            meant = [key for key in pending if key in ripe]
        self.begun.difference_update(meant)
        for key in set(pending).difference(meant):
            self.surplus[key] = self.surplus.get(key, 0) + 1
        return tuple(meant)

    def begin(self, key: str) -> bool:
        """Tell whether a handler is to be called by an engine that was sent the whole event, and note that it is."""
        if key not in self.due and (key not in self.begun or key not in self.surplus):
            self.begun.add(key)
            return True
        if (left := self.surplus.pop(key, 0) - 1) > 0:
            self.surplus[key] = left
        return False

    def settle(self, keys: Collection[str]) -> None:
        """Forget deliveries that are settled."""
        for key in keys:
            self.made.pop(key, None)
            self.due.pop(key, None)
            self.begun.discard(key)
            self.surplus.pop(key, None)
