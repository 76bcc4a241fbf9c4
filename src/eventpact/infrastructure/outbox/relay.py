"""The relay: carries what is in the outbox to the dispatcher that delivers it, until it is settled."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

from eventpact.domain.dispatcher import DispatcherClosedError, DispatchError, FailedDelivery, FailureSink
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.dispatching.unreadable import UnreadableSink
from eventpact.infrastructure.monitoring.logs import about
from eventpact.infrastructure.outbox.deliveries import Held
from eventpact.infrastructure.outbox.liveness import Watch
from eventpact.infrastructure.outbox.reader import EntryReader
from eventpact.infrastructure.outbox.settlements import DEATHS, NeverSettledError, Outcomes
from eventpact.infrastructure.outbox.store import Entry, OutboxStore

__all__ = ["Relay"]

_log = logging.getLogger("eventpact")

_BATCH: Final = 200
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 10.0


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
        self._reader = EntryReader(store, table, on_unreadable)
        self._lease = lease.total_seconds()
        self._poll = poll
        self._watch = Watch(store, self._lease, poll)
        self._resend = None if resend is None else resend.total_seconds()
        self._capacity = capacity
        self._relay_id: str | None = None
        self._inbox: deque[tuple[Entry, DomainEvent | None]] = deque()
        self._held = Held()
        # Entries of this relay that are to be looked at again, and when (on the monotonic clock).
        self._later: dict[UUID, float] = {}
        # An event with which a relay has died before; there is one of them at a time, so that it is known which it is.
        self._suspect: UUID | None = None
        self._outcomes = Outcomes(on_failure)
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
            return self._held.begin(event_id, key)

    def put_back(self, event_id: UUID, key: str) -> None:
        """The handler did not succeed; the inner dispatcher may call it again."""
        with self._lock:
            self._held.put_back(event_id, key)

    def succeeded(self, event_id: UUID, key: str) -> None:
        """A delivery is settled."""
        with self._lock:
            self._outcomes.succeeded(event_id, key)
            self._release(event_id, {key})
            self._to_keep.notify()

    def failed(self, failed: FailedDelivery, key: str) -> None:
        """A delivery has failed for good."""
        with self._lock:
            self._outcomes.failed(failed, key)
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
                failures = 0 if self._is_handed_over(*item) else failures + 1
                if failures:
                    self._pause(min(_FIRST_WAIT * 2.0 ** (failures - 1), _LONGEST_WAIT))
            if look:
                self._look()
                look_at = time.monotonic() + self._poll

    def _pause(self, seconds: float) -> None:
        with self._lock:
            self._to_relay.wait_for(lambda: self._stopping, seconds)

    def _is_handed_over(self, entry: Entry, event: DomainEvent | None) -> bool:
        try:
            return self._hand_over(entry, event)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one event, the others go on
            _log.error(
                "%s %s stays in the outbox, and is looked at again: %s\n%s",
                entry.name,
                entry.event_id,
                type(error).__name__,
                "".join(traceback.format_tb(error.__traceback__)),
                extra=about(entry.name, entry.event_id),
            )
            with self._lock:
                self._later[entry.entry_id] = time.monotonic() + self._lease
            return False

    def _hand_over(self, entry: Entry, event: DomainEvent | None) -> bool:
        """Dispatch an entry. False if it was refused; then it is tried again."""
        if event is None:
            read = self._reader.read(entry)
            if read is None:
                with self._lock:
                    self._clear(entry.event_id)
                return True
            entry, event = read
        if self._resend is None and entry.tries >= DEATHS:
            self._give_up(entry, event)
            return True
        with self._lock:
            fresh = self._held.hold(entry) if self._resend is None else set()
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
                self._outcomes.sent(entry.entry_id)
                self._to_keep.notify()
        return True

    def _give_up(self, entry: Entry, event: DomainEvent) -> None:
        with self._lock:
            self._held.hold(entry)
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
                self._watch.look(relay_id)
                entries, suspects = self._claim(relay_id, room) if room > 0 else ([], [])
                again = self._store.still_here(relay_id, due) if due else []
        except Exception as error:  # noqa: BLE001 - whatever it is, what others left waits for this thread
            self._watch.lapse()
            _log.warning(
                "the outbox cannot be read (%s); is the database up, and migrated?",
                type(error).__name__,
            )
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
                    self._outcomes.abandon()
                    if self._relay_id is not None:
                        self._store.leave(self._relay_id)
                    return
                if time.monotonic() >= beat_at:
                    self._beat()
                    beat_at = time.monotonic() + self._lease / 4
                self._outcomes.tell(self._store)
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it is, this relay would be taken for dead without it
                failures += 1
                _log.warning(
                    "the outbox cannot be written (%s); is the database up, and migrated?",
                    type(error).__name__,
                )
                if last:
                    return
                with self._lock:
                    self._to_keep.wait_for(lambda: self._last, min(_FIRST_WAIT * 2.0**failures, self._lease / 4))

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
            for event_id, keys in self._held.waiting().items():
                self._release(event_id, keys)
            self._look_now = True
            self._to_relay.notify()

    # -- with the lock held -------------------------------------------------------------------------------------------

    def _release(self, event_id: UUID, keys: set[str]) -> None:
        if self._held.release(event_id, keys):
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
