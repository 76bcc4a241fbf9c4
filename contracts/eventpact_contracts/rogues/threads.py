"""Rogues with a thread of their own: they take two steps where one is due, or leave something behind."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

from eventpact.domain.dispatcher import DispatchError, FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Subscription
from eventpact_contracts.rogues.rogue import rogue
from eventpact_contracts.rogues.sound.in_a_thread import InAThread, Job
from eventpact_contracts.rogues.sound.pass_through import PassThrough, Route

__all__: list[str] = []

_log = logging.getLogger(__name__)


@rogue(
    "L1",
    "as undelivered, and then",
    also={"L3": "what raced closing is returned and handled just so", "L2": "the same, where closing was called twice"},
)
class GivingUpWhatIsInHand(InAThread):
    """Its thread looks whether an event is still to be handled, and begins, in two steps without a lock."""

    def takes(self, job: object) -> bool:
        if job not in self._pending:
            return False
        self._running = job
        return True


_ANSWER_SECONDS = 1.1


@rogue(
    "C2",
    "though little was pending",
    also=dict.fromkeys(
        ("R1", "R3", "R5", "I2", "I5", "L1"), "events wait for a second behind each handler that dispatches"
    ),
)
class AskingItself(InAThread):
    """Dispatch waits a second for the thread to answer, also on that very thread, where handlers dispatch."""

    def start(self) -> None:
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def dispatch(self, event: DomainEvent) -> None:
        if threading.current_thread() is self.thread and self.route(event) and not self._closed:
            threading.Event().wait(_ANSWER_SECONDS)
            raise DispatchError("its thread does not answer")
        super().dispatch(event)


@rogue("L1", "was reported")
class ReportingAfterwards(InAThread):
    """A delivery is over when its attempt is; its failure is reported then, and closing no longer waits for that."""

    def end(self, job: object, failed: FailedDelivery | None) -> bool:
        is_wanted = super().end(job, None)
        if failed is not None and is_wanted:
            self._failures.report(failed)
        return is_wanted


_ROOM = 64


@rogue(
    "L1",
    "aclose did not return it",
    also={"L3": "who waits for room while it closes races closing"},
    settle_timeout=3.0,
)
class WaitingForRoom(InAThread):
    """Whoever finds it full waits until it is empty; closing empties it by giving up, and lets him in."""

    def put(self, event: DomainEvent, route: Route) -> None:
        deadline, is_full = time.monotonic() + 1.5, len(self._pending) >= _ROOM
        while is_full and self._pending:
            if time.monotonic() > deadline:
                raise DispatchError("it is full")
            threading.Condition(self._lock).wait(0.001)  # lets others have the lock
        super().put(event, route)


@rogue(
    "C1",
    "never received it",
    also={"R1": "what is lost is never received", "R5": "a lost event may have the only handler of its kind"},
    settle_timeout=0.5,
)
class RunningDry(InAThread):
    """Its thread ends when it finds nothing to do, and says so a moment later; what comes in between, it overlooks."""

    is_at_work = False

    def start(self) -> None:
        """Wait for something to do."""

    def dispatch(self, event: DomainEvent) -> None:
        super().dispatch(event)
        with self._lock:
            begins, self.is_at_work = not self.is_at_work, True
        if begins:
            threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        while not self._jobs.empty():
            if (taken := self._jobs.get()) is not None:
                self.handle(*taken)
        name = threading.current_thread().name
        _log.debug("%s has nothing left to do", name)
        self.is_at_work = False


@rogue("G4", "dispatched first")
class GroupingByType(InAThread):
    """Its thread takes all that waits, one type after the other."""

    def work(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch: list[Job | None] = [first]
            while not self._jobs.empty():
                batch.append(self._jobs.get())
            for job, subscription, event in sorted(filter(None, batch), key=lambda taken: type(taken[2]).__name__):
                self.handle(job, subscription, event)
            if None in batch:
                return


@rogue("L1", "past its deadline|did not return")
class LookingLessAndLess(InAThread):
    """Closing looks whether all is settled, each time after twice as long."""

    async def idle(self, deadline: float) -> None:
        pause = 0.01
        while self._pending and time.monotonic() < deadline:
            await asyncio.sleep(pause)
            pause *= 2


@rogue("L4", "the thread")
class Resigned(InAThread):
    """A thread that has not come to its end in time hangs, it thinks, and does not tell it to end."""

    def stop(self, left: Sequence[DomainEvent]) -> None:
        if not left:
            super().stop(left)


class WithALoop(InAThread):
    """A good one: it has one event loop for all that is to be awaited."""

    loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.loop = self.loop or asyncio.new_event_loop()
        self.loop.run_until_complete(coroutine)

    def work(self) -> None:
        super().work()
        self.close_loop()

    def close_loop(self) -> None:
        """Close the loop, if there is one."""
        if self.loop is not None:
            self.loop.close()


@rogue("L4", "unclosed event loop|open")
class Replacing(WithALoop):
    """A loop that was interrupted is not to be trusted: it takes another, and leaves the first one open."""

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            super().run(coroutine)
        except (KeyboardInterrupt, SystemExit):
            self.loop = None
            raise


@rogue("L4", "unclosed event loop|open")
class Presuming(WithALoop):
    """There is a loop to close where there are ``async def`` handlers, it thinks."""

    def close_loop(self) -> None:
        if any(subscription.is_async for route in self._table.values() for subscription in route):
            super().close_loop()


@rogue("L4", "never awaited", also={"A5": "what it refuses is begun, too"})
class Eager(InAThread):
    """An ``async def`` handler is called when the event comes, and its coroutine awaited when its turn comes."""

    def route(self, event: DomainEvent) -> tuple[Subscription, ...]:
        return tuple(
            dataclasses.replace(each, handle=partial(_first, each.handle(event))) if each.is_async else each
            for each in super().route(event)
        )


def _first(prepared: Any, event: DomainEvent) -> Any:  # noqa: ARG001 - called as a handle is
    return prepared


@rogue("A3", "instead of DispatcherClosedError")
class FullFirst(InAThread):
    """It asks for room first, and only then looks if it is closed."""

    def dispatch(self, event: DomainEvent) -> None:
        if len(self._pending) >= 200:
            raise DispatchError("it is full")
        super().dispatch(event)


@rogue("L2", "and the first call had time", also={"L1": "the first call gives up before its deadline"})
class HurriedByTheSecond(InAThread):
    """The deadline is the dispatcher's, and a second call with less time cuts it short."""

    deadline = float("inf")

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        self.deadline = min(self.deadline, time.monotonic() + timeout)
        return await super().aclose(timeout)

    async def idle(self, deadline: float) -> None:
        while self._pending and time.monotonic() < min(deadline, self.deadline):
            await super().idle(min(deadline, time.monotonic() + 0.005))  # the deadline may have moved by then


@rogue("R1", "never received it", also={"L1": "an event that equals one of those that are pending is not conserved"})
class KeyedByEvent(InAThread):
    """An event that is pending is not taken once more; which it is, equality tells."""

    def put(self, event: DomainEvent, route: Route) -> None:
        if event not in self._pending.values():
            super().put(event, route)


@rogue("C1", "though little was pending")
class NotForTwo(PassThrough):
    """A guard against calling it while it is called, which does not ask by whom."""

    def prepare(self) -> None:
        self.local, self.entered = threading.local(), threading.Lock()

    def accept(self, event: DomainEvent, route: Route) -> None:
        if getattr(self.local, "inside", False) or not route:
            super().accept(event, route)
            return
        if not self.entered.acquire(blocking=False):
            raise DispatchError("somebody else is at it")
        self.local.inside = True
        try:
            super().accept(event, route)
        finally:
            self.local.inside = False
            self.entered.release()
