"""Child processes: no signal comes between the start of one and its being known to who has to end it."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def deferred_signals() -> Generator[None]:
    """Let a signal that ends this process come afterwards. Blocked, it would be so in a child process, too."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no other thread is interrupted
        return
    arrived: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: arrived.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for each in arrived:
            signal.raise_signal(each)
