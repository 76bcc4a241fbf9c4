"""``eventpact verify``: checks a dispatcher against the contract, where the contract kit is installed."""

from eventpact.cli.signals import end_in_good_order_when_told_to


def verify(arguments: list[str]) -> int:
    """Run the contract kit's own command. Returns the exit code."""
    from eventpact_contracts.cli import main

    end_in_good_order_when_told_to()
    return main(arguments)
