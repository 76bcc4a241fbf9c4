"""pyee: an emitter whose events are the event types."""

from pyee import EventEmitter

from peers.adapters import IN_THE_CALL, Peer


class Pyee(Peer):
    guarantees = IN_THE_CALL
    async_handlers = False

    def open(self):
        self.emitter = EventEmitter()

    def subscribe(self, kind, handler):
        self.emitter.on(kind, handler.handle)

    def dispatch(self, event):
        return self.emitter.emit(type(event), event)
