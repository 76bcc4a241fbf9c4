"""``eventpact demo``: every dispatcher at work, from the contract kit."""

from eventpact.cli.signals import end_in_good_order_when_told_to


def run(_: object, __: object) -> int:
    """Run the demo."""
    from eventpact_contracts.demo import main

    end_in_good_order_when_told_to()
    return main()
