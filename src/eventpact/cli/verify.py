"""``eventpact verify``: checks a dispatcher against the contract, where the contract kit is installed."""

import signal
from typing import NoReturn


def verify(arguments: list[str]) -> int:
    """Run the contract kit's own command. Returns the exit code."""
    from eventpact_contracts.cli import main

    end_in_good_order_when_told_to()
    return main(arguments)


def end_in_good_order_when_told_to() -> None:
    """End by an exception when SIGTERM arrives, so that child processes are ended as well."""

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
