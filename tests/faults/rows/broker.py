"""The broker is killed, frozen, full, cut off, slow, or behind a black hole."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Final

import redis

from eventpact_contracts.demo.processes import DemoError
from faults.fault import fault, needs_redis, needs_worker
from faults.world import World

__all__: list[str] = []

_FULL_START_SECONDS: Final = 30.0
"""A worker may go on trying to start while the broker is full; after this it is killed."""


def _last(seconds: float) -> None:
    """Let a fault last."""
    threading.Event().wait(seconds)


def _sign_up_while(world: World, seconds: float) -> None:
    """People keep signing up, one by one, while the fault lasts."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        world.sign_up(1, together=False)
        _last(min(0.5, max(0.0, until - time.monotonic())))


def _freeze(world: World, frozen: bool) -> None:
    number = signal.SIGSTOP if frozen else signal.SIGCONT
    os.killpg(world.own.pid, number)


@fault("broker-kill", kills=True, not_for=needs_worker, breaks_broker=True)
def kill(world: World) -> float:
    """The broker is killed while handlers run and events wait, people sign up, and it is started again."""
    world.mail.hold()
    world.sign_up(world.random.randint(6, 10))  # more than the worker's children hold
    world.until(lambda: world.mail.waiting, "a handler at the mail server")
    world.own.kill()
    world.kills += 1
    world.sign_up(2, together=False)
    world.own.start()
    started_at = time.monotonic()
    world.mail.release()
    return started_at


@fault("broker-embedded-kill", not_for=needs_redis, embedded=True)
def embedded_kill(world: World) -> float:
    """The broker that the server has started is killed while events wait; a server that ends is started again."""
    world.hold_mail()
    world.sign_up(3)
    (broker,) = (pid for pid in world.server.children() if "valkey" in Path(f"/proc/{pid}/comm").read_text())
    os.kill(broker, signal.SIGKILL)
    world.kills += 1
    killed_at = time.monotonic()
    world.mail.release()

    def is_back() -> bool:
        if not world.server.is_running():
            code = world.server.exit_code(1)
            world.expect(code, "the server ended with exit code 0 when its broker was killed")
            world.server.start()
        if not world.worker.is_running():  # it may lose its broker for good, if it says so
            code = world.worker.exit_code(1)
            world.expect(code, "the worker ended with exit code 0 when its broker was killed")
            world.worker.start()
        (address,) = world.sign_up(1, together=False)
        return world.comes_about(lambda: address in dict(world.mail.mails), 3)

    world.expect(world.comes_about(is_back, world.options.patience), "the embedded broker does not come back")
    return killed_at


@fault("broker-full", not_for=needs_redis, breaks_broker=True)
def full(world: World) -> float:
    """The broker refuses to store anything more while the worker has events and people sign up; then it is emptied."""
    world.mail.hold()
    world.sign_up(3)
    world.until(lambda: world.mail.waiting, "a handler at the mail server")
    start_seconds = world.worker.start_seconds
    with redis.Redis.from_url(world.own.url) as client:
        client.config_set("maxmemory", "1")
        world.mail.release()
        _sign_up_while(world, world.options.freeze / 4)
        world.worker.stop()
        world.worker.start_seconds = _FULL_START_SECONDS
        try:
            code = world.worker.try_to_start()
        except DemoError:  # it goes on trying, as it should, and was killed by the time-out
            code = None
        if world.worker.is_running():
            _last(world.options.freeze / 4)
            code = None if world.worker.is_running() else world.worker.exit_code(1)
        world.expect(code != 0, "the worker ended with exit code 0 because the broker is full")
        client.config_set("maxmemory", "0")
    world.worker.start_seconds = start_seconds
    if not world.worker.is_running():
        world.worker.start()
    return time.monotonic()


@fault("broker-freeze-consuming", not_for=needs_worker, breaks_broker=True)
def freeze_consuming(world: World) -> float:
    """The broker is frozen while the worker has events of it, which it ends meanwhile."""
    world.mail.hold()
    world.sign_up(world.random.randint(4, 8))
    world.until(lambda: world.mail.waiting, "a handler at the mail server")
    _freeze(world, True)
    world.mail.release()
    _last(world.options.freeze)
    _freeze(world, False)
    return time.monotonic()


@fault("broker-freeze-publishing", not_for=needs_worker, breaks_broker=True)
def freeze_publishing(world: World) -> float:
    """The broker is frozen, and people keep signing up."""
    world.sign_up(2)
    _freeze(world, True)
    _sign_up_while(world, world.options.freeze)
    _freeze(world, False)
    return time.monotonic()


@fault("proxy-cut", not_for=needs_worker)
def cut(world: World) -> float:
    """Every connection to the broker is cut while handlers run, and new ones are refused; people keep signing up."""
    world.mail.hold()
    world.sign_up(world.random.randint(2, 6))
    world.until(lambda: world.mail.waiting, "a handler at the mail server")
    world.broker.cut()
    world.mail.release()
    _sign_up_while(world, world.options.freeze / 2)
    world.broker.open()
    return time.monotonic()


@fault("proxy-delay", not_for=needs_worker, rounds=2)
def delay(world: World) -> float:
    """All that passes between the broker and its clients is held up, for 0.1 s and for 0.6 s in turn."""
    world.broker.delay = (0.1, 0.6)[world.round % 2]
    world.sign_up(3)
    _sign_up_while(world, world.options.freeze / 4)
    world.broker.delay = 0.0
    return time.monotonic()


@fault("proxy-blackhole", not_for=needs_worker, rounds=2)
def black_hole(world: World) -> float:
    """Nothing passes, though connections are taken; then it passes late, or the connections are cut, in turn."""
    world.mail.hold()
    world.sign_up(world.random.randint(2, 6))
    world.until(lambda: world.mail.waiting, "a handler at the mail server")
    world.broker.stall()
    world.mail.release()
    _sign_up_while(world, world.options.freeze / 2)
    if world.round % 2:
        world.broker.cut()
        world.broker.open()
    world.broker.resume()
    return time.monotonic()
