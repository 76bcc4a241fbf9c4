"""pluggy: a manager for each event type, a plugin for each handler."""

from collections import defaultdict

from pluggy import HookimplMarker, HookspecMarker, PluginManager

from peers.adapters import IN_THE_CALL, Peer


class Pluggy(Peer):
    guarantees = IN_THE_CALL
    async_handlers = False

    def open(self):
        self.managers = defaultdict(lambda: PluginManager("peers"))

    def subscribe(self, kind, handler):
        class Plugin:
            @HookspecMarker("peers")
            @HookimplMarker("peers")
            def handle(self, event):
                return handler.handle(event)

        self.managers[kind].register(Plugin())

    def dispatch(self, event):
        return self.managers[type(event)].hook.handle(event=event)
