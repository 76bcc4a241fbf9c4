"""The signals that end a command in good order."""

import signal
from typing import NoReturn


def hang_up_as_told_to_end() -> None:
    """Have SIGHUP, which says that the terminal is gone, do what SIGTERM does; not under nohup, which ignores it."""
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def end_in_good_order_when_told_to() -> None:
    """End by an exception when SIGTERM arrives, so that child processes are ended as well."""

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    hang_up_as_told_to_end()
