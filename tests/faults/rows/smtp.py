"""The mail server is unreachable, refuses, hangs, and hangs up at the worst moment."""

from __future__ import annotations

import time
from typing import Final

from faults.fault import fault
from faults.world import World

__all__: list[str] = []

_TROUBLE_SECONDS: Final = 1.5
"""Less than all retries take."""
_UNREACHABLE_SECONDS: Final = 6.0
"""Longer than the retries of an engine take, and shorter than those of an outbox."""


def _in_trouble(world: World, kind: str, seconds: float) -> float:
    world.mail.fault = kind
    join = world.begin_sign_up(world.addresses(world.random.randint(2, 4)))
    ends_at = time.monotonic() + seconds
    world.comes_about(lambda: time.monotonic() > ends_at, seconds + 1)
    world.mail.fault = ""
    ended_at = time.monotonic()
    join()
    return ended_at


@fault("smtp-refuse", rounds=2)
def refuse(world: World) -> float:
    """The mail server refuses mails: for now (451), and for good (550), in turn."""
    return _in_trouble(world, ("refuse", "reject")[world.round % 2], _TROUBLE_SECONDS)


@fault("smtp-hang")
def hang(world: World) -> float:
    """The mail server takes the mail and never answers, until its client gives up."""
    return _in_trouble(world, "hang", _TROUBLE_SECONDS)


@fault("smtp-drop", rounds=2)
def drop(world: World) -> float:
    """The mail server takes the mail and hangs up: before its 250, and after it, in turn."""
    return _in_trouble(world, ("drop", "drop-after")[world.round % 2], _TROUBLE_SECONDS)


@fault("smtp-unreachable", passing=True)
def unreachable(world: World) -> float:
    """Nobody listens at the mail server's port for 6 s, while forty people sign up."""
    world.smtp.cut()
    ends_at = time.monotonic() + _UNREACHABLE_SECONDS
    for _ in range(4):
        world.sign_up(10)
    world.comes_about(lambda: time.monotonic() > ends_at, _UNREACHABLE_SECONDS + 1)
    world.smtp.open()
    return time.monotonic()
