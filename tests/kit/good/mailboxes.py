"""Dispatcher over mailboxes: each handler has a queue and a thread of its own, as an actor has."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from kit.good.base import Base, Job

from eventpact.domain.dispatcher import Delivery, FailureSink, Guarantees, Handlers, Ordering

__all__ = ["MailboxDispatcher"]


class _Mailbox:
    """A queue of the deliveries of one handler, and the thread that serves it."""

    def __init__(self, dispatcher: MailboxDispatcher) -> None:
        self._dispatcher = dispatcher
        self.queue: SimpleQueue[Job | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._serve, name="mailbox", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while (job := self.queue.get()) is not None:
            self._dispatcher._attempt(job)


class MailboxDispatcher(Base):
    """Lets a slow handler delay nobody but itself, and see its events in order, whatever their types."""

    guarantees = Guarantees(blocks_caller=False, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO)

    def __init__(self, handlers: Handlers, *, on_failure: FailureSink | None = None) -> None:
        super().__init__(handlers, on_failure=on_failure)
        # By identity, because handlers may be equal or unhashable; the table keeps them alive.
        self._mailboxes: dict[int, _Mailbox] = {}

    def _accept(self, jobs: list[Job]) -> None:
        names = [id(job.subscription.handler) for job in jobs]
        for name in names:  # first, because starting a thread may fail, and the event is refused as a whole then
            if name not in self._mailboxes:
                self._mailboxes[name] = _Mailbox(self)
        for name, job in zip(names, jobs, strict=True):
            self._mailboxes[name].queue.put(job)

    async def _release(self, *, busy: bool) -> None:
        for mailbox in self._mailboxes.values():
            mailbox.queue.put(None)
        for mailbox in self._mailboxes.values():
            if not busy:
                mailbox.thread.join()
