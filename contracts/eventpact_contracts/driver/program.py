"""The program of a run's handlers: the behaviour of each with an event, and the result of dispatching one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import Any, Final
from uuid import uuid4

from eventpact.domain.dispatcher import DispatchError, DispatchUncertainError, EventDispatcher, FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact_contracts.driver.conditions import Until
from eventpact_contracts.driver.gates import Delay, Gate, Obstacle, Pause
from eventpact_contracts.driver.recorder import Recorder, as_raised, fingerprint, id_of, raised
from eventpact_contracts.driver.threads import Pausing, in_thread
from eventpact_contracts.driver.trace import SINK, Kind
from eventpact_contracts.scenarios.events import ROLES, Marker, label_of
from eventpact_contracts.scenarios.failures import EVERY
from eventpact_contracts.scenarios.invalid import NON_EVENTS
from eventpact_contracts.scenarios.scenario import ALWAYS, NOTHING, EventPlan
from eventpact_contracts.scenarios.values import MEANINGLESS

__all__ = ["NEIGHBOUR", "Program"]

NEIGHBOUR: Final = "neighbour's "
"""Begins the names of whatever belongs to a neighbour: another dispatcher of the same class, open at the same time."""

_REPEATS: Final = 4
"""So often an event is dispatched again that an engine leaves in doubt, as a careful caller would."""

_AFTERWARDS_SECONDS: Final = 1.0
"""A thread that a handler has begun waits so long at most for its event to be settled."""

_MANY_ATTEMPTS: Final = 20
_MAX_REFUSALS: Final = 3  # so often a handler dispatches in vain


class Program:
    """Plays the plans of events. Every method may be called on any thread.

    Attributes:
        recorder: the record of this run.
        dispatcher: where handlers dispatch to.
        neighbour: another one, if there is one.
        doubtful: the events that an engine left in doubt, with their callers.
        failed_once: whether a handler has failed.
        pausing: pauses the threads of a dispatcher.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        bound: float = 2.0,
        retries: int = 0,
        sink_raises: str = "",
        repeats: bool = True,
        claim: Callable[[str], object] = str,
    ) -> None:
        self.recorder = recorder
        self.dispatcher: EventDispatcher | None = None
        self.neighbour: EventDispatcher | None = None
        self._neighbours: set[str] = set()
        self.doubtful: list[tuple[DomainEvent, str]] = []
        self._bound = bound
        self._retries = retries
        self._sink_raises = sink_raises
        self._repeats = repeats
        self._claim = claim
        self._conditions = recorder.conditions
        self._plans: dict[str, EventPlan] = {}
        self._gates: dict[str, Gate] = {}
        self._attempts: dict[tuple[str, str], int] = {}
        self._most_attempts = 0
        self._refusals: dict[str, int] = {}
        self._fingerprints: dict[str, str] = {}
        self._markers: dict[str, set[str]] = {}
        self.failed_once = False
        self.pausing = Pausing(self._conditions.recheck)
        self._all_released = False
        self._afterwards: list[Future[None]] = []

    # -- dispatching --------------------------------------------------------------------------------------------------

    def dispatch(self, plan: EventPlan, caller: str, cause: str = "", announce: Callable[[str], object] = str) -> None:
        """Dispatch a new event of this plan and record the outcome; ``announce`` its ID before."""
        self.dispatch_event(self.make(plan, announce), caller, cause)

    def make(self, plan: EventPlan, announce: Callable[[str], object]) -> DomainEvent:
        """Make a new event of this plan, and ``announce`` its ID."""
        event_id = uuid4()
        event = plan.kind(**{**plan.values, "event_id": event_id})
        known = str(event_id)
        self._claim(known)
        self._plans[known] = plan
        self._fingerprints[known] = fingerprint(event)
        announce(known)
        return event

    def dispatch_event(self, event: DomainEvent, caller: str, cause: str = "") -> None:
        """Dispatch an event, and again where the engine leaves it in doubt."""
        known = str(event.event_id)
        content = self._fingerprints[known]
        for _ in range(1 + _REPEATS):
            if not self._call(event, known, self._label(event, known), caller, cause=cause, token=content):
                return
            if self._plans[known].chain:  # twice at some depths, and again and again further down
                return
            if not self._repeats:
                self.doubtful.append((event, caller))
                return

    def _label(self, event: object, known: str) -> str:
        return (NEIGHBOUR if known in self._neighbours else "") + label_of(type(event))

    def dispatch_non_event(self, label: str, thing: Any, caller: str, cause: str = "") -> None:
        self._call(thing, f"non-event: {label}", "", caller, cause=cause, note=label)

    def _call(
        self, event: Any, known: str, kind: str, caller: str, *, cause: str = "", token: str = "", note: str = ""
    ) -> bool:
        """Call ``dispatch``; return whether it left the event in doubt."""
        dispatcher = self.neighbour if known in self._neighbours else self.dispatcher
        assert dispatcher is not None
        about: dict[str, Any] = {"caller": caller, "event": known, "event_type": kind, "cause": cause}
        self.recorder.write(Kind.DISPATCHED, **about, token=token, note=note)
        interruption, in_doubt = None, False
        try:
            returned: object = dispatcher.dispatch(event)  # law R7 looks at it
        except DispatchError as error:
            in_doubt = isinstance(error, DispatchUncertainError)
            self._refusals[cause] = self._refusals.get(cause, 0) + 1
            ended: dict[str, Any] = {"kind": Kind.REFUSED, **raised(error), "bound": self._bound}
        except Exception as error:  # noqa: BLE001 - recorded, for the laws to judge
            ended = {"kind": Kind.RAISED, **raised(error)}
        except BaseException as error:  # noqa: BLE001 - likewise
            interruption = error
            ended = {"kind": Kind.RAISED, **raised(error)}
        else:
            ended = {"kind": Kind.ACCEPTED, "note": "" if returned is None else ascii(returned)[:80]}
            if hasattr(returned, "close") and asyncio.iscoroutine(returned):
                returned.close()
        self.recorder.write(**about, **ended)
        if interruption is not None and cause:
            raise interruption
        return in_doubt

    # -- holding ------------------------------------------------------------------------------------------------------

    def release(self, event: str) -> None:
        """Let the held handlers of this event go on."""
        self.recorder.write(Kind.RELEASED, event=event, caller="suite")
        self._gate(event).release()

    def release_all(self) -> None:
        """Let every held handler go on, now and from now on."""
        with self._conditions.lock:
            self._all_released = True
            gates = list(self._gates.values())
        for gate in gates:
            gate.release()

    def _gate(self, event: str) -> Gate:
        with self._conditions.lock:
            if event not in self._gates:
                self._gates[event] = Gate()
                if self._all_released:
                    self._gates[event].release()
            return self._gates[event]

    def _hold(self, event: str, handler: str) -> Gate:
        self.recorder.write(Kind.HELD, event=event, handler=handler)
        return self._gate(event)

    # -- closing ------------------------------------------------------------------------------------------------------

    def closed(self, caller: str, undelivered: object, late: float) -> None:
        """Record that ``aclose`` returned."""
        several = undelivered if isinstance(undelivered, tuple | list) else ()
        changed = [e for e in several if self._fingerprints.get(id_of(e), fingerprint(e)) != fingerprint(e)]
        note = "" if isinstance(undelivered, tuple) else ascii(undelivered)[:80]
        note = f"another {fingerprint(changed[0])}" if changed else note
        self.recorder.write(Kind.CLOSED, caller=caller, events=tuple(map(id_of, several)), note=note, bound=late)

    # -- handlers and the failure sink --------------------------------------------------------------------------------

    def attempt(self, event: DomainEvent, handler: str) -> Generator[Obstacle, Any, object]:
        """Start an attempt of a handler, and return the rest of it, whose value is the handler's."""
        known = id_of(event)
        if known in self._markers:
            return self._attempt_marker(known, handler)
        return self._attempt(event, known, handler, self._start(event, known, handler))

    def _attempt(self, event: DomainEvent, known: str, handler: str, number: int) -> Generator[Obstacle, Any, object]:
        label = self._label(event, known)
        about: dict[str, Any] = {"event": known, "event_type": label, "handler": handler, "attempt": number}
        plan = self._plans.get(known)
        todo = NOTHING if plan is None else plan.of(handler)
        raising = None
        try:
            for _ in range(todo.pauses):
                yield Pause()
            if todo.held:
                gate = self._hold(known, handler)
                try:
                    yield gate
                except asyncio.CancelledError:
                    if not todo.resists:
                        raise
                    yield gate
            for child in () if plan is None else plan.children(handler):
                if self._refusals.get(known, 0) < _MAX_REFUSALS:  # each may take its time
                    self.dispatch(child, handler, cause=known)
            for child in todo.beside if self.neighbour is not None else ():
                self.dispatch(child, handler, announce=self._neighbours.add)  # as an outermost caller does
            for place in todo.non_events:
                self.dispatch_non_event(*NON_EVENTS[place], handler, known)
            if todo.afterwards:
                self._begin_afterwards(known, handler, todo.afterwards)
            if todo.seconds:
                self.recorder.write(Kind.HELD, event=known, handler=handler)
                yield Delay(todo.seconds)
            if todo.fails == ALWAYS or number <= todo.fails:
                how = todo.then if todo.then and number > 1 else todo.how
                raising = EVERY[how].make(f"{handler} attempt {number}")
                raise raising
        except BaseException as error:
            self.failed_once = True
            self.recorder.write(Kind.FAILED, **about, **raised(error), imposed=error is not raising)
            self.pausing.after(todo.pauses_after, has_failed=True)
            raise
        self.recorder.write(Kind.SUCCEEDED, **about)
        self.pausing.after(todo.pauses_after)
        return MEANINGLESS[number_of(known) % len(MEANINGLESS)] if todo.returns else None

    def _begin_afterwards(self, known: str, handler: str, plans: Iterable[EventPlan]) -> None:
        """Begin a thread with a copy of this context, which dispatches once the event of this handler is settled."""
        caller = f"a thread of {handler}"

        def dispatch() -> None:
            settled = partial(self._conditions.event_settled, known)
            Until(self._conditions, settled, _AFTERWARDS_SECONDS).block()
            for plan in plans:
                self.dispatch(plan, caller)

        context = copy_context()
        self._afterwards.append(in_thread(partial(context.run, dispatch)))
        self._afterwards[-1].add_done_callback(lambda _: self._conditions.recheck())

    def tries_without_end(self) -> bool:
        """Return whether a delivery has had far more attempts than any dispatcher would make."""
        return self._most_attempts > self._retries + _MANY_ATTEMPTS

    def are_threads_done(self) -> bool:
        """Return whether the threads that handlers have begun have dispatched."""
        return all(each.done() for each in self._afterwards)

    def _start(self, event: DomainEvent, known: str, handler: str) -> int:
        with self._conditions.lock:
            delivery = known, handler
            self._attempts[delivery] = number = self._attempts.get(delivery, 0) + 1
            self._most_attempts = max(self._most_attempts, number)
            self.recorder.write(
                Kind.STARTED,
                event=known,
                event_type=self._label(event, known),
                handler=handler,
                attempt=number,
                token=fingerprint(event),
            )
            return number

    def reported(self, failed: FailedDelivery, name_of: Callable[[object, object], str]) -> None:
        """Record a call of the failure sink; ``name_of`` tells the handler's name, if it is one of the suite's."""
        event, exception = getattr(failed, "event", None), as_raised(getattr(failed, "exception", None))
        known, handler = id_of(event), name_of(getattr(failed, "handler", None), event)
        if known in self._markers:
            self._passed(known, handler)
            return
        with self._conditions.lock:
            self.recorder.write(
                Kind.REPORTED,
                event=known,
                handler=handler or ascii(getattr(failed, "handler", None))[:80],
                token=fingerprint(event),
                attempt=getattr(failed, "attempts", 0),
                **(raised(exception) if isinstance(exception, BaseException) else {"note": ascii(exception)}),
            )
            # It is logged after this has raised, perhaps in a thread that nobody waits for otherwise.
            self._conditions.unlogged = bool(self._sink_raises)
        if known in self._plans and self._plans[known].of(handler).report_held:
            self._hold(known, SINK).block()
        if self._sink_raises:
            raise EVERY[self._sink_raises].make("the failure sink itself failed")

    # -- markers ------------------------------------------------------------------------------------------------------

    def mark(self) -> Callable[[], bool] | None:
        """Dispatch a marker behind all that was dispatched.

        Returns:
            A condition that holds when it has come through, or None if it was not accepted.
        """
        assert self.dispatcher is not None
        for _ in range(1 + _REPEATS):
            marker = Marker()
            known = str(marker.event_id)
            self._claim(known)
            passed = self._markers[known] = set()
            try:
                self.dispatcher.dispatch(marker)
            except DispatchUncertainError:
                continue
            except Exception:  # noqa: BLE001 - then there is no "afterwards" to wait for
                return None
            return lambda passed=passed: len(passed) >= len(ROLES[Marker])  # type: ignore[misc]
        return None

    def lose_marker(self) -> None:
        """Record the last marker as an event like any other: it was accepted, and has not come through."""
        marker, passed = next(reversed(self._markers.items()))
        passed = set(passed)  # it may come through late
        about = {"caller": "suite", "event": marker, "event_type": label_of(Marker)}
        for kind in (Kind.DISPATCHED, Kind.ACCEPTED):
            self.recorder.write(kind, **about)
        for handler in passed:
            for kind in (Kind.STARTED, Kind.SUCCEEDED):
                self.recorder.write(kind, event=marker, handler=handler, attempt=1)

    def _attempt_marker(self, known: str, handler: str) -> Generator[Obstacle, Any, None]:
        """Fail as often as is allowed, where others failed: nothing that was put off can come after it."""
        delivery = known, handler
        self._attempts[delivery] = number = self._attempts.get(delivery, 0) + 1
        yield Pause()
        if self.failed_once and number <= self._retries:
            raise ValueError(f"{handler} attempt {number}")
        self._passed(known, handler)

    def _passed(self, marker: str, handler: str) -> None:
        with self._conditions.lock:
            self._markers[marker].add(handler)
            self._conditions.changed()


def number_of(event: str) -> int:
    """A number that is always the same for an event."""
    return int(event[-4:], 16) if len(event) == 36 else 0
