"""pyee.asyncio: an emitter on the running loop, with a listener to ``error``."""

import asyncio
import contextlib

from pyee.asyncio import AsyncIOEventEmitter

from peers.adapters import IN_A_LOOP, Peer


class PyeeAsyncio(Peer):
    guarantees = IN_A_LOOP
    needs_loop = True

    def open(self):
        self.emitter = AsyncIOEventEmitter(loop=asyncio.get_running_loop())
        self.emitter.on("error", lambda error: None)  # without one, emit() raises what a plain handler raised

    def subscribe(self, kind, handler):
        self.emitter.on(kind, handler.handle)

    def dispatch(self, event):
        return self.emitter.emit(type(event), event)

    async def aclose(self, timeout=10.0):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.emitter.wait_for_complete(), timeout)
        self.emitter.cancel()
        return ()
