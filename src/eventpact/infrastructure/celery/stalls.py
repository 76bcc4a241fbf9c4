"""Workers whose event loop stands still, as it does while Redis neither answers nor hangs up."""

import logging
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

from celery.worker import state

_log = logging.getLogger("eventpact")

STALL_SECONDS: Final = 15


@contextmanager
def stalls_reported(timer: Any) -> Generator[None]:
    """Log that the loop of this timer stands still, and end the process if it is told to end meanwhile.

    The loop waits for Redis without end, and sees only afterwards that a signal has come. No time-out limits that:
    Celery takes an acknowledgement that came too late for made, and its place in the window would stay taken.
    """
    turned, ended = threading.Event(), threading.Event()
    beat = timer.call_repeatedly(1.0, turned.set)

    def watch() -> None:
        still = 0
        while not ended.wait(1.0):
            if turned.is_set():
                if still >= STALL_SECONDS:
                    _log.info("this worker goes on")
                still = 0
                turned.clear()
                continue
            still += 1  # not by the clock, which runs while this process itself is frozen
            if still == STALL_SECONDS:
                _log.error("this worker has stood still for %d s: Redis does not answer, and is waited for", still)
            if still >= STALL_SECONDS and (state.should_stop, state.should_terminate) != (None, None):
                _log.critical("this worker is told to end, and does so at once, as Redis does not answer")
                os._exit(1)  # what it had fetched is restored by the visibility time-out, as after a kill

    threading.Thread(target=watch, name="eventpact-stalls", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        beat.cancel()
