"""The web process is killed, at each step of a sign-up, and stopped in good order."""

from __future__ import annotations

import signal
import time

from faults.fault import fault
from faults.world import World

__all__: list[str] = []


def _killed_at(world: World, step: str) -> float:
    world.server.arm(step)
    world.sign_up(world.random.randint(1, 4))
    world.killed(world.server, step)
    killed_at = time.monotonic()
    world.mail.release()
    world.server.start()
    return killed_at


@fault("web-before-commit", kills=True)
def before_commit(world: World) -> float:
    """The server is killed when the account, and with an outbox the event, is written and not committed."""
    world.hold_mail()
    world.sign_up(world.random.randint(0, 2))
    return _killed_at(world, "before-commit")


@fault("web-after-commit", kills=True)
def after_commit(world: World) -> float:
    """The server is killed right after the COMMIT, before anything is dispatched and before it answers."""
    world.hold_mail()
    world.sign_up(world.random.randint(0, 2))
    return _killed_at(world, "after-commit")


@fault("web-while-dispatching", kills=True, rounds=2)
def while_dispatching(world: World) -> float:
    """The server is killed when the engine is about to take an event, and when it has just taken it."""
    return _killed_at(world, ("dispatching", "dispatched")[world.round % 2])


@fault("web-mid-handler", kills=True, rounds=2)
def mid_handler(world: World) -> float:
    """The server is killed while a handler talks to the mail server; where handlers run in it, also just after."""
    if world.round % 2 and not world.column.has_worker:
        return _killed_at(world, "handled")
    world.mail.hold()
    join = world.begin_sign_up(world.addresses(world.random.randint(1, 4)))
    if not world.column.guarantees.blocks_caller:
        join()
    world.until(lambda: world.mail.waiting, "a handler at the mail server")
    world.server.kill()
    world.kills += 1
    killed_at = time.monotonic()
    join()
    world.mail.release()
    world.server.start()
    return killed_at


@fault("web-sigterm")
def sigterm(world: World) -> float:
    """The server is stopped with SIGTERM while handlers run and people sign up."""
    world.hold_mail()
    world.sign_up(world.random.randint(1, 3))
    join = world.begin_sign_up(world.addresses(4))
    world.server.signal(signal.SIGTERM, group=False)
    stopped_at = time.monotonic()
    world.mail.release()
    join()
    world.until(lambda: world.server.ended(0.01), "the end of the server")
    world.server.start()
    return stopped_at
