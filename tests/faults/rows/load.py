"""More sign-ups than the mail server can keep up with."""

from __future__ import annotations

import time

from faults.fault import fault
from faults.world import World

__all__: list[str] = []

_MAIL_SECONDS = 0.2


@fault("load-slow-smtp")
def slow_smtp(world: World) -> float:
    """Ten times as many people sign up as the mail server, which takes 0.2 s a mail, keeps up with."""
    world.mail.delay = _MAIL_SECONDS
    for _ in range(6):
        world.sign_up(10)
    ended_at = time.monotonic()
    world.comes_about(lambda: len(world.mail.mails) >= len(world.ledger.answers), 60)
    world.mail.delay = 0.0
    return ended_at
