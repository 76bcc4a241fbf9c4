"""blinker: a signal for each event type, with strong references to its receivers."""

from blinker import Namespace

from peers.adapters import IN_THE_CALL, Peer


class Blinker(Peer):
    guarantees = IN_THE_CALL
    async_handlers = False  # send() refuses them; send_async() is for callers that can await

    def open(self):
        self.signals = Namespace()

    def subscribe(self, kind, handler):
        self.signals.signal(kind).connect(handler.handle, weak=False)

    def dispatch(self, event):
        return self.signals.signal(type(event)).send(event)
