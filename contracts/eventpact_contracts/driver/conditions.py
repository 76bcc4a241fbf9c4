"""Conditions to wait for: the state of a run, derived from its entries as they are recorded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final

from eventpact_contracts.driver.gates import wake
from eventpact_contracts.driver.trace import Entry, Kind

__all__ = ["Conditions", "Until"]

_ENDS: Final = (Kind.ACCEPTED, Kind.REFUSED, Kind.RAISED)


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
        self._pending: set[tuple[str, str]] = set()
        self._done: set[tuple[str, str]] = set()
        self._given_up: set[str] = set()
        self._running: set[tuple[str, str]] = set()
        self._failed_late: set[tuple[str, str]] = set()
        self._open_calls = 0
        self._dispatched: set[str] = set()
        self._returned: set[str] = set()
        self._accepted: set[str] = set()
        self._held: set[str] = set()
        self._ended: set[str] = set()
        self._begun = 0
        self._closed = 0

    def observe(self, entry: Entry) -> None:
        kind, event = entry.kind, entry.event
        if kind is Kind.DISPATCHED:
            self._open_calls += 1
            self._dispatched.add(event)
        elif kind in _ENDS and event:
            self._open_calls -= 1
            self._returned.add(event)
            if kind is Kind.ACCEPTED:
                self._accepted.add(event)
                if event not in self._given_up:
                    deliveries = {(event, handler) for handler in self._handlers.get(entry.event_type, ())}
                    self._pending |= deliveries - self._done
        elif kind is Kind.STARTED and event not in self._dispatched:
            # It arrived as another event: nobody need wait for it any more.
            astray = next((each for each in self._pending if each[1] == entry.handler), None)
            if astray is not None:
                self._pending.discard(astray)
        elif kind in (Kind.SUCCEEDED, Kind.REPORTED):
            self._settle(event, entry.handler)
            self._failed_late.discard((event, entry.handler))
        elif kind is Kind.HELD:
            self._held.add(event)
        elif kind is Kind.BEGUN:
            self._begun += 1
        elif kind is Kind.CLOSED:
            self._closed += 1
            self._given_up.update(entry.events)
            self._pending = {delivery for delivery in self._pending if delivery[0] not in self._given_up}
        elif kind is Kind.LOGGED:
            self.unlogged = False
        if kind is Kind.STARTED:
            self._running.add((event, entry.handler))
        if kind in (Kind.SUCCEEDED, Kind.FAILED):
            self._ended.add(event)
            self._running.discard((event, entry.handler))
            if kind is Kind.FAILED and event in self._given_up:
                self._failed_late.add((event, entry.handler))
        self.changed()

    def _settle(self, event: str, handler: str) -> None:
        self._done.add((event, handler))
        self._pending.discard((event, handler))

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

    def idle(self) -> bool:
        """No handler is running, also of those that were given up."""
        return not self._running

    def told(self) -> bool:
        """Of what was given up, whatever failed afterwards was reported, which it must not be."""
        return not self._failed_late

    def held(self, event: str) -> bool:
        """A handler, or the failure sink, is held with the event."""
        return event in self._held

    def not_accepted(self, event: str) -> bool:
        """Dispatching it has returned, and it was not accepted."""
        return event in self._returned and event not in self._accepted

    def returned(self, event: str) -> bool:
        return event in self._returned

    def ended(self, event: str) -> bool:
        """An attempt with it has ended, or there is none to come."""
        return event in self._ended or self.not_accepted(event)

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
