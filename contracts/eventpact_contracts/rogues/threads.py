"""Rogues with a thread of their own, which do in two steps what has to be one."""

from __future__ import annotations

import logging
import threading

from eventpact.domain.events import DomainEvent
from eventpact_contracts.rogues.rogue import rogue
from eventpact_contracts.rogues.sound.in_a_thread import InAThread

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
