"""Dispatcher over pluggy: each event type has a plugin manager, and each handler is a plugin with the hook."""

from __future__ import annotations

import pluggy
from kit.good.base import Job, Subscription
from kit.good.in_caller import InCaller

from eventpact.domain.dispatcher import FailureSink, Handlers
from eventpact.domain.events import DomainEvent

__all__ = ["PluggyDispatcher"]

_spec, _impl = pluggy.HookspecMarker("eventpact"), pluggy.HookimplMarker("eventpact")


class _Hooks:
    """The hook of an event type."""

    @_spec
    def deliver(self, jobs: dict[int, Job]) -> None:
        """Deliver the job of this plugin's handler."""


class _Plugin:
    """A handler as a plugin."""

    def __init__(self, dispatcher: PluggyDispatcher, subscription: Subscription) -> None:
        self._dispatcher, self._subscription = dispatcher, subscription

    @_impl(trylast=True)
    def deliver(self, jobs: dict[int, Job]) -> None:
        self._dispatcher._deliver(jobs[id(self._subscription)])


class PluggyDispatcher(InCaller):
    """Calls a hook for each event in the caller's thread. A hook is a plain function, so an async def is refused."""

    async_handlers = False

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self._managers: dict[type[DomainEvent], pluggy.PluginManager] = {}
        for event_type, route in self._table.items():
            manager = self._managers[event_type] = pluggy.PluginManager("eventpact")
            manager.add_hookspecs(_Hooks)
            for subscription in route:
                manager.register(_Plugin(self, subscription))

    def _send(self, jobs: list[Job]) -> None:
        self._managers[type(jobs[0].event)].hook.deliver(jobs={id(job.subscription): job for job in jobs})

    async def _release(self, *, busy: bool) -> None:
        del busy
