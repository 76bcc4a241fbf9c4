"""Statements on the outbox: append, claim, record attempts, settle."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa

from eventpact.domain.dispatcher import DispatchError
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import RetryPolicy
from eventpact.infrastructure.outbox.entries import Attempts, Backlog, Entry, KnownHandlers, outbox, relays
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.persistence.failure_store import failures

__all__ = ["OutboxStore"]


class OutboxStore:
    """Rows that belong to a relay while it lives, and to the first that claims them when it does not.

    All moments are the database's, so the clocks of servers may differ. Each method joins the transaction that its
    caller is in, and else has its own.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: from each method, where the database cannot be reached, or refused.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    # -- writing and claiming ------------------------------------------------------------------------------------------

    def append(
        self,
        event: DomainEvent,
        keys: Sequence[str],
        relay_id: str | None = None,
        context: Mapping[str, str] | None = None,
    ) -> Entry | None:
        """Append ``event`` for these handlers; None if it is here already, which changes nothing.

        Raises:
            DispatchError: an event of another type is here under its id.
        """
        payload = json.dumps(event.to_dict())
        entry = Entry(event.event_id, event.event_id, type(event).__name__, payload, tuple(keys), context or {})
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

    def append_replay(
        self,
        name: str,
        event_id: UUID,
        payload: str,
        keys: Sequence[str],
        wait: timedelta = timedelta(0),
    ) -> None:
        """Append an event for some of its handlers, to be delivered after ``wait``; its other entries stay."""
        self._insert(Entry(uuid4(), event_id, name, payload, tuple(keys)), None, wait)

    def claim(
        self, relay_id: str, limit: int, known: KnownHandlers | None = None, *, crashes: int | None = None
    ) -> list[Entry]:
        """Give the relay the oldest entries that are due and belong to it or to no living relay.

        Args:
            known: only entries for one of these handlers; others are left to relays that know them.
            crashes: only entries with which so many relays have crashed; a crash since then is counted. None: any.
        """
        now = self.database.clock()
        mine = sa.and_(outbox.c.claimed_by == relay_id, outbox.c.due_at <= now)
        oldest = sa.select(outbox).where(sa.or_(mine, _claimable(now)))
        if known is not None:
            oldest = oldest.where(_is_known(known))
        if crashes is not None:
            oldest = oldest.where(outbox.c.tries == crashes)
        with self.database.transaction() as connection:
            oldest = oldest.order_by(outbox.c.appended_at).limit(limit).with_for_update(skip_locked=True)
            rows = connection.execute(oldest).all()
            return self._take(relay_id, rows, counted=crashes is not None) if rows else []

    def fewest_crashes(self, known: KnownHandlers) -> int | None:
        """Return the least number of crashes of an entry that may be claimed and has any; None if there is none."""
        these = sa.and_(outbox.c.tries > 0, _claimable(self.database.clock()), _is_known(known))
        least: int | None = self.database.fetch(sa.select(sa.func.min(outbox.c.tries)).where(these)).scalar_one()
        return least

    def claim_unknown(self, relay_id: str, limit: int, known: KnownHandlers, after: timedelta) -> list[Entry]:
        """Give the relay entries for handlers that it does not know, if no other relay has claimed them for long."""
        now = self.database.clock()
        old = sa.select(outbox).where(_claimable(now), outbox.c.appended_at < now - after, sa.not_(_is_known(known)))
        with self.database.transaction() as connection:
            rows = connection.execute(old.limit(limit).with_for_update(skip_locked=True)).all()
            return self._take(relay_id, rows, counted=False) if rows else []

    def leave(self, entries: Sequence[Entry], wait: timedelta) -> None:
        """Give entries back, to be claimed by any relay after ``wait``."""
        these = sa.update(outbox).where(outbox.c.entry_id.in_([entry.entry_id for entry in entries]))
        self.database.write(these.values(claimed_by=None, due_at=self.database.clock() + wait))

    def split(self, entry: Entry, unknown: Sequence[str]) -> None:
        """Put these handlers of an entry into an entry of their own, which belongs to no relay."""
        with self.database.transaction() as connection:
            row = connection.execute(
                sa.select(outbox).where(outbox.c.entry_id == entry.entry_id).with_for_update()
            ).one_or_none()
            if row is None:
                return
            left = [key for key in json.loads(row.pending) if key not in unknown]
            this = outbox.c.entry_id == entry.entry_id
            connection.execute(sa.update(outbox).where(this).values(pending=json.dumps(left)))
            other = row._asdict() | {"entry_id": uuid4(), "pending": json.dumps(list(unknown)), "claimed_by": None}
            connection.execute(sa.insert(outbox).values(**other))

    def rename(self, entry: Entry, keys: Mapping[str, str]) -> None:
        """Replace keys of handlers whose class was renamed. The attempts under the old keys do not count."""
        this = outbox.c.entry_id == entry.entry_id
        with self.database.transaction() as connection:
            pending = connection.execute(sa.select(outbox.c.pending).where(this).with_for_update()).scalar_one_or_none()
            if pending is not None:
                renamed = json.dumps([keys.get(key, key) for key in json.loads(pending)])
                connection.execute(sa.update(outbox).where(this).values(pending=renamed))

    def release(self, relay_id: str) -> None:
        """Let other relays claim the entries of one that ends in good order, and so has not crashed with them."""
        self.database.write(sa.update(outbox).where(outbox.c.claimed_by == relay_id).values(claimed_by=None))

    def drop(self, entry_id: UUID) -> None:
        """Delete an entry that nobody can read, once it is kept elsewhere."""
        self.database.write(sa.delete(outbox).where(outbox.c.entry_id == entry_id))

    # -- an engine in other processes ----------------------------------------------------------------------------------

    def postpone(self, entry_ids: Collection[UUID], wait: timedelta, *, sent: bool = False) -> None:
        """Let entries be due again after ``wait``, unless a retry is due before.

        Args:
            sent: count that an engine has accepted them.
        """
        again = self.database.clock() + wait
        sooner = sa.case((outbox.c.due_at < again, outbox.c.due_at), else_=again)
        statement = sa.update(outbox).where(outbox.c.entry_id.in_(entry_ids))
        self.database.write(statement.values(sends=outbox.c.sends + int(sent), due_at=sooner))

    def sent(self) -> int:
        """Count the entries that an engine has accepted and no handler has failed since."""
        count: int = self.database.fetch(sa.select(sa.func.count()).where(outbox.c.sends > 0)).scalar_one()
        return count

    def begin(self, event_id: UUID, key: str) -> int:
        """Count that a handler is about to be called; return the count, or 0 if it is not to be called (now)."""
        tries = 0
        with self.database.transaction() as connection:
            rows = sa.select(outbox).where(outbox.c.event_id == event_id).order_by(outbox.c.entry_id).with_for_update()
            for row in connection.execute(rows).all():
                pending, attempts = json.loads(row.pending), Attempts.parse(row.attempts)
                if key not in pending or not attempts.begin(key):
                    continue
                tries = max(tries, row.tries + 1)
                values = {"tries": row.tries + 1} | ({"attempts": attempts.dump()} if len(pending) > 1 else {})
                connection.execute(sa.update(outbox).where(outbox.c.entry_id == row.entry_id).values(**values))
        return tries

    # -- outcomes ------------------------------------------------------------------------------------------------------

    def pending(self, event_id: UUID, key: str | None = None) -> list[UUID]:
        """Return the entries of an event, replays among them, that this handler (or any) has not settled."""
        rows = self.database.fetch(sa.select(outbox.c.entry_id, outbox.c.pending).where(outbox.c.event_id == event_id))
        return [row.entry_id for row in rows if key is None or key in json.loads(row.pending)]

    def pending_keys(self, event_id: UUID) -> set[str]:
        """Return the keys of the handlers that have not settled an event."""
        rows = self.database.fetch(sa.select(outbox.c.pending).where(outbox.c.event_id == event_id))
        return {key for row in rows for key in json.loads(row.pending)}

    def park(self, event_id: UUID, key: str, made: int, policy: RetryPolicy) -> tuple[int, float | None, list[UUID]]:
        """Record ``made`` more failed attempts of a delivery and, if there is one left, when the next one is due.

        Returns:
            All attempts; the seconds until the next one, or None if there is none left; the entries of the delivery.
        """
        rows = sa.select(outbox).where(outbox.c.event_id == event_id).order_by(outbox.c.entry_id).with_for_update()
        with self.database.transaction() as connection:
            found = [row for row in connection.execute(rows).all() if key in json.loads(row.pending)]
            attempts = {row.entry_id: Attempts.parse(row.attempts) for row in found}
            total = made + max((each.made.get(key, 0) for each in attempts.values()), default=0)
            if total > policy.retries or not found:
                return total, None, list(attempts)
            wait = policy.wait(total)
            due = self.database.now() + timedelta(seconds=wait)
            for entry_id, each in attempts.items():
                each.park(key, total, due)
                # The process has outlived this attempt, so it was none of those that crashed with the entry.
                values = {"attempts": each.dump(), "due_at": each.next_due, "tries": 0, "sends": 0}
                connection.execute(sa.update(outbox).where(outbox.c.entry_id == entry_id).values(**values))
        return total, wait, list(attempts)

    def settle(self, deliveries: Collection[tuple[UUID, str]]) -> None:
        """Strike handlers that succeeded off their events; an event without one is gone. Repeating changes nothing.

        Failures of before, and messages that could not be read and are now, leave the failure store.
        """
        with self.database.transaction() as connection:
            self._strike(outbox.c.event_id, deliveries)
            connection.execute(sa.delete(failures).where(_is_settled(deliveries)))

    def settle_entries(self, deliveries: Collection[tuple[UUID, str]]) -> None:
        """Strike handlers that failed off these entries: not off a replay of the event that was appended meanwhile."""
        self._strike(outbox.c.entry_id, deliveries)

    def is_served(self) -> bool:
        """Tell whether a relay lives, or has not expired yet."""
        return self.database.fetch(sa.select(relays.c.relay_id).limit(1)).first() is not None

    def backlog(self) -> Backlog:
        """Count the entries, and tell the age of the oldest."""
        with self.database.transaction():
            counts = sa.select(sa.func.count().label("entries"), sa.func.min(outbox.c.appended_at).label("oldest"))
            row = self.database.fetch(counts).one()
            age = None if row.oldest is None else max(timedelta(0), self.database.now() - row.oldest)
        return Backlog(row.entries, age)

    def _take(self, relay_id: str, rows: Sequence[Any], *, counted: bool) -> list[Entry]:
        now = self.database.now()
        entries, plain = [], []
        with self.database.transaction() as connection:
            for row in rows:
                orphaned = row.claimed_by != relay_id
                crashes = row.tries + int(counted and orphaned and row.claimed_by is not None)
                attempts = Attempts.parse(row.attempts)
                # An engine in other processes is given the event again if it was silent for long.
                everything = orphaned or not (counted or attempts.has_ripe(now))
                pending = attempts.take(json.loads(row.pending), now, everything=everything)
                entry = _entry(row, now, pending, crashes)
                entries.append(replace(entry, retry=bool(attempts.again)))
                if row.attempts is None and crashes == row.tries:
                    plain.append(row.entry_id)
                    continue
                values = {"attempts": attempts.dump(), "due_at": attempts.next_due, "tries": crashes}
                this = sa.update(outbox).where(outbox.c.entry_id == row.entry_id)
                connection.execute(this.values(claimed_by=relay_id, **values))
            if plain:
                these = sa.update(outbox).where(outbox.c.entry_id.in_(plain))
                connection.execute(these.values(claimed_by=relay_id, due_at=None))
        return entries

    def _strike(self, which: sa.Column[UUID], deliveries: Collection[tuple[UUID, str]]) -> None:
        settled: dict[UUID, set[str]] = {}
        for each, key in deliveries:
            settled.setdefault(each, set()).add(key)
        rows = (
            sa.select(which.label("settled"), outbox.c.entry_id, outbox.c.pending, outbox.c.attempts)
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
                    attempts = Attempts.parse(row.attempts)
                    attempts.settle(settled[row.settled])
                    values = {"pending": json.dumps(left), "attempts": attempts.dump()}
                    connection.execute(sa.update(outbox).where(outbox.c.entry_id == row.entry_id).values(**values))
            if gone:
                connection.execute(sa.delete(outbox).where(outbox.c.entry_id.in_(gone)))

    def _insert(self, entry: Entry, relay_id: str | None, wait: timedelta | None = None) -> bool:
        statement = (
            self.database.insert(outbox)
            .values(
                entry_id=entry.entry_id,
                event_id=entry.event_id,
                name=entry.name,
                payload=entry.payload,
                pending=json.dumps(entry.pending),
                claimed_by=relay_id,
                appended_at=self.database.clock(),
                context=json.dumps(entry.context) if entry.context else None,
                due_at=None if wait is None else self.database.clock() + wait,
            )
            .on_conflict_do_nothing()
            .returning(outbox.c.entry_id)
        )
        with self.database.transaction() as connection:
            return connection.execute(statement).one_or_none() is not None


def _is_settled(deliveries: Collection[tuple[UUID, str]]) -> sa.ColumnElement[bool]:
    pairs = [(str(event_id), key) for event_id, key in deliveries]
    succeeded = sa.or_(failures.c.handler.is_(None), sa.tuple_(failures.c.event_id, failures.c.handler).in_(pairs))
    return sa.and_(failures.c.event_id.in_({event_id for event_id, _ in pairs}), succeeded)


def _orphaned() -> sa.ColumnElement[bool]:
    return sa.or_(outbox.c.claimed_by.is_(None), outbox.c.claimed_by.not_in(sa.select(relays.c.relay_id)))


def _claimable(now: Any) -> sa.ColumnElement[bool]:
    return sa.and_(_orphaned(), sa.or_(outbox.c.due_at.is_(None), outbox.c.due_at <= now))


def _is_known(known: KnownHandlers) -> sa.ColumnElement[bool]:
    return sa.or_(
        sa.false(),
        *(
            sa.and_(outbox.c.name == name, outbox.c.pending.contains(json.dumps(key), autoescape=True))
            for name, keys in known.items()
            for key in keys
        ),
    )


def _entry(row: Any, now: datetime, pending: tuple[str, ...], crashes: int) -> Entry:
    context = json.loads(row.context) if row.context else {}
    age = max(timedelta(0), now - row.appended_at)
    return Entry(
        row.entry_id, row.event_id, row.name, row.payload, pending, context, crashes=crashes, sends=row.sends, age=age
    )
