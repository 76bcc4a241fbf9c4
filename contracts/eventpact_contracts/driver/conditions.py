"""Conditions to wait for: the state of a run, derived from its entries as they are recorded."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable

from eventpact_contracts.driver.gates import wake
from eventpact_contracts.driver.trace import Entry, Kind

__all__ = ["Conditions", "Until"]


class Conditions:
    """Everything that callers of a scenario may wait for. Whoever changes it holds ``lock``.

    Attributes:
        lock: guards this, and the record that it is derived from.
        unlogged: whether a failure sink is about to raise, and nothing has been logged since.
    """

    def __init__(self, subscriptions: tuple[tuple[str, str], ...]) -> None:
        self.lock = threading.RLock()
        self.unlogged = False
        self._handlers: dict[str, list[str]] = {}
        for event_type, handler in subscriptions:
            self._handlers.setdefault(event_type, []).append(handler)
        self._waiters: dict[object, tuple[Callable[[], bool], Callable[[], object]]] = {}
        self._events: defaultdict[Kind, set[str]] = defaultdict(set)
        self._pending: set[tuple[str, str]] = set()
        self._done: set[tuple[str, str]] = set()
        self._given_up: set[str] = set()
        self._running: set[tuple[str, str]] = set()
        self._failed_late: set[tuple[str, str]] = set()
        self._ended_late = False
        self._open_calls = 0
        self._begun = 0
        self._closed = 0

    def observe(self, entry: Entry) -> None:
        kind, event, delivery = entry.kind, entry.event, entry.delivery
        if event:
            self._events[kind].add(event)
        match kind:
            case Kind.DISPATCHED:
                self._open_calls += 1
            case Kind.ACCEPTED | Kind.REFUSED | Kind.RAISED if event:
                self._open_calls -= 1
                if kind is Kind.ACCEPTED and event not in self._given_up:
                    deliveries = {(event, handler) for handler in self._handlers.get(entry.event_type, ())}
                    self._pending |= deliveries - self._done
            case Kind.STARTED:
                self._running.add(delivery)
                if event not in self._events[Kind.DISPATCHED]:
                    # It arrived as another event: nobody need wait for it any more.
                    self._pending.discard(next((each for each in self._pending if each[1] == entry.handler), delivery))
            case Kind.SUCCEEDED | Kind.REPORTED:
                self._done.add(delivery)
                self._pending.discard(delivery)
                self._failed_late.discard(delivery)
            case Kind.FAILED if event in self._given_up:
                self._failed_late.add(delivery)
            case Kind.BEGUN:
                self._begun += 1
            case Kind.CLOSED:
                self._closed += 1
                self._given_up.update(entry.events)
                self._pending = {each for each in self._pending if each[0] not in self._given_up}
            case Kind.CANCELLED:  # nobody knows what becomes of that which was pending
                self._closed += 1
                self._pending.clear()
            case Kind.LOGGED:
                self.unlogged = False
        if kind in (Kind.SUCCEEDED, Kind.FAILED):
            self._running.discard(delivery)
            self._ended_late = self._ended_late or event in self._given_up
        self.changed()

    def changed(self) -> None:
        """Wake those whose condition holds now."""
        if not self._waiters:
            return
        for key, (condition, tell) in list(self._waiters.items()):
            if condition():
                del self._waiters[key]
                tell()

    def recheck(self) -> None:
        """Wake those whose condition holds now, on account of something that is not recorded."""
        with self.lock:
            self.changed()

    def settled(self) -> bool:
        """Every accepted delivery has succeeded, was reported or was returned; and a sink that raised was logged."""
        return not self._pending and not self._open_calls and not self.unlogged

    def has_open_calls(self) -> bool:
        """Somebody is still within a call of ``dispatch``."""
        return self._open_calls > 0

    def event_settled(self, event: str) -> bool:
        """Every delivery of this event has ended so, and dispatching it has returned."""
        return self.returned(event) and not any(delivery[0] == event for delivery in self._pending)

    def idle(self) -> bool:
        """No handler is running, also of those that were given up."""
        return not self._running

    def ended_late(self) -> bool:
        """An attempt with an event that was given up has ended since."""
        return self._ended_late

    def told(self) -> bool:
        """Of what was given up, whatever failed afterwards was reported, which it must not be."""
        return not self._failed_late

    def held(self, event: str) -> bool:
        """A handler, or the failure sink, is held with the event."""
        return event in self._events[Kind.HELD]

    def returned(self, event: str) -> bool:
        return any(event in self._events[kind] for kind in (Kind.ACCEPTED, Kind.REFUSED, Kind.RAISED))

    def not_accepted(self, event: str) -> bool:
        """Dispatching it has returned, and it was not accepted."""
        return self.returned(event) and event not in self._events[Kind.ACCEPTED]

    def ended(self, event: str) -> bool:
        """An attempt with it has ended, or there is none to come."""
        return any(event in self._events[kind] for kind in (Kind.SUCCEEDED, Kind.FAILED)) or self.not_accepted(event)

    def has_begun(self) -> bool:
        return self._begun > 0

    def has_closed(self, times: int = 1) -> bool:
        return self._closed >= times

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Block until the condition holds; return whether it does within this time."""
        changed, key = threading.Event(), object()
        with self.lock:
            if condition():
                return True
            self._waiters[key] = condition, changed.set
        try:
            return changed.wait(seconds) or condition()
        finally:
            with self.lock:
                self._waiters.pop(key, None)

    async def await_(self, condition: Callable[[], bool], seconds: float) -> bool:
        loop, changed, key = asyncio.get_running_loop(), asyncio.Event(), object()
        with self.lock:
            if condition():
                return True
            self._waiters[key] = condition, lambda: wake(loop, changed)
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return condition()
        finally:
            with self.lock:
                self._waiters.pop(key, None)
        return True


class Until:
    """The obstacle of a caller who waits for a condition; its answer is whether that holds."""

    def __init__(self, conditions: Conditions, condition: Callable[[], bool], seconds: float) -> None:
        self._conditions, self._condition, self._seconds = conditions, condition, seconds

    def block(self) -> bool:
        return self._conditions.wait(self._condition, self._seconds)

    async def wait(self) -> bool:
        return await self._conditions.await_(self._condition, self._seconds)
