"""Statements on the outbox: append, claim, record attempts, settle."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa

from eventpact.domain.dispatcher import DispatchError
from eventpact.domain.events import DomainEvent, to_wire
from eventpact.infrastructure.dispatching.failures import RetryPolicy
from eventpact.infrastructure.outbox.entries import Attempts, Backlog, Entry, KnownHandlers, outbox, relays
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.persistence.failure_store import failures

__all__ = ["OutboxStore", "for_handlers"]


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
            DispatchError: another event is here under its id: of another type, or with other content.
        """
        payload = json.dumps(to_wire(event))
        entry = Entry(event.event_id, event.event_id, type(event).__name__, payload, tuple(keys), context or {})
        same = sa.select(outbox.c.name, outbox.c.payload).where(outbox.c.entry_id == entry.entry_id)
        with self.database.transaction() as connection:
            while not self._insert(entry, relay_id):
                there = connection.execute(same).one_or_none()  # None if it was settled since
                if there is None:
                    continue
                if (there.name, there.payload) == (entry.name, payload):
                    return None
                other = "with other content " if there.name == entry.name else ""
                raise DispatchError(
                    f"{entry.name} was refused: its event_id, {entry.event_id}, is taken by {there.name} {other}in the"
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
        self, relay_id: str, limit: int, known: sa.ColumnElement[bool] | None = None, *, crashes: int | None = None
    ) -> list[Entry]:
        """Give the relay the oldest entries that are due and belong to it or to no living relay.

        Args:
            known: only entries that meet this, see :func:`for_handlers`; others are left to relays that know them.
            crashes: only entries with which so many relays have crashed; a crash since then is counted. None: any.
        """
        oldest = sa.select(outbox).where(self._is_due(relay_id))
        if known is not None:
            oldest = oldest.where(known)
        if crashes is not None:
            oldest = oldest.where(outbox.c.tries == crashes)
        return self._take(relay_id, oldest.order_by(outbox.c.appended_at), limit, counted=crashes is not None)

    def most_crashes(self, relay_id: str) -> int | None:
        """Return the largest number of crashes of an entry that is due, for any handlers; None if there is no entry.

        It is a look that keeps nobody from writing.
        """
        due = sa.select(sa.func.max(outbox.c.tries)).where(self._is_due(relay_id))
        most: int | None = self.database.fetch(due).scalar_one()
        return most

    def fewest_crashes(self, known: sa.ColumnElement[bool]) -> int | None:
        """Return the least number of crashes of an entry that may be claimed and has any; None if there is none."""
        these = sa.and_(outbox.c.tries > 0, _claimable(self.database.clock()), known)
        least: int | None = self.database.fetch(sa.select(sa.func.min(outbox.c.tries)).where(these)).scalar_one()
        return least

    def claim_unknown(self, relay_id: str, limit: int, known: sa.ColumnElement[bool], after: timedelta) -> list[Entry]:
        """Give the relay entries for handlers that it does not know, if no other relay has claimed them for long."""
        now = self.database.clock()
        old = sa.select(outbox).where(_claimable(now), outbox.c.appended_at < now - after, sa.not_(known))
        return self._take(relay_id, old, limit, counted=False)

    def leave(self, entries: Sequence[Entry], wait: timedelta) -> None:
        """Give entries back, to be claimed by any relay after ``wait``."""
        these = [entry.entry_id for entry in entries]
        self._update(these, claimed_by=None, due_at=self.database.clock() + wait)

    def split(self, entry: Entry, unknown: Sequence[str]) -> None:
        """Put these handlers of an entry into an entry of their own, which belongs to no relay."""
        with self.database.transaction():
            for row in self._locked(outbox.c.entry_id == entry.entry_id):
                left = [key for key in json.loads(row.pending) if key not in unknown]
                self._update([row.entry_id], pending=json.dumps(left))
                other = row._asdict() | {"entry_id": uuid4(), "pending": json.dumps(list(unknown)), "claimed_by": None}
                self.database.write(sa.insert(outbox).values(**other))

    def rename(self, entry: Entry, keys: Mapping[str, str]) -> None:
        """Replace keys of handlers whose class was renamed. The attempts under the old keys do not count."""
        with self.database.transaction():
            for row in self._locked(outbox.c.entry_id == entry.entry_id):
                renamed = [keys.get(key, key) for key in json.loads(row.pending)]
                self._update([row.entry_id], pending=json.dumps(renamed))

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
        self._update(entry_ids, sends=outbox.c.sends + int(sent), due_at=sooner)

    def sent(self) -> int:
        """Count the entries that an engine has accepted and no handler has failed since."""
        count: int = self.database.fetch(sa.select(sa.func.count()).where(outbox.c.sends > 0)).scalar_one()
        return count

    def begin(self, event_id: UUID, key: str) -> int:
        """Count that a handler is about to be called; return the count, or 0 if it is not to be called (now)."""
        tries = 0
        with self.database.transaction():
            for row in self._locked(outbox.c.event_id == event_id):
                pending, attempts = json.loads(row.pending), Attempts.parse(row.attempts)
                if key not in pending:
                    continue
                begins = attempts.begin(key)
                if begins:
                    tries = max(tries, row.tries + 1)
                # A handler that has and had no neighbours needs no note.
                noted = attempts.dump() if len(pending) > 1 or row.attempts is not None else None
                if begins or noted != row.attempts:
                    self._update([row.entry_id], tries=row.tries + int(begins), attempts=noted)
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

    def park(
        self, event_id: UUID, key: str, made: int, policy: RetryPolicy | None
    ) -> tuple[int, float | None, list[UUID]]:
        """Record ``made`` more failed attempts of a delivery and, if there is one left, when the next one is due.

        Args:
            policy: None where there is none left, however few were made.

        Returns:
            All attempts; the seconds until the next one, or None if there is none left; the entries of the delivery.
        """
        with self.database.transaction():
            rows = self._locked(outbox.c.event_id == event_id)
            attempts = {row.entry_id: Attempts.parse(row.attempts) for row in rows if key in json.loads(row.pending)}
            total = made + max((each.made.get(key, 0) for each in attempts.values()), default=0)
            if policy is None or total > policy.retries or not attempts:
                return total, None, list(attempts)
            wait = policy.wait(total)
            due = self.database.now() + timedelta(seconds=wait)
            for entry_id, each in attempts.items():
                each.park(key, total, due)
                # The process has outlived this attempt, so it was none of those that crashed with the entry.
                self._update([entry_id], attempts=each.dump(), due_at=each.next_due, tries=0, sends=0)
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

    def _is_due(self, relay_id: str) -> sa.ColumnElement[bool]:
        now = self.database.clock()
        return sa.or_(sa.and_(outbox.c.claimed_by == relay_id, outbox.c.due_at <= now), _claimable(now))

    def _take(self, relay_id: str, which: sa.Select[Any], limit: int, *, counted: bool) -> list[Entry]:
        entries, plain = [], []
        with self.database.transaction():
            rows = self.database.fetch(which.limit(limit).with_for_update(skip_locked=True)).all()
            if not rows:
                return []
            now = self.database.now()
            for row in rows:
                orphaned = row.claimed_by != relay_id
                crashes = row.tries + int(counted and orphaned and row.claimed_by is not None)
                attempts = Attempts.parse(row.attempts)
                # An engine in other processes is given the event again if it was silent for long.
                # The retry that the row was found by is due, if by a clock that is finer than this one (SQLite's).
                moment = now if row.due_at is None else max(now, row.due_at)
                everything = orphaned or not (counted or attempts.has_ripe(moment))
                pending = attempts.take(json.loads(row.pending), moment, everything=everything)
                entries.append(
                    Entry(
                        row.entry_id,
                        row.event_id,
                        row.name,
                        row.payload,
                        pending,
                        json.loads(row.context) if row.context else {},
                        crashes=crashes,
                        sends=row.sends,
                        age=max(timedelta(0), now - row.appended_at),
                        retry=not everything,
                    )
                )
                if row.attempts is None and crashes == row.tries:
                    plain.append(row.entry_id)
                    continue
                taken = {"attempts": attempts.dump(), "due_at": attempts.next_due, "tries": crashes}
                self._update([row.entry_id], claimed_by=relay_id, **taken)
            if plain:
                self._update(plain, claimed_by=relay_id, due_at=None)
        return entries

    def _strike(self, which: sa.Column[UUID], deliveries: Collection[tuple[UUID, str]]) -> None:
        settled: dict[UUID, set[str]] = {}
        for each, key in deliveries:
            settled.setdefault(each, set()).add(key)
        gone = []
        with self.database.transaction():
            for row in self._locked(which.in_(settled)):
                keys, pending = settled[row._mapping[which.name]], json.loads(row.pending)
                left = [key for key in pending if key not in keys]
                if not left:
                    gone.append(row.entry_id)
                elif left != pending:
                    attempts = Attempts.parse(row.attempts)
                    attempts.settle(keys)
                    self._update([row.entry_id], pending=json.dumps(left), attempts=attempts.dump())
            if gone:
                self.database.write(sa.delete(outbox).where(outbox.c.entry_id.in_(gone)))

    def _locked(self, which: sa.ColumnElement[bool]) -> Sequence[Any]:
        """Return rows that nobody else changes, in one order, so that two which settle the same do not deadlock."""
        return self.database.fetch(sa.select(outbox).where(which).order_by(outbox.c.entry_id).with_for_update()).all()

    def _update(self, entry_ids: Collection[UUID], **values: Any) -> None:
        self.database.write(sa.update(outbox).where(outbox.c.entry_id.in_(entry_ids)).values(**values))

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
        return self.database.fetch(statement).one_or_none() is not None


def _is_settled(deliveries: Collection[tuple[UUID, str]]) -> sa.ColumnElement[bool]:
    pairs = [(str(event_id), key) for event_id, key in deliveries]
    succeeded = sa.or_(failures.c.handler.is_(None), sa.tuple_(failures.c.event_id, failures.c.handler).in_(pairs))
    return sa.and_(failures.c.event_id.in_({event_id for event_id, _ in pairs}), succeeded)


def _orphaned() -> sa.ColumnElement[bool]:
    return sa.or_(outbox.c.claimed_by.is_(None), outbox.c.claimed_by.not_in(sa.select(relays.c.relay_id)))


def _claimable(now: Any) -> sa.ColumnElement[bool]:
    return sa.and_(_orphaned(), sa.or_(outbox.c.due_at.is_(None), outbox.c.due_at <= now))


def for_handlers(known: KnownHandlers) -> sa.ColumnElement[bool]:
    """Return the condition that an entry is for one of these handlers: to make it takes longer than to ask by it."""
    return sa.or_(
        sa.false(),
        *(
            sa.and_(outbox.c.name == name, outbox.c.pending.contains(json.dumps(key), autoescape=True))
            for name, keys in known.items()
            for key in keys
        ),
    )
