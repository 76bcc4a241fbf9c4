"""``eventpact relay``: delivers the outbox, in a process of its own."""

import asyncio
import signal

from eventpact.bootstrap import build_relay, existing, with_broker
from eventpact.cli.signals import other_signals_as_told_to_end
from eventpact.infrastructure.monitoring.logs import configure
from eventpact.settings import Settings


def run(_: object, settings: Settings) -> int:
    """Relay until a signal says stop; running handlers get their time."""
    configure(settings.log_format)
    asyncio.run(_relay(with_broker(existing(settings))))
    return 0


async def _relay(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    other_signals_as_told_to_end()
    dispatcher, parts = build_relay(settings)
    try:
        print("relaying the outbox", flush=True)
        await stop.wait()
    finally:
        await dispatcher.aclose(settings.drain_timeout)
        parts.database.close()
