"""``eventpact relay``: delivers what is in the outbox, in a process of its own."""

from __future__ import annotations

import asyncio
import signal
import sys

from eventpact.bootstrap import build_relay
from eventpact.infrastructure.logs import configure
from eventpact.infrastructure.settings import Settings

__all__ = ["relay"]


def relay(settings: Settings) -> int:
    """Relay until a signal says stop; running handlers get their time. Returns the exit code."""
    configure(settings.log_format)
    if settings.dispatcher == "celery" and settings.broker is None:
        from eventpact.infrastructure.embedded_broker import BrokerError, running_broker

        try:
            settings = settings.model_copy(update={"broker": running_broker(settings.data_dir / "broker")})
        except BrokerError as error:
            print(f"eventpact: {error}", file=sys.stderr)
            return 1
    asyncio.run(_relay(settings))
    return 0


async def _relay(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    dispatcher, parts = build_relay(settings)
    try:
        print("relaying what is in the outbox", flush=True)
        await stop.wait()
    finally:
        await dispatcher.aclose(settings.drain_timeout)
        parts.database.close()
