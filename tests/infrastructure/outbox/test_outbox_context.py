"""The caller's context is current in the handler: at once, after a retry, and after a restart."""

from __future__ import annotations

from contextvars import ContextVar
from datetime import timedelta

import pytest
from support.outbox_kit import AsyncRecorder, Background, Counted, Recorder
from support.waiting import until

from eventpact.infrastructure.dispatching.context import VariableCarrier
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.persistence.database import Database

REQUEST: ContextVar[str] = ContextVar("request")
CARRIER = VariableCarrier({"request": REQUEST})


class Seeing(Recorder):
    """A plain handler that notes the request that is current."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__(failures)
        self.seen: list[str | None] = []

    def handle(self, event: Counted) -> None:
        self.seen.append(REQUEST.get(None))
        super().handle(event)


class AsyncSeeing(AsyncRecorder):
    """The same, as an ``async def``."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__(failures)
        self.seen: list[str | None] = []

    async def handle(self, event: Counted) -> None:
        self.seen.append(REQUEST.get(None))
        await super().handle(event)


def entries(database: Database) -> int:
    return OutboxStore(database).backlog().entries


@pytest.mark.parametrize("resend", [None, timedelta(seconds=60)], ids=["here", "elsewhere"])
@pytest.mark.parametrize("inner", ["sync", "asyncio"])
def test_it_crosses_to_each_handler_and_to_its_retry(
    database: Database, background: Background, inner: str, resend: timedelta | None
) -> None:
    handlers = [Seeing(failures=1), AsyncSeeing()]
    options = {"context": CARRIER, "retries": 1, "backoff": 0.05, "resend": resend}
    outbox = background.outbox({Counted: handlers}, database, inner, **options)
    token = REQUEST.set("a request")
    try:
        outbox.dispatch(Counted(number=1))
    finally:
        REQUEST.reset(token)
    until(lambda: entries(database) == 0)
    assert [handler.seen for handler in handlers] == [["a request", "a request"], ["a request"]]


def test_it_crosses_a_restart_and_an_event_without_one_has_none(database: Database, background: Background) -> None:
    handler = Seeing()
    sender = background.outbox({Counted: handler}, database, relay=False, context=CARRIER)
    sender.dispatch(Counted(number=1))
    token = REQUEST.set("before")
    try:
        sender.dispatch(Counted(number=2))
    finally:
        REQUEST.reset(token)
    background.close(sender)
    background.outbox({Counted: handler}, database, "sync", context=CARRIER)
    until(lambda: entries(database) == 0)
    assert dict(zip(handler.numbers, handler.seen, strict=True)) == {1: None, 2: "before"}
