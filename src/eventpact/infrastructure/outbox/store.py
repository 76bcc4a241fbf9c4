"""The outbox, in the application's database: accepted events, each with the handlers that have not settled it yet."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from eventpact.domain.dispatcher import DispatchError
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.persistence.database import Database, UtcDateTime, metadata

__all__ = ["Backlog", "Entry", "OutboxStore"]

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


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the outbox.

    Attributes:
        entry_id: the event's id or, for a replay, one of its own.
        name: the event type's wire name.
        payload: the event's fields, as JSON.
        pending: the keys of the handlers that have not settled it.
        sent: whether an engine that outlives this process has accepted it before.
        tries: how many relays have died with it.
    """

    entry_id: UUID
    event_id: UUID
    name: str
    payload: str
    pending: tuple[str, ...]
    sent: bool
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is in the outbox. ``oldest`` is the age of the oldest entry, where there is one."""

    entries: int
    oldest: timedelta | None


class OutboxStore:
    """Rows that belong to a relay while it lives, and to whoever claims them first when it does not.

    Whether a relay lives is told by a number that it counts up, not by a time: no clock of any machine matters.

    Each method joins the transaction that its caller is in, and else has its own.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: from each method, where the database cannot be reached, or refused.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def append(self, event: DomainEvent, keys: Sequence[str], relay_id: str | None = None) -> Entry | None:
        """Take over ``event`` for these handlers; None if it is here already, which changes nothing.

        Raises:
            DispatchError: an event of another type is here under its id.
        """
        payload = json.dumps(event.to_dict())
        entry = Entry(event.event_id, event.event_id, type(event).__name__, payload, tuple(keys), sent=False)
        same = sa.select(outbox.c.name).where(outbox.c.entry_id == entry.entry_id)
        with self.database.transaction() as connection:
            while not self._insert(entry, relay_id):
                there = connection.execute(same).scalar_one_or_none()  # None if it was settled since
                if there == entry.name:
                    return None
                if there is not None:
                    raise DispatchError(
                        f"{entry.name} was refused: its event_id, {entry.event_id}, is taken by {there} in the"
                        " outbox; give each event an id of its own"
                    )
        return entry

    def append_replay(self, name: str, event_id: UUID, payload: str, key: str) -> None:
        """Take over an event for one handler, whatever becomes of its others."""
        self._insert(Entry(uuid4(), event_id, name, payload, (key,), sent=False), None)

    def claim(self, relay_id: str, limit: int, *, tried: bool | None = None) -> list[Entry]:
        """Give the relay the oldest entries that belong to no living one.

        Args:
            tried: only those with which a relay has died before, or with which none has. Given at all, it is counted
                that one died, where one did.
        """
        orphaned = sa.or_(outbox.c.claimed_by.is_(None), outbox.c.claimed_by.not_in(sa.select(relays.c.relay_id)))
        oldest = sa.select(outbox).where(orphaned).order_by(outbox.c.appended_at).limit(limit)
        died = sa.case((outbox.c.claimed_by.is_(None), 0), else_=1) if tried is not None else 0
        if tried is not None:
            oldest = oldest.where(outbox.c.tries > 0 if tried else outbox.c.tries == 0)
        with self.database.transaction() as connection:
            rows = connection.execute(oldest.with_for_update(skip_locked=True)).all()
            if rows:
                mine = outbox.c.entry_id.in_([row.entry_id for row in rows])
                connection.execute(
                    sa.update(outbox).where(mine).values(tries=outbox.c.tries + died, claimed_by=relay_id)
                )
        counted = tried is not None
        return [_entry(row, deaths=int(counted and row.claimed_by is not None)) for row in rows]

    def mark_sent(self, entry_ids: Collection[UUID]) -> None:
        """Another engine has accepted these, so whoever claims them next need not hurry to dispatch them."""
        with self.database.transaction() as connection:
            connection.execute(
                sa.update(outbox).where(outbox.c.entry_id.in_(entry_ids)).values(sends=outbox.c.sends + 1)
            )

    def still_here(self, relay_id: str, entry_ids: Collection[UUID]) -> list[Entry]:
        """Those of the relay's entries that are not settled yet."""
        statement = sa.select(outbox).where(outbox.c.entry_id.in_(entry_ids), outbox.c.claimed_by == relay_id)
        with self.database.transaction() as connection:
            return [_entry(row) for row in connection.execute(statement)]

    def begin(self, event_id: UUID, key: str) -> int:
        """A handler is about to be called: how often one was for this event, with this time; 0 if it has settled it."""
        mine = outbox.c.event_id == event_id
        with self.database.transaction() as connection:
            pending = connection.execute(sa.select(outbox.c.pending).where(mine).with_for_update()).scalars()
            if not any(key in json.loads(each) for each in pending):
                return 0
            again = sa.update(outbox).where(mine).values(tries=outbox.c.tries + 1).returning(outbox.c.tries)
            tries: list[int] = list(connection.execute(again).scalars())
        return max(tries)

    def pending(self, event_id: UUID, key: str) -> list[UUID]:
        """The entries of an event, replays among them, that this handler has not settled."""
        rows = sa.select(outbox.c.entry_id, outbox.c.pending).where(outbox.c.event_id == event_id)
        with self.database.transaction() as connection:
            return [row.entry_id for row in connection.execute(rows) if key in json.loads(row.pending)]

    def settle(self, deliveries: Collection[tuple[UUID, str]]) -> None:
        """Strike these handlers off their events; an event without one is gone. Doing it again changes nothing."""
        self._strike(outbox.c.event_id, deliveries)

    def settle_entries(self, deliveries: Collection[tuple[UUID, str]]) -> None:
        """The same off these entries: not off a replay of the event that was appended meanwhile."""
        self._strike(outbox.c.entry_id, deliveries)

    def drop(self, entry_id: UUID) -> None:
        """Forget an entry that nobody can read, once it is kept elsewhere."""
        with self.database.transaction() as connection:
            connection.execute(sa.delete(outbox).where(outbox.c.entry_id == entry_id))

    def register(self, relay_id: str) -> None:
        """A relay begins to live."""
        with self.database.transaction() as connection:
            connection.execute(sa.insert(relays).values(relay_id=relay_id, beat=0))

    def beat(self, relay_id: str) -> bool:
        """Say that the relay lives; False if it was declared dead, so that its entries may be another's."""
        mine = sa.update(relays).where(relays.c.relay_id == relay_id).values(beat=relays.c.beat + 1)
        with self.database.transaction() as connection:
            return connection.execute(mine).rowcount == 1

    def beats(self) -> dict[str, int]:
        """The living relays, each with its count."""
        with self.database.transaction() as connection:
            return {row.relay_id: row.beat for row in connection.execute(sa.select(relays))}

    def bury(self, relay_id: str, beat: int | None = None) -> None:
        """Declare a relay dead, unless it has counted beyond ``beat``; what belonged to it is free to be claimed."""
        statement = sa.delete(relays).where(relays.c.relay_id == relay_id)
        if beat is not None:
            statement = statement.where(relays.c.beat == beat)
        with self.database.transaction() as connection:
            connection.execute(statement)

    def leave(self, relay_id: str) -> None:
        """A relay ends in good order: what belonged to it is free to be claimed, and it has not died with it."""
        with self.database.transaction() as connection:
            connection.execute(sa.update(outbox).where(outbox.c.claimed_by == relay_id).values(claimed_by=None))
            self.bury(relay_id)

    def backlog(self) -> Backlog:
        """How much is here, and how old it is."""
        with self.database.transaction() as connection:
            row = connection.execute(
                sa.select(sa.func.count().label("entries"), sa.func.min(outbox.c.appended_at).label("oldest"))
            ).one()
        return Backlog(row.entries, None if row.oldest is None else max(timedelta(0), _now() - row.oldest))

    def _strike(self, which: sa.Column[UUID], deliveries: Collection[tuple[UUID, str]]) -> None:
        settled: dict[UUID, set[str]] = {}
        for each, key in deliveries:
            settled.setdefault(each, set()).add(key)
        rows = (
            sa.select(which.label("settled"), outbox.c.entry_id, outbox.c.pending)
            .where(which.in_(settled))
            .order_by(outbox.c.entry_id)  # so that two which settle the same do not wait for each other
            .with_for_update()
        )
        gone = []
        with self.database.transaction() as connection:
            for row in connection.execute(rows).all():
                pending = json.loads(row.pending)
                left = [key for key in pending if key not in settled[row.settled]]
                if not left:
                    gone.append(row.entry_id)
                elif left != pending:
                    this = outbox.c.entry_id == row.entry_id
                    connection.execute(sa.update(outbox).where(this).values(pending=json.dumps(left)))
            if gone:
                connection.execute(sa.delete(outbox).where(outbox.c.entry_id.in_(gone)))

    def _insert(self, entry: Entry, relay_id: str | None) -> bool:
        insert = sqlite.insert if self.database.is_sqlite else postgresql.insert
        statement = (
            insert(outbox)
            .values(
                entry_id=entry.entry_id,
                event_id=entry.event_id,
                name=entry.name,
                payload=entry.payload,
                pending=json.dumps(entry.pending),
                claimed_by=relay_id,
                appended_at=_now(),
            )
            .on_conflict_do_nothing()
            .returning(outbox.c.entry_id)
        )
        with self.database.transaction() as connection:
            return connection.execute(statement).one_or_none() is not None


def _entry(row: Any, deaths: int = 0) -> Entry:
    pending = tuple(json.loads(row.pending))
    return Entry(row.entry_id, row.event_id, row.name, row.payload, pending, row.sends > 0, row.tries + deaths)


def _now() -> datetime:
    return datetime.now(UTC)
