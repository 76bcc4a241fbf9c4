"""fastapi-events: its local handler, with events that are dispatched outside of a request."""

from fastapi_events.dispatcher import dispatch
from fastapi_events.handlers.local import LocalHandler
from fastapi_events.middleware import EventHandlerASGIMiddleware

from peers.adapters import IN_A_LOOP, Peer, function, wire_name


class FastapiEvents(Peer):
    guarantees = IN_A_LOOP
    needs_loop = True

    def open(self):
        self.local = LocalHandler()
        self.middleware = EventHandlerASGIMiddleware(None, [self.local], middleware_id=id(self))

    def subscribe(self, kind, handler):
        self.local.register(event_name=wire_name(kind))(function(handler, lambda named: named[1]))

    def dispatch(self, event):
        return dispatch(wire_name(type(event)), event, middleware_id=id(self))
