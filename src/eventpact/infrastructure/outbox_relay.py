"""The relay: carries what is in the outbox to the dispatcher that delivers it, until it is settled."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from eventpact.domain.dispatcher import DispatcherClosedError, DispatchError, FailedDelivery, FailureSink
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.logs import about
from eventpact.infrastructure.outbox_store import Entry, OutboxStore
from eventpact.infrastructure.subscriptions import SubscriptionTable, log_failure, report
from eventpact.infrastructure.unreadable import UnreadableMessage, UnreadableSink

__all__ = ["DEATHS", "NeverSettledError", "Relay"]

_log = logging.getLogger("eventpact")

DEATHS: Final = 5
"""How many processes may die with an event before it is kept as failed."""

_BATCH: Final = 200
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 10.0


class NeverSettledError(Exception):
    """Whoever handled the event ended before it was settled, each time; perhaps the handler kills its process."""

    def __init__(self, tries: int) -> None:
        super().__init__(f"the process that handled it ended {tries} times; does the handler kill it?")


@dataclass(slots=True)
class _Held:
    """The deliveries of one event that this process is to make: those not settled, and those not even begun."""

    unsettled: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Outcomes:
    """What the database has yet to be told."""

    settled: deque[tuple[UUID, str]] = field(default_factory=deque)
    failed: deque[tuple[FailedDelivery, str]] = field(default_factory=deque)
    sent: deque[UUID] = field(default_factory=deque)

    def __bool__(self) -> bool:
        return bool(self.settled or self.failed or self.sent)


class Relay:
    """Two threads: one dispatches, the other tells the database what came of it, and that this relay lives.

    Any number of relays, in any number of processes, may serve one outbox.

    Args:
        dispatch: of the inner dispatcher.
        table: what handlers there are.
        lease: how long another relay may be silent before its entries are taken over. Silence is measured by what is
            seen, not by comparing clocks.
        poll: seconds between two looks for what others left.
        resend: None where the inner dispatcher handles events in this process. Otherwise, after how long what is not
            settled is dispatched again.
        capacity: how many events this relay holds at once; the others wait in the database.
    """

    def __init__(
        self,
        store: OutboxStore,
        dispatch: Callable[[DomainEvent], None],
        table: SubscriptionTable,
        *,
        on_failure: FailureSink | None,
        on_unreadable: UnreadableSink | None,
        lease: timedelta,
        poll: float,
        resend: timedelta | None,
        capacity: int = 1_000,
    ) -> None:
        self._store = store
        self._dispatch = dispatch
        self._table = table
        self._on_failure = on_failure
        self._on_unreadable = on_unreadable
        self._lease = lease.total_seconds()
        self._poll = poll
        self._resend = None if resend is None else resend.total_seconds()
        self._capacity = capacity
        self._relay_id: str | None = None
        self._inbox: deque[tuple[Entry, DomainEvent | None]] = deque()
        self._held: dict[UUID, _Held] = {}
        # Entries of this relay that are to be looked at again, and when (on the monotonic clock).
        self._later: dict[UUID, float] = {}
        # An event with which a relay has died before; there is one of them at a time, so that it is known which it is.
        self._suspect: UUID | None = None
        self._outcomes = _Outcomes()
        # Other relays: their count when it last changed, and for how long it has been watched since.
        self._silent: dict[str, tuple[int, float]] = {}
        self._watched_at: float | None = None
        self._look_now = False
        self._stopping = False
        self._last = False
        self._lock = threading.Lock()
        self._to_relay = threading.Condition(self._lock)
        self._to_keep = threading.Condition(self._lock)
        self._threads = [
            threading.Thread(target=self._keep, name="eventpact-outbox-keeper", daemon=True),
            threading.Thread(target=self._relay, name="eventpact-outbox-relay", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    # -- called by the dispatcher, on any thread ----------------------------------------------------------------------

    def room(self) -> str | None:
        """The id to append an event under, if this relay takes it at once; None where it must wait for its turn."""
        with self._lock:
            full = len(self._inbox) + len(self._held) >= self._capacity
            return None if full or self._stopping else self._relay_id

    def offer(self, entry: Entry, event: DomainEvent, relay_id: str | None) -> None:
        """Dispatch an event that was appended under ``relay_id``."""
        with self._lock:
            if relay_id is not None and relay_id == self._relay_id:
                self._inbox.append((entry, event))
            else:
                self._look_now = True
            self._to_relay.notify()

    def begin(self, event_id: UUID, key: str) -> bool:
        """Whether a handler is to be called: its delivery is not settled, and not under way."""
        with self._lock:
            held = self._held.get(event_id)
            if held is None or key not in held.waiting:
                return False
            held.waiting.remove(key)
            return True

    def put_back(self, event_id: UUID, key: str) -> None:
        """The handler did not succeed; the inner dispatcher may call it again."""
        with self._lock:
            held = self._held.get(event_id)
            if held is not None and key in held.unsettled:
                held.waiting.add(key)

    def succeeded(self, event_id: UUID, key: str) -> None:
        """A delivery is settled."""
        with self._lock:
            self._outcomes.settled.append((event_id, key))
            self._release(event_id, {key})
            self._to_keep.notify()

    def failed(self, failed: FailedDelivery, key: str) -> None:
        """A delivery has failed for good."""
        with self._lock:
            self._outcomes.failed.append((failed, key))
            self._release(failed.event.event_id, {key})
            self._to_keep.notify()

    def stop(self) -> None:
        """Dispatch no more. Call :meth:`finish` once the inner dispatcher is closed."""
        with self._lock:
            self._stopping = True
            self._to_relay.notify()

    def finish(self, timeout: float) -> None:
        """Tell the database what there is to tell, and leave to others what is not settled."""
        with self._lock:
            self._last = True
            self._to_keep.notify()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    # -- the thread that dispatches -----------------------------------------------------------------------------------

    def _relay(self) -> None:
        failures = 0
        look_at = 0.0
        while True:
            with self._lock:
                while not (self._stopping or self._inbox or self._look_now):
                    if not self._to_relay.wait(max(0.0, look_at - time.monotonic())):
                        break
                if self._stopping:
                    return
                item = self._inbox.popleft() if self._inbox else None
                look = self._look_now or time.monotonic() >= look_at
                self._look_now = False
            if item is not None:
                failures = 0 if self._hand_over(*item) else failures + 1
                if failures:
                    self._pause(min(_FIRST_WAIT * 2.0 ** (failures - 1), _LONGEST_WAIT))
            if look:
                self._look()
                look_at = time.monotonic() + self._poll

    def _pause(self, seconds: float) -> None:
        with self._lock:
            self._to_relay.wait_for(lambda: self._stopping, seconds)

    def _hand_over(self, entry: Entry, event: DomainEvent | None) -> bool:
        """Dispatch an entry. False if it was refused; then it is tried again."""
        if event is None:
            event = self._read(entry)
            if event is None:
                with self._lock:
                    self._clear(entry.event_id)
                return True
        if self._resend is None and entry.tries >= DEATHS:
            self._give_up(entry, event)
            return True
        fresh = self._hold(entry) if self._resend is None else set()
        try:
            self._dispatch(event)
        except Exception as error:  # noqa: BLE001 - whatever it is, the event stays here
            with self._lock:
                self._release(entry.event_id, fresh)
                if not self._stopping:
                    self._inbox.append((entry, event))
            if not isinstance(error, DispatcherClosedError):
                _log.warning(
                    "%s %s stays in the outbox, and is dispatched again: %s",
                    entry.name,
                    entry.event_id,
                    error if isinstance(error, DispatchError) else type(error).__name__,
                    extra=about(entry.name, entry.event_id),
                )
            return False
        except BaseException as interruption:  # noqa: BLE001 - a handler's, which was reported; nobody waits here
            _log.warning(
                "a handler of %s %s raised %s",
                entry.name,
                entry.event_id,
                type(interruption).__name__,
                extra=about(entry.name, entry.event_id),
            )
        if self._resend is not None:
            with self._lock:
                self._later[entry.entry_id] = time.monotonic() + self._resend
                self._outcomes.sent.append(entry.entry_id)
                self._to_keep.notify()
        return True

    def _read(self, entry: Entry) -> DomainEvent | None:
        """The event of an entry, if there is one, and handlers for it; what is not for us is kept as failed."""
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
        if strange and not self._set_aside(entry, f"there is no handler {strange[0]!r} here", strange):
            return None
        return event if len(strange) < len(entry.pending) else None

    def _set_aside(self, entry: Entry, reason: str, keys: list[str] | None = None) -> bool:
        fields = about(entry.name, entry.event_id)
        _log.error("%s %s was set aside: %s", entry.name, entry.event_id, reason, extra=fields)
        message = UnreadableMessage(reason, entry.name, str(entry.event_id), entry.payload.encode(), "application/json")
        try:
            with self._store.database.transaction():
                if self._on_unreadable is not None:
                    self._on_unreadable(message)
                if keys is None:
                    self._store.drop(entry.entry_id)
                else:
                    self._store.settle([(entry.event_id, key) for key in keys])
        except Exception as error:  # noqa: BLE001 - it stays here, and is looked at again
            _log.error("%s %s could not be kept: %s", entry.name, entry.event_id, type(error).__name__, extra=fields)
            with self._lock:
                self._later[entry.entry_id] = time.monotonic() + self._lease
            return False
        return True

    def _give_up(self, entry: Entry, event: DomainEvent) -> None:
        self._hold(entry)
        for subscription in self._table.route(event):
            if subscription.key in entry.pending:
                error = NeverSettledError(entry.tries)
                self.failed(FailedDelivery(event, subscription.handler, error, entry.tries), subscription.key)

    def _claim(self, relay_id: str, room: int) -> tuple[list[Entry], list[Entry]]:
        """What is taken: entries to be dispatched together, and one at most with which processes have died."""
        if self._resend is not None:
            return self._store.claim(relay_id, room), []
        return (
            self._store.claim(relay_id, room, tried=False),
            self._store.claim(relay_id, 1, tried=True) if self._suspect is None else [],
        )

    def _look(self) -> None:
        """Bury relays that are silent, take what belongs to nobody, and look again at what was put off."""
        with self._lock:
            relay_id = self._relay_id
            room = min(_BATCH, self._capacity - len(self._inbox) - len(self._held))
            now = time.monotonic()
            due = [entry_id for entry_id, when in self._later.items() if when <= now][:_BATCH]
        if relay_id is None:
            return
        try:
            with self._store.database.transaction():  # one, since on SQLite each keeps all others from writing
                self._watch()
                entries, suspects = self._claim(relay_id, room) if room > 0 else ([], [])
                again = self._store.still_here(relay_id, due) if due else []
        except SQLAlchemyError as error:
            self._watched_at = None
            _log.warning("the outbox cannot be read (%s); it is tried again", type(error).__name__)
            return
        with self._lock:
            if relay_id != self._relay_id:
                return  # this relay was taken for dead meanwhile, so they are anybody's
            for entry_id in due:
                self._later.pop(entry_id, None)
            if suspects:
                self._suspect = suspects[0].event_id
            for entry in (*entries, *suspects):
                if entry.sent and self._resend is not None:
                    self._later[entry.entry_id] = time.monotonic() + self._resend
                else:
                    self._inbox.append((entry, None))
            self._inbox.extend((entry, None) for entry in again)
            self._look_now = self._look_now or len(entries) == _BATCH

    def _watch(self) -> None:
        """Bury what was silent for a lease of watching. Time in which nobody watched does not count."""
        now = time.monotonic()
        passed = 0.0 if self._watched_at is None else min(now - self._watched_at, 2 * self._poll)
        beats = self._store.beats()
        self._watched_at = now
        silent = {}
        for relay_id, beat in beats.items():
            before, silence = self._silent.get(relay_id, (beat, 0.0))
            silent[relay_id] = (beat, silence + passed if before == beat else 0.0)
            if silent[relay_id][1] >= self._lease and relay_id != self._relay_id:
                _log.warning("a relay has been silent for %.0f s; what it left is taken over", silent[relay_id][1])
                self._store.bury(relay_id, beat)
                del silent[relay_id]
        self._silent = silent

    # -- the thread that tells the database ---------------------------------------------------------------------------

    def _keep(self) -> None:
        beat_at = 0.0
        failures = 0
        while True:
            with self._lock:
                self._to_keep.wait_for(lambda: self._last or bool(self._outcomes), max(0.0, beat_at - time.monotonic()))
                last = self._last and (not self._outcomes or failures > 0)
            try:
                if last:
                    self._leave()
                    return
                if time.monotonic() >= beat_at:
                    self._beat()
                    beat_at = time.monotonic() + self._lease / 4
                self._tell()
                failures = 0
            except SQLAlchemyError as error:
                failures += 1
                _log.warning("the outbox cannot be written (%s); it is tried again", type(error).__name__)
                if last:
                    return
                self._wait_for_database(min(_FIRST_WAIT * 2.0**failures, self._lease / 4))

    def _wait_for_database(self, seconds: float) -> None:
        with self._lock:
            self._to_keep.wait_for(lambda: self._last, seconds)

    def _beat(self) -> None:
        if self._relay_id is not None and self._store.beat(self._relay_id):
            return
        relay_id = uuid4().hex
        self._store.register(relay_id)
        with self._lock:
            if self._relay_id is not None:
                _log.warning("this relay was silent for too long; what it had not begun is another's now")
            self._relay_id = relay_id
            self._inbox.clear()
            self._later.clear()
            self._suspect = None
            for event_id, held in list(self._held.items()):
                self._release(event_id, set(held.waiting))
            self._look_now = True
            self._to_relay.notify()

    def _tell(self) -> None:
        """What is taken from the outcomes here is in the database then, or still among them."""
        outcomes = self._outcomes
        while outcomes.failed:
            failed, key = outcomes.failed[0]
            self._report(failed)
            outcomes.settled.append((failed.event.event_id, key))
            outcomes.failed.popleft()
        while batch := [outcomes.settled[place] for place in range(min(_BATCH, len(outcomes.settled)))]:
            self._store.settle(batch)
            for _ in batch:
                outcomes.settled.popleft()
        while ids := [outcomes.sent[place] for place in range(min(_BATCH, len(outcomes.sent)))]:
            self._store.mark_sent(ids)
            for _ in ids:
                outcomes.sent.popleft()

    def _report(self, failed: FailedDelivery) -> None:
        """Tell the failure sink; if what it lacks is a database, it is told again when there is one."""
        away: list[OperationalError] = []

        def sink(failed: FailedDelivery) -> None:
            try:
                (self._on_failure or log_failure)(failed)
            except OperationalError as error:
                away.append(error)

        report(sink, failed)
        if away:
            raise away[0]

    def _leave(self) -> None:
        for failed, _ in self._outcomes.failed:  # the database is away; it will be delivered, and fail, again
            log_failure(failed)
        if self._relay_id is not None:
            self._store.leave(self._relay_id)

    # -- with the lock held -------------------------------------------------------------------------------------------

    def _release(self, event_id: UUID, keys: set[str]) -> None:
        held = self._held.get(event_id)
        if held is None:
            return
        held.unsettled -= keys
        held.waiting -= keys
        if not held.unsettled:
            del self._held[event_id]
            self._clear(event_id)
            if len(self._held) + len(self._inbox) == self._capacity - 1:
                self._look_now = True
                self._to_relay.notify()

    def _clear(self, event_id: UUID) -> None:
        """It was not this one; the next may be taken."""
        if event_id == self._suspect:
            self._suspect = None
            self._look_now = True
            self._to_relay.notify()

    def _hold(self, entry: Entry) -> set[str]:
        with self._lock:
            held = self._held.setdefault(entry.event_id, _Held())
            fresh = set(entry.pending) - held.unsettled
            held.unsettled |= fresh
            held.waiting |= fresh
            return fresh
