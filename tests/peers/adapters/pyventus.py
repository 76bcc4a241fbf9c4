"""pyventus: a linker, and its asyncio emitter on the running loop."""

import asyncio
import contextlib

from pyventus.core.processing.asyncio import AsyncIOProcessingService
from pyventus.events import EventEmitter, EventLinker

from peers.adapters import IN_A_LOOP, Peer


class Pyventus(Peer):
    guarantees = IN_A_LOOP
    needs_loop = True

    def open(self):
        self.linker = type("Linker", (EventLinker,), {})
        self.service = AsyncIOProcessingService()
        self.emitter = EventEmitter(self.service, self.linker)

    def subscribe(self, kind, handler):
        self.linker.subscribe(kind, event_callback=handler.handle)

    def dispatch(self, event):
        return self.emitter.emit(event)

    async def aclose(self, timeout=10.0):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.service.wait_for_tasks(), timeout)
        return ()
