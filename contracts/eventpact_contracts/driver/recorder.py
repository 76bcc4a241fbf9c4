"""One script being played: what its handlers do, and what has happened so far."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from eventpact.domain.dispatcher import DispatchError, EventDispatcher, FailedDelivery, Guarantees
from eventpact.domain.events import DomainEvent
from eventpact_contracts.driver.fingerprints import kin, token
from eventpact_contracts.driver.gates import Gate, Pause, wake
from eventpact_contracts.driver.trace import Entry, Kind, Trace
from eventpact_contracts.scenarios.cast import ROLES, Marker
from eventpact_contracts.scenarios.scenario import ALWAYS, Behaviour, Planned

if TYPE_CHECKING:
    from eventpact_contracts.driver.probes import Stage

__all__ = ["SUBSCRIPTIONS", "Run", "id_of"]

SUBSCRIPTIONS: Final = tuple(
    (kind.__name__, f"{kind.__name__}.{role}") for kind, roles in ROLES.items() for role in roles if kind is not Marker
)
"""What every dispatcher is built with, as a trace tells it."""


_BOUND: Final = 2.0


class AwkwardError(Exception):
    """An exception that cannot be made again from its message, which is all that some engines keep."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


_RAISES: Final[Mapping[str, Callable[[str], BaseException]]] = {
    "ValueError": ValueError,
    "KeyError": KeyError,
    "Exception": Exception,
    "TimeoutError": TimeoutError,
    "Awkward": lambda message: AwkwardError(7, message),
    "StopIteration": StopIteration,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": SystemExit,
    "CancelledError": asyncio.CancelledError,
}


def id_of(event: object) -> str:
    return str(getattr(event, "event_id", f"not an event: {type(event).__name__}"))


