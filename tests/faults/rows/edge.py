"""The HTTP server meets clients that connect and do not go on."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

from faults.fault import at_edge, fault
from faults.world import World

__all__: list[str] = []

_BEGUN: Final = (
    b"POST /accounts HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n{"
)
_DESCRIPTORS: Final = 256
_BACK_SECONDS: Final = 30.0
"""After so long at most, people are served though the clients do not go on."""
_LOG_BYTES_PER_SECOND: Final = 20_000
_END_SECONDS: Final = 3.0 + 7.0
"""The drain time-out of the cells, and what ending takes on a busy machine."""


@contextmanager
def _unfinished(world: World, count: int) -> Generator[None]:
    """Hold connections open on which a body has begun."""
    connections: list[socket.socket] = []
    try:
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", world.server.port), timeout=5)
            connections.append(connection)
            with suppress(OSError):  # the server may close it at once
                connection.sendall(_BEGUN)
        yield
    finally:
        for connection in connections:
            connection.close()


@fault("http-stopped-bodies", not_for=at_edge, passing=True)
def stopped_bodies(world: World) -> float:
    """260 bodies stop after one byte, at a server that may open 256 files; people sign up meanwhile and after."""
    world.server.stop()
    world.server.environment["FAULTS_DESCRIPTORS"] = str(_DESCRIPTORS)
    world.server.start()
    world.hold_mail()
    world.sign_up(2)
    logged, began = world.server.log_size(), time.monotonic()
    with _unfinished(world, 260):
        world.mail.release()

        def is_served() -> bool:
            (address,) = world.sign_up(1, together=False)
            return address in world.accepted()

        served = world.comes_about(is_served, _BACK_SECONDS)
        world.expect(served, f"nobody is served for {_BACK_SECONDS:.0f} s while bodies have stopped")
        rate = (world.server.log_size() - logged) / max(1.0, time.monotonic() - began)
        world.expect(rate < _LOG_BYTES_PER_SECOND, f"the server logs {rate / 1000:.0f} KB a second")
    return time.monotonic()


@fault("http-unfinished-body-sigterm", not_for=at_edge, passing=True)
def unfinished_body_sigterm(world: World) -> float:
    """The server is stopped with SIGTERM while one body has not ended."""
    world.hold_mail()
    world.sign_up(2)
    with _unfinished(world, 1):
        world.server.signal(signal.SIGTERM, group=False)
        stopped_at = time.monotonic()
        world.mail.release()
        ended = world.comes_about(lambda: world.server.ended(0.01), _END_SECONDS)
        world.expect(ended, f"the server has not ended {_END_SECONDS:.0f} s after SIGTERM")
    if not ended:
        world.server.kill()
    world.server.start()
    return stopped_at
