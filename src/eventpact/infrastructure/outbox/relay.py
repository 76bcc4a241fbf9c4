"""The relay: carries entries of the outbox to the dispatcher that delivers them, until they are settled."""

import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Final, TypeVar
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from eventpact.domain.dispatcher import DispatcherClosedError, DispatchError
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.context import ContextCarrier, run_with
from eventpact.infrastructure.dispatching.failures import FailureReporter
from eventpact.infrastructure.monitoring.logs import log_about
from eventpact.infrastructure.outbox.deliveries import Deliveries
from eventpact.infrastructure.outbox.entries import Entry
from eventpact.infrastructure.outbox.reader import EntryReader
from eventpact.infrastructure.outbox.settlements import Heartbeats, LivenessMonitor, Settlements
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.persistence.database import kind_of

_log = logging.getLogger("eventpact")

_T = TypeVar("_T")

_Item = tuple[Entry, DomainEvent | None]

_BATCH: Final = 200
_CAPACITY: Final = 1_000
"""The events that a relay holds at once; the others wait in the database."""

_FIRST_WAIT_SECONDS: Final = 0.1
_MAX_WAIT_SECONDS: Final = 10.0

_LEASES_UNKNOWN: Final = 6
"""For so many leases an entry is left to the relays that know its handlers; they may be about to start."""

_LOOKS_PER_POLL: Final = 20
"""So often at most the database is asked between two polls, because retries are due."""


