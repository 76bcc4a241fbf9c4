"""The signals that end a command in good order."""

import signal
from typing import NoReturn


def other_signals_as_told_to_end() -> None:
    """Have SIGHUP (the terminal is gone) and SIGQUIT (a Ctrl-\\ in it) do what SIGTERM does.

    Not where they are ignored, as nohup has it.
    """
    for name in ("SIGHUP", "SIGQUIT"):  # Windows has neither
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGTERM))


def end_in_good_order_when_told_to() -> None:
    """End by an exception when SIGTERM arrives, so that child processes are ended as well."""

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    other_signals_as_told_to_end()
