"""The clock of the process that handles is ten minutes off that of the others."""

from __future__ import annotations

import time

from faults.fault import fault
from faults.world import World

__all__: list[str] = []


def _off(world: World, seconds: int) -> float:
    """Restart the process that handles with another clock, then everything with the right one."""
    world.hold_mail()
    world.sign_up(2)
    part = world.worker if world.column.has_worker else world.server
    part.kill()
    world.kills += 1
    part.environment["FAULTS_CLOCK"] = str(seconds)
    part.start()
    changed_at = time.monotonic()
    world.mail.release()
    world.sign_up(3)
    world.comes_about(world.is_settled, world.options.patience if world.column.promises else 6.0)
    del part.environment["FAULTS_CLOCK"]
    part.stop()
    part.start()
    return changed_at


@fault("clock-ahead")
def ahead(world: World) -> float:
    """The process that handles dies, and the next has a clock that is 10 minutes ahead."""
    return _off(world, 600)


@fault("clock-behind")
def behind(world: World) -> float:
    """The process that handles dies, and the next has a clock that is 10 minutes behind."""
    return _off(world, -600)
