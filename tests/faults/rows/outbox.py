"""The outbox with many pending events: without a worker, after several crashes, and after a host was cut off."""

from __future__ import annotations

import time
from typing import Final

from faults.columns import Column
from faults.fault import fault, needs_outbox, needs_worker
from faults.targets import Server
from faults.world import World

__all__: list[str] = []

_RESEND_SECONDS: Final = 5.0
"""The setting of the cells."""
_PENDING: Final = 150
_DRAIN_SECONDS: Final = 30.0
"""For 150 events, of which a relay delivers 50 a second."""


def _needs_both(column: Column) -> str:
    return needs_worker(column) or needs_outbox(column)


@fault("outbox-no-worker", not_for=_needs_both, passing=True)
def no_worker(world: World) -> float:
    """No worker runs for six times the wait before a resend, while events wait; then one is started."""
    world.worker.stop()
    for _ in range(5):
        world.sign_up(10)
    accepted = len(world.accepted())
    end = time.monotonic() + 6 * _RESEND_SECONDS
    world.comes_about(lambda: time.monotonic() > end, 7 * _RESEND_SECONDS)
    waiting = world.backlog()
    world.expect(waiting <= 2 * accepted, f"{waiting} messages wait in the broker for {accepted} events")
    world.worker.start()
    return time.monotonic()


@fault(
    "outbox-crashes-with-many",
    not_for=lambda column: needs_outbox(column) or ("events leave the server" if column.has_worker else ""),
    passing=True,
)
def crashes_with_many(world: World) -> float:
    """The server is killed twice while 150 events are pending."""
    world.hold_mail()
    for _ in range(_PENDING // 50):
        world.sign_up(50)
    for _ in range(2):
        if not world.column.guarantees.blocks_caller:
            world.until(lambda: world.mail.waiting, "a handler at the mail server")
        world.server.kill()
        world.kills += 1
        world.server.start()
    world.mail.release()
    started_at = time.monotonic()
    drained = world.comes_about(world.is_settled, _DRAIN_SECONDS)
    world.expect(drained, f"{_PENDING} events are not delivered {_DRAIN_SECONDS:.0f} s after two crashes")
    return started_at


@fault("outbox-host-cut-off", not_for=needs_outbox, postgres=True, passing=True)
def host_cut_off(world: World) -> float:
    """A host is cut off in the middle of a heartbeat, with its row locked; another server is started."""
    world.hold_mail()
    world.server.arm("heartbeat", "freeze")
    world.sign_up(3)
    world.until(lambda: not world.server.is_armed(), "a heartbeat")
    cut_off_at = time.monotonic()
    frozen = world.server
    world.mail.release()
    world.server = Server(world.folder, frozen.environment, world.column.dispatcher)
    try:
        world.server.start()
        world.sign_up(2)
        taken_over = world.comes_about(world.is_settled, world.options.patience)
        world.expect(taken_over, "the events of a host that was cut off are not taken over")
    finally:
        frozen.kill()
        world.server.kill()
        frozen.start()
        world.server = frozen
    return cut_off_at