class Relay:
    """Two threads: one dispatches, the other (:class:`Settlements`) writes outcomes and heartbeats to the database.

    Any number of relays, in any number of processes, may serve one outbox. Those arguments of
    :class:`~eventpact.infrastructure.outbox_dispatcher.OutboxEventDispatcher` that have a name here mean the same.
    """

    def __init__(
        self,
        store: OutboxStore,
        deliveries: Deliveries,
        reader: EntryReader,
        *,
        reporter: FailureReporter,
        lease: timedelta,
        poll: float,
        carrier: ContextCarrier | None,
        return_readable: Callable[[], object] | None,
    ) -> None:
        self._store = store
        self._deliveries = deliveries
        self._reader = reader
        self._lease = lease
        self._poll = poll
        self._carrier = carrier
        self._return_readable = return_readable
        self._monitor = LivenessMonitor(Heartbeats(store.database), lease.total_seconds(), poll)
        self._relay_id: str | None = None
        self._inbox: deque[_Item] = deque()
        # Entries that this process appended, and has not tried to hand over yet.
        self._offered: set[UUID] = set()
        # Several entries in a row were refused, so new ones are anybody's.
        self._refused = False
        # When retries are due, on the monotonic clock.
        self._wakes: list[float] = []
        self._look_now = False
        # The last look may have left entries, for want of room.
        self._is_short = False
        self._unknown_at = 0.0
        self._stopping = False
        self._changed = threading.Condition()
        self._settlements = Settlements(
            store, reporter, deliveries.judge, lease.total_seconds(), self._on_identity, self._on_retry
        )
        deliveries.start(self._settlements, self.make_room)
        self._settlements.start()
        self._thread = threading.Thread(target=self._run, name="eventpact-outbox-relay", daemon=True)
        self._thread.start()

    # -- called on any thread ------------------------------------------------------------------------------------------

    def room(self) -> str | None:
        """Return the id to append an event under, if this relay takes it at once; None where it must wait."""
        with self._changed:
            return None if self._stopping or self._refused or self._room() <= 0 else self._relay_id

    def offer(self, entry: Entry, event: DomainEvent, relay_id: str | None) -> None:
        """Dispatch an event that was appended under ``relay_id``."""
        with self._changed:
            self._offered.add(entry.entry_id)
            if relay_id is not None and relay_id == self._relay_id:
                self._inbox.append((entry, event))
            else:
                self._look_now = True
            self._changed.notify_all()

    def make_room(self, *, of_suspect: bool) -> None:
        """Look for entries to claim, where some may have been left for want of room: of suspects there are but few."""
        with self._changed:
            if of_suspect or self._is_short:
                self._look_now = True
                self._changed.notify_all()

    def drain(self, timeout: float) -> None:
        """Wait until each event that this process appended was handed over once, ``timeout`` seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._offered, timeout)

    def stop(self) -> None:
        """Dispatch no more. Call :meth:`finish` once the inner dispatcher is closed."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def finish(self, timeout: float) -> None:
        """Write the outcomes to the database, leave the rest to other relays, and end both threads."""
        deadline = time.monotonic() + timeout
        self._settlements.finish(timeout)
        if self._thread is not threading.current_thread():
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _room(self) -> int:
        return _CAPACITY - len(self._inbox) - self._deliveries.in_flight()

    def _on_retry(self, wait: float) -> None:
        with self._changed:
            heapq.heappush(self._wakes, time.monotonic() + wait)
            self._changed.notify_all()

    def _on_identity(self, relay_id: str) -> None:
        self._deliveries.lose()
        with self._changed:
            self._relay_id = relay_id
            self._inbox.clear()
            self._look_now = True
            self._changed.notify_all()

    # -- the thread that dispatches ------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        looked_at = 0.0
        while True:
            with self._changed:
                while not (self._stopping or self._inbox or self._look_now):
                    if not self._changed.wait(max(0.0, self._look_at(looked_at) - time.monotonic())):
                        break
                if self._stopping:
                    return
                item = self._inbox.popleft() if self._inbox else None
                look = self._look_now or time.monotonic() >= self._look_at(looked_at)
                self._look_now = False
            if item is not None:
                wait = min(_FIRST_WAIT_SECONDS * 2.0 ** min(failures, 30), _MAX_WAIT_SECONDS)
                failures = 0 if self._is_handed_over(*item, failures) else failures + 1
                if failures:
                    # Another relay may have what this one lacks. It gets the second half of the pause to claim them:
                    # entries that were due when the pause ends would be this one's again, and again refused.
                    self._give_back([*(self._take_inbox() if failures > 1 else ()), item], wait / 2)
                with self._changed:
                    self._offered.discard(item[0].entry_id)
                    self._changed.notify_all()
                    self._refused = failures > 1
                    if failures:
                        self._changed.wait_for(lambda: self._stopping, wait)
            if look:
                looked_at = time.monotonic()
                self._look()

    def _look_at(self, looked_at: float) -> float:
        regular = looked_at + self._poll
        if not self._wakes:
            return regular
        return min(regular, max(self._wakes[0], looked_at + self._poll / _LOOKS_PER_POLL))

    def _is_handed_over(self, entry: Entry, event: DomainEvent | None, failures: int) -> bool:
        """Dispatch an entry. Returns False if it is refused, or the database does not answer.

        Of refusals in a row, each is logged that doubles their number.
        """
        try:
            if event is None:
                read = self._reader.read(entry)
                if read is None:
                    self._deliveries.skip(entry)
                    return True
                entry, event = read
            run_with(self._carrier, entry.context, self._deliveries.deliver, entry, event)
        except Exception as error:  # noqa: BLE001 - whatever it is, the event stays here
            if not isinstance(error, DispatcherClosedError) and failures & (failures + 1) == 0:
                reason = error if isinstance(error, DispatchError) else type(error).__name__
                log_about(entry, logging.WARNING, "{event} stays in the outbox, and is dispatched again: %s", reason)
            return False
        except BaseException as interruption:  # noqa: BLE001 - a handler's, which was reported; nobody waits here
            log_about(entry, logging.WARNING, "a handler of {event} raised %s", type(interruption).__name__)
        return True

    def _take_inbox(self) -> list[_Item]:
        with self._changed:
            items = list(self._inbox)
            self._inbox.clear()
        return items

    def _give_back(self, items: list[_Item], wait: float) -> None:
        """Let any relay have what this one cannot dispatch, except for retries: other handlers may be running here."""
        with self._changed:
            if self._stopping:
                return
        kept = [item for item in items if item[0].retry]
        anybodys = [entry for entry, _ in items if not entry.retry]
        try:
            self._store.leave(anybodys, timedelta(seconds=wait))
        except SQLAlchemyError:
            kept = items  # the refusal is logged
        else:
            for entry in anybodys:
                self._deliveries.skip(entry)
        with self._changed:
            self._inbox.extend(kept)

    def _look(self) -> None:
        """Expire relays that are silent, and claim entries that belong to no relay or are due again."""
        with self._changed:
            relay_id = self._relay_id
            room = min(_BATCH, self._room())
            self._is_short = True  # nobody knows before the end of this look, and room may be made meanwhile
            now = time.monotonic()
            while self._wakes and self._wakes[0] <= now:
                heapq.heappop(self._wakes)
        if relay_id is None:
            return
        self._try(lambda: self._monitor.look(relay_id))
        entries: list[Entry] | None = None
        if room > 0:
            unknown_too = time.monotonic() >= self._unknown_at
            if unknown_too:
                self._unknown_at = time.monotonic() + self._lease.total_seconds()
                if self._return_readable is not None:
                    self._try(self._return_readable)
            entries = self._try(lambda: self._claim(relay_id, room, unknown_too=unknown_too))
        with self._changed:
            if entries is None or relay_id != self._relay_id:
                return  # this relay was taken for dead meanwhile, so they are anybody's
            self._is_short = len(entries) >= room
            self._inbox.extend((entry, None) for entry in entries if entry.pending)
            self._look_now = self._look_now or len(entries) >= _BATCH
            if not self._look_now:
                self._offered &= {entry.entry_id for entry, _ in self._inbox}  # other relays have claimed the rest
                self._changed.notify_all()

    def _claim(self, relay_id: str, room: int, *, unknown_too: bool) -> list[Entry]:
        most_crashes = self._store.most_crashes(relay_id)
        if most_crashes is None:
            return []
        entries: list[Entry] = []
        with self._store.database.transaction():  # one, since on SQLite each keeps all others from writing
            if unknown_too:
                entries += self._store.claim_unknown(
                    relay_id, room, self._deliveries.known, _LEASES_UNKNOWN * self._lease
                )
            return entries + self._deliveries.claim(relay_id, room, suspects=most_crashes > 0)

    def _try(self, action: Callable[[], _T]) -> _T | None:
        try:
            return action()
        except Exception as error:  # noqa: BLE001 - whatever it is, what others left waits for this thread
            self._monitor.reset()
            _log.warning("the outbox cannot be read (%s); is the database up, and migrated?", kind_of(error))
            return None
