"""lato: an application whose handlers are registered by message class."""

from typing import Any

import lato

from peers.adapters import IN_THE_CALL, Peer


class Lato(Peer):
    guarantees = IN_THE_CALL
    async_handlers = False  # publish() does not await them; publish_async() is for callers that can await

    def open(self):
        self.application, self.kinds = lato.Application(), {}

    def kind(self, kind):
        members = {"__annotations__": {"event": Any}, "__module__": __name__}
        return self.kinds.setdefault(kind, type(kind.__name__, (lato.Event,), members))

    def subscribe(self, kind, handler):
        @self.application.handler(self.kind(kind))
        def handle(message):
            return handler.handle(message.event)

    def dispatch(self, event):
        return self.application.publish(self.kind(type(event))(event=event))
