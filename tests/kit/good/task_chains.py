"""Dispatcher over a chain of tasks for each handler: the next delivery begins where the one before has ended."""

from __future__ import annotations

import asyncio
from collections import deque

from kit.good.base import Job
from kit.good.on_loop import OnLoop

from eventpact.domain.dispatcher import Delivery, FailureSink, Guarantees, Handlers, Ordering

__all__ = ["ChainDispatcher"]


class ChainDispatcher(OnLoop):
    """Keeps the order of events by handler: one delivery of a handler runs at a time, those of others beside it."""

    guarantees = Guarantees(blocks_caller=False, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        self._chains: dict[int, deque[Job]] = {}

    def _take(self, jobs: list[Job]) -> None:
        for job in jobs:
            chain = self._chains.setdefault(id(job.subscription.handler), deque())
            chain.append(job)
            if len(chain) == 1:
                self._begin_first(chain)

    def _begin_first(self, chain: deque[Job]) -> None:
        self._start(chain[0]).add_done_callback(lambda _: self._go_on(chain))

    def _go_on(self, chain: deque[Job]) -> None:
        chain.popleft()
        if chain and not asyncio.get_running_loop().is_closed() and not self._given_up:
            self._begin_first(chain)
