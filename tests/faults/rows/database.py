"""The database is locked by another process, and unreachable."""

from __future__ import annotations

import sqlite3
import time
from typing import Final

from faults.fault import fault
from faults.world import World

__all__: list[str] = []

_SECONDS: Final = 3.0


@fault("database-locked", passing=True)
def locked(world: World) -> float:
    """Another process holds the lock of the SQLite file for 3 s, while handlers run and people sign up."""
    world.hold_mail()
    world.sign_up(2)
    connection = sqlite3.connect(world.folder / "eventpact.db", isolation_level=None, timeout=5)
    try:
        connection.execute("BEGIN IMMEDIATE")
        until = time.monotonic() + _SECONDS
        world.mail.release()
        while time.monotonic() < until:
            world.sign_up(2)
        connection.execute("ROLLBACK")
    finally:
        connection.close()
    return time.monotonic()


@fault("database-gone", postgres=True, passing=True)
def gone(world: World) -> float:
    """Every connection to PostgreSQL is cut for 3 s, while handlers run and people sign up."""
    assert world.database is not None
    world.hold_mail()
    world.sign_up(2)
    world.database.cut()
    until = time.monotonic() + _SECONDS
    world.mail.release()
    while time.monotonic() < until:
        world.sign_up(2)
    world.database.open()
    return time.monotonic()