class Run:
    """One script being played, and what has happened so far. Every method may be called on any thread.

    Attributes:
        clock: tells the time.
        entries: what has happened.
        patience: how many seconds to wait for what has to happen.
        took: how many seconds it took until all was settled.
        over: whether it is over: what comes now is not written down any more.
    """

    def __init__(
        self,
        stage: Stage,
        guarantees: Guarantees,
        *,
        patience: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        sink_raises: bool = False,
        virtual: bool = False,
    ) -> None:
        self.clock = clock
        self.entries: list[Entry] = []
        self.patience = patience
        self.over = False
        self.virtual = virtual
        self.schedule = ""
        self.took = 0.0
        self._stage = stage
        self._guarantees = guarantees
        self._sink_raises = sink_raises
        self._unlogged = False
        self._lock = threading.RLock()
        self._waiters: dict[object, tuple[Callable[[], bool], Callable[[], object]]] = {}
        self._planned: dict[str, Planned] = {}
        self._gates: dict[str, Gate] = {}
        self._attempts: dict[tuple[str, str], int] = {}
        self._pending: set[tuple[str, str]] = set()
        self._done: set[tuple[str, str]] = set()
        self._open_calls = 0
        self._returned: set[str] = set()
        self._accepted: set[str] = set()
        self._started: set[str] = set()
        self._closed = 0
        self._begun = False
        self._markers: dict[str, set[str]] = {}
        self._failed_once = False
        self._all_released = False

    # -- what the suite does ------------------------------------------------------------------------------------------

    def dispatch(
        self,
        dispatcher: EventDispatcher,
        planned: Planned,
        caller: str,
        cause: str = "",
        announce: Callable[[str], object] = str,
    ) -> None:
        """Dispatch the event, and write down what became of it; ``announce`` its ID before."""
        kind, event_id = planned.kind, uuid4()
        event = kind(**{**planned.values, "event_id": event_id})
        known = str(event_id)
        self._stage.knows(known, self)
        self._planned[known] = planned
        announce(known)
        self._call(dispatcher, event, known, kind.__name__, caller, cause=cause, content=token(event))

    def dispatch_junk(self, dispatcher: EventDispatcher, label: str, thing: Any, caller: str) -> None:
        """Dispatch what is no event."""
        self._call(dispatcher, thing, f"junk: {label}", "", caller, note=label)

    def _call(
        self,
        dispatcher: EventDispatcher,
        event: Any,
        known: str,
        kind: str,
        caller: str,
        *,
        cause: str = "",
        content: str = "",
        note: str = "",
    ) -> None:
        about: dict[str, Any] = {"caller": caller, "event": known, "event_type": kind, "cause": cause}
        with self._lock:
            self._open_calls += 1
            self.write(Kind.DISPATCHED, **about, token=content, note=note)
        interruption = None
        try:
            returned: object = dispatcher.dispatch(event)  # law R7 looks at it
        except DispatchError as error:
            ended: dict[str, Any] = {"kind": Kind.REFUSED, "exception": kin(error), "note": str(error)}
            ended["bound"] = _BOUND
        except Exception as error:  # noqa: BLE001 - written down, for the laws to judge
            ended = {"kind": Kind.RAISED, "exception": kin(error), "note": str(error)}
        except BaseException as error:  # noqa: BLE001 - likewise
            interruption = error
            ended = {"kind": Kind.RAISED, "exception": kin(error), "note": str(error)}
        else:
            ended = {"kind": Kind.ACCEPTED, "note": "" if returned is None else ascii(returned)[:80]}
            if hasattr(returned, "close") and asyncio.iscoroutine(returned):
                returned.close()
        with self._lock:
            self._open_calls -= 1
            self._returned.add(known)
            if ended["kind"] is Kind.ACCEPTED:
                self._accepted.add(known)
                deliveries = {(known, handler) for given, handler in SUBSCRIPTIONS if given == kind}
                self._pending |= deliveries - self._done
            self.write(**about, **ended)
        if interruption is not None and cause:
            raise interruption

    def release(self, event: str) -> None:
        """Let the held handlers of this event go on."""
        self.write(Kind.RELEASED, event=event, caller="suite")
        self._gate(event).release()

    def mark(self, dispatcher: EventDispatcher) -> str | None:
        """Dispatch a marker, behind all that was dispatched; return its ID, or None if it was not accepted."""
        marker = Marker()
        known = str(marker.event_id)
        self._stage.knows(known, self)
        self._markers[known] = set()
        try:
            dispatcher.dispatch(marker)
        except Exception:  # noqa: BLE001 - then there is no "afterwards" to wait for
            return None
        return known

    def closing(self, caller: str, timeout: float) -> None:
        with self._lock:
            self.write(Kind.CLOSING, caller=caller, timeout=timeout)

    def begun(self, caller: str) -> None:
        with self._lock:
            self._begun = True
            self.write(Kind.BEGUN, caller=caller)

    def closed(self, caller: str, undelivered: object, late: float) -> None:
        with self._lock:
            self._closed += 1
            events = tuple(map(id_of, undelivered)) if isinstance(undelivered, tuple | list) else ()
            self._done |= {(event, handler) for event in events for _, handler in SUBSCRIPTIONS}
            self._pending -= self._done
            note = "" if isinstance(undelivered, tuple) else ascii(undelivered)[:80]
            self.write(Kind.CLOSED, caller=caller, events=events, note=note, bound=late)

    # -- what the handlers and the failure sink do --------------------------------------------------------------------

    def act(self, event: DomainEvent, handler: str) -> Generator[Gate | Pause]:
        """One attempt."""
        known = id_of(event)
        if known in self._markers:
            yield from self._act_marker(known, handler)
            return
        number = self._start(event, known, handler)
        about: dict[str, Any] = {
            "event": known,
            "event_type": type(event).__name__,
            "handler": handler,
            "attempt": number,
        }
        try:
            planned = self._planned.get(known)
            behaviour = _behaviour(planned, handler)
            for _ in range(behaviour.pauses):
                yield Pause()
            for child in _children(planned, behaviour, handler):
                assert self.dispatcher is not None
                self.dispatch(self.dispatcher, child, handler, cause=known)
            if behaviour.held:
                yield self._held_up(known)
            if behaviour.fails == ALWAYS or number <= behaviour.fails:
                raise _RAISES[behaviour.how](f"{handler} attempt {number}")
        except BaseException as error:
            with self._lock:
                self._failed_once = True
                self.write(Kind.FAILED, **about, exception=kin(error), note=str(error))
            raise
        with self._lock:
            self._finish(known, handler)
            self.write(Kind.SUCCEEDED, **about)

    dispatcher: EventDispatcher | None = None
    """What a handler dispatches to."""

    def _act_marker(self, known: str, handler: str) -> Generator[Gate | Pause]:
        """A marker fails as often as it may, where others failed: nothing that was put off can come after it."""
        delivery = known, handler
        self._attempts[delivery] = number = self._attempts.get(delivery, 0) + 1
        yield Pause()
        if self._failed_once and number <= self._guarantees.retries:
            raise ValueError(f"{handler} attempt {number}")
        with self._lock:
            self._markers[known].add(handler)
            self._notify()

    def _start(self, event: DomainEvent, known: str, handler: str) -> int:
        with self._lock:
            delivery = known, handler
            self._attempts[delivery] = number = self._attempts.get(delivery, 0) + 1
            if known not in self._planned:  # it arrived as another one: nobody need wait for it any more
                astray = next((each for each in self._pending if each[1] == handler), None)
                self._pending.discard(astray)
            kind = type(event).__name__
            self.write(Kind.STARTED, event=known, event_type=kind, handler=handler, attempt=number, token=token(event))
            return number

    def reported(self, failed: FailedDelivery) -> None:
        """The failure sink was called."""
        event, exception = getattr(failed, "event", None), getattr(failed, "exception", None)
        known, handler = id_of(event), getattr(getattr(failed, "handler", None), "name", None)
        if known in self._markers:
            with self._lock:
                self._markers[known].add(handler or "")
                self._notify()
            return
        with self._lock:
            # It is logged after this has raised, perhaps in a thread that nobody waits for otherwise.
            self._unlogged = self._sink_raises
            self._finish(known, handler or "")
            self.write(
                Kind.REPORTED,
                event=known,
                handler=handler or ascii(getattr(failed, "handler", None))[:80],
                token=token(event),
                attempt=getattr(failed, "attempts", 0),
                exception=kin(exception) if isinstance(exception, BaseException) else (),
                note="" if exception is None else str(exception),
            )
        if _behaviour(self._planned.get(known), handler or "").report_held:
            self._held_up(known).block()
        if self._sink_raises:
            raise RuntimeError("the failure sink itself failed")

    def _held_up(self, event: str) -> Gate:
        with self._lock:
            self._started.add(event)
            self._notify()
            return self._gate(event)

    def _finish(self, event: str, handler: str) -> None:
        self._done.add((event, handler))
        self._pending.discard((event, handler))

    # -- the record ---------------------------------------------------------------------------------------------------

    def write(self, kind: Kind, **what: Any) -> None:
        """Append an entry."""
        with self._lock:
            self._unlogged = self._unlogged and kind is not Kind.LOGGED
            if not self.over:
                self.entries.append(Entry(kind=kind, time=self.clock(), **what))
            self._notify()

    def _notify(self) -> None:
        for key, (condition, tell) in list(self._waiters.items()):
            if condition():
                del self._waiters[key]
                tell()

    def trace(self) -> Trace:
        """What has happened so far."""
        with self._lock:
            return Trace(tuple(self.entries), SUBSCRIPTIONS, self._guarantees, self.virtual, self.schedule)

    def end(self) -> None:
        with self._lock:
            self.over = True
        self.release_all()

    def release_all(self) -> None:
        """Let every held handler go on, now and from now on."""
        with self._lock:
            self._all_released = True
            gates = list(self._gates.values())
        for gate in gates:
            gate.release()

    # -- conditions to wait for ---------------------------------------------------------------------------------------

    def settled(self) -> bool:
        """Every accepted delivery has succeeded, was reported or was returned; and a sink that raised was logged."""
        return not self._pending and not self._open_calls and not self._unlogged

    def started(self, event: str) -> bool:
        """A held handler, or a held failure sink, has the event."""
        return event in self._started

    def failed_to_start(self, event: str) -> bool:
        """Dispatching it has returned, and it was not accepted."""
        return event in self._returned and event not in self._accepted

    def came_back(self, event: str) -> bool:
        """Dispatching it has returned."""
        return event in self._returned

    def has_begun(self) -> bool:
        return self._begun

    def has_closed(self) -> bool:
        return self._closed > 0

    def passed(self, marker: str) -> bool:
        return len(self._markers[marker]) >= len(ROLES[Marker])

    def wait(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Block until the condition holds; whether it does within ``timeout`` seconds."""
        changed, key = threading.Event(), object()
        with self._lock:
            if condition():
                return True
            self._waiters[key] = condition, changed.set
        try:
            return changed.wait(timeout) or condition()
        finally:
            with self._lock:
                self._waiters.pop(key, None)

    async def until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """The same, for a task."""
        loop, changed, key = asyncio.get_running_loop(), asyncio.Event(), object()
        with self._lock:
            if condition():
                return True
            self._waiters[key] = condition, lambda: wake(loop, changed)
        try:
            async with asyncio.timeout(timeout):
                await changed.wait()
        except TimeoutError:
            return condition()
        finally:
            with self._lock:
                self._waiters.pop(key, None)
        return True

    def _gate(self, event: str) -> Gate:
        with self._lock:
            if event not in self._gates:
                self._gates[event] = Gate()
                if self._all_released:
                    self._gates[event].release()
            return self._gates[event]


def _behaviour(planned: Planned | None, handler: str) -> Behaviour:
    if planned is None:
        return Behaviour()
    return planned.behaviours.get(handler.rpartition(".")[2], Behaviour())


def _children(planned: Planned | None, behaviour: Behaviour, handler: str) -> tuple[Planned, ...]:
    if planned is not None and planned.chain and handler.rpartition(".")[2] == ROLES[planned.kind][0]:
        return (*behaviour.spawns, Planned(planned.kind, chain=planned.chain - 1))
    return behaviour.spawns
