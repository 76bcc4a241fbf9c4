"""abxbus: one bus without a history or a limit to recursion, an event class for each event type."""

from typing import Any

import abxbus

from peers.adapters import IN_A_LOOP_IN_ORDER, Peer, function


class Abxbus(Peer):
    guarantees = IN_A_LOOP_IN_ORDER
    needs_loop = True

    def open(self):
        self.bus, self.kinds = abxbus.EventBus(max_history_size=0, max_handler_recursion_depth=10_000), {}

    def kind(self, kind):
        members = {"__annotations__": {"event": Any}, "__module__": __name__}
        return self.kinds.setdefault(kind, type(kind.__name__, (abxbus.BaseEvent,), members))

    def subscribe(self, kind, handler):
        self.bus.on(self.kind(kind), function(handler, lambda carried: carried.event))

    def dispatch(self, event):
        return self.bus.emit(self.kind(type(event))(event=event))

    async def aclose(self, timeout=10.0):
        await self.bus.wait_until_idle(timeout)
        await self.bus.destroy()
        return ()
