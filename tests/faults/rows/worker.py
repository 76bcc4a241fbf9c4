"""The worker is killed: a child, the main process, the whole group, each at each step; and stopped in good order."""

from __future__ import annotations

import os
import signal
import time

from faults.fault import fault, needs_worker
from faults.world import World

__all__: list[str] = []

_STEPS = ("received", "mid-handler", "handled")


def _killed(world: World, scope: str) -> float:
    step = _STEPS[world.round % len(_STEPS)]
    if step == "mid-handler":
        killed_at = _killed_mid_handler(world, scope)
    else:
        world.worker.arm(step, scope)
        world.sign_up(world.random.randint(1, 4))
        world.until(lambda: not world.worker.is_armed(), f"the step {step!r} of the worker")
        killed_at = time.monotonic()
    world.kills += 1
    if scope != "self":
        world.until(lambda: world.worker.ended(0.01), "the end of the worker")
        world.worker.start()
    return killed_at


def _killed_mid_handler(world: World, scope: str) -> float:
    world.mail.hold()
    world.sign_up(world.random.randint(1, 4))
    world.until(lambda: world.mail.waiting, "a handler at the mail server")
    if scope == "self":
        os.kill(world.random.choice(world.worker.children()), signal.SIGKILL)
    else:
        world.worker.signal(signal.SIGKILL, group=scope == "group")
    killed_at = time.monotonic()
    world.mail.release()
    return killed_at


@fault("worker-child-kill", kills=True, not_for=needs_worker, rounds=3)
def child(world: World) -> float:
    """The worker's child is killed: before, in and after the handler, in turn."""
    return _killed(world, "self")


@fault("worker-main-kill", kills=True, not_for=needs_worker, rounds=3)
def main(world: World) -> float:
    """The worker's main process is killed, and its children are left: before, in and after the handler, in turn."""
    return _killed(world, "parent")


@fault("worker-group-kill", kills=True, not_for=needs_worker, rounds=3)
def group(world: World) -> float:
    """The worker and its children are killed: before, in and after the handler, in turn."""
    return _killed(world, "group")


@fault("worker-stop-publish-kill", kills=True, not_for=needs_worker)
def stop_publish_kill(world: World) -> float:
    """The worker is frozen (SIGSTOP), people sign up, and it is killed."""
    world.worker.signal(signal.SIGSTOP)
    world.sign_up(world.random.randint(1, 5))
    world.worker.signal(signal.SIGKILL)
    killed_at = time.monotonic()
    world.kills += 1
    world.until(lambda: world.worker.ended(0.01), "the end of the worker")
    world.worker.start()
    return killed_at


@fault("worker-sigterm", not_for=needs_worker)
def sigterm(world: World) -> float:
    """The worker is stopped with SIGTERM while handlers run and more waits for them."""
    world.mail.hold()
    world.sign_up(world.random.randint(3, 6))
    world.until(lambda: world.mail.waiting, "a handler at the mail server")
    world.worker.signal(signal.SIGTERM, group=False)
    stopped_at = time.monotonic()
    world.mail.release()
    world.until(lambda: world.worker.ended(0.01), "the end of the worker", 40)
    world.worker.start()
    return stopped_at
