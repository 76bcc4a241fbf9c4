"""Events may be dispatched from an async endpoint, from a plain one (a thread of the pool), and from any thread."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest
from fastapi import FastAPI

from eventpact.domain.dispatcher import EventDispatcher
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher


@dataclass(frozen=True, kw_only=True)
class Happened(DomainEvent):
    place: str


class Plain:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def handle(self, event: Happened) -> None:
        self.seen.append(event.place)


class Async(Plain):
    async def handle(self, event: Happened) -> None:  # type: ignore[override]  # both kinds are handlers
        await asyncio.sleep(0)
        self.seen.append(event.place)


def app_for(dispatcher: EventDispatcher) -> FastAPI:
    app = FastAPI()

    @app.post("/async")
    async def from_async() -> None:
        dispatcher.dispatch(Happened(place="async def endpoint"))

    @app.post("/def")
    def from_def() -> None:
        dispatcher.dispatch(Happened(place="def endpoint"))

    return app


@pytest.mark.parametrize("build", [SyncEventDispatcher, AsyncioEventDispatcher])
async def test_both_kinds_of_handlers_receive_what_is_dispatched_anywhere(
    build: Callable[..., EventDispatcher],
) -> None:
    plain, async_ = Plain(), Async()
    dispatcher = build({Happened: [plain, async_]})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app_for(dispatcher)), base_url="http://test") as client:
        for path in ("/async", "/def"):
            assert (await client.post(path)).status_code == 200
    thread = threading.Thread(target=dispatcher.dispatch, args=(Happened(place="thread"),))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert await dispatcher.aclose() == ()
    assert sorted(plain.seen) == sorted(async_.seen) == ["async def endpoint", "def endpoint", "thread"]
