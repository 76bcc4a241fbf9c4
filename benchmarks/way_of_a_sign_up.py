"""List the modules of the package that one sign-up touches: ``python benchmarks/way_of_a_sign_up.py asyncio``.

One real sign-up, from ``POST /accounts`` to the mail, after another one that warms everything up. With ``celery`` a
worker of this process handles the event, on an embedded Valkey.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx

from eventpact.bootstrap import build_worker
from eventpact.infrastructure.http.main import create_app
from eventpact.settings import Settings

MAIL_SECONDS: Final = 30
touched: dict[str, None] = {}


def record(frame: Any, event: str, _: object) -> None:
    """Profile function: note the module whose function is called."""
    if event == "call" and (module := frame.f_globals.get("__name__", "")).startswith("eventpact."):
        touched.setdefault(module)


def count(mails: Path) -> int:
    """Count the mails in the folder."""
    return sum(1 for _ in mails.glob("*.eml"))


async def sign_up(client: httpx.AsyncClient, mails: Path, name: str) -> None:
    """Sign up and wait for the mail."""
    before = count(mails)
    answer = await client.post("/accounts", json={"email": f"{name}@example.com", "display_name": "Ada"})
    answer.raise_for_status()
    async with asyncio.timeout(MAIL_SECONDS):
        while count(mails) == before:
            await asyncio.sleep(0.01)  # between two looks; the deadline is above


async def main(dispatcher: str) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        given: dict[str, Any] = {"dispatcher": dispatcher, "data_dir": Path(folder) / "data", "secret": "s" * 32}
        if dispatcher == "celery":
            from celery.contrib.testing.worker import start_worker

            from eventpact.infrastructure.celery.embedded_broker import EmbeddedBroker

            given["broker"] = stack.enter_context(EmbeddedBroker(Path(folder) / "broker")).url
            worker = build_worker(Settings(_env_file=None, **given))
            stack.enter_context(start_worker(worker[0], pool="solo", perform_ping_check=False, shutdown_timeout=5))
        app = create_app(Settings(_env_file=None, **given))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
        async with app.router.lifespan_context(app), client:
            await sign_up(client, given["data_dir"] / "mail", "first")
            backlog = app.state.application.counts.get("outbox", lambda: 0)
            while backlog():  # settling the first one is no part of the second
                await asyncio.sleep(0.01)  # between two looks
            touched.clear()
            await sign_up(client, given["data_dir"] / "mail", "second")
            way = [*touched]
        sys.setprofile(None)
        threading.setprofile(None)
        print(len(way), *way, sep="\n")


if __name__ == "__main__":
    threading.setprofile(record)
    sys.setprofile(record)
    asyncio.run(main(*sys.argv[1:]))
