"""X1: one history leaves the same accounts, the same live codes and the same mails, whichever dispatcher carried it."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from support.application import SECRET, Client, running, settings_for
from support.celery_kit import worker_of
from support.waiting import until

from eventpact.application.ports import MailRejectedError
from eventpact.bootstrap import build_worker
from eventpact.domain.account import CodeMaker

pytestmark = pytest.mark.slow

PEOPLE = ("ada@example.com", "bob@example.com")
STEPS = ("sign up", "resend", "redeem", "guess wrong", "let the next mail fail")
WRONG = "22222222"

histories = st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(PEOPLE)), min_size=3, max_size=12)
History = list[tuple[str, str]]


class Post:
    """A mailer that keeps what is sent, and refuses a mail for good when it is told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []
        self.attempts = 0
        self._refused: Counter[str] = Counter()

    def refuse_next(self, address: str) -> None:
        self._refused[address] += 1

    def last_code(self, address: str) -> str:
        return next((code for to, _, code in reversed(self.sent) if to == address and code), WRONG)

    async def send(self, *, to: str, template: str, context: Mapping[str, str]) -> None:
        try:
            if self._refused[to]:
                self._refused[to] -= 1
                raise MailRejectedError("refused")
            self.sent.append((to, template, context.get("code", "")))
        finally:
            self.attempts += 1


@contextmanager
def worker(celery_settings: Any) -> Iterator[None]:
    app, dispatcher, parts = build_worker(celery_settings)
    try:
        with worker_of(app):
            yield
    finally:
        asyncio.run(dispatcher.aclose())
        parts.database.close()


async def step(client: Client, post: Post, what: str, address: str) -> None:
    if what == "sign up":
        assert (await client.sign_up(address)).status_code == 202
    elif what == "resend":
        assert (await client.resend(address)).status_code == 202
    elif what == "redeem":
        await client.verify(post.last_code(address), address)
    elif what == "guess wrong":
        await client.verify(WRONG, address)
    else:
        post.refuse_next(address)


def live(dispatcher: str, history: History, broker: str, waits: list[int]) -> tuple[object, list[int]]:
    """Live through the history; returns the state that it leaves, and how many mails were tried after each step."""
    post = Post()
    tried: list[int] = []

    async def play(client: Client) -> object:
        for number, (what, address) in enumerate(history):
            await step(client, post, what, address)
            if waits:
                goal = waits[number]
                await asyncio.to_thread(until, lambda goal=goal: post.attempts >= goal)
            tried.append(post.attempts)
        return state_of(client, post)

    with tempfile.TemporaryDirectory() as folder, patch("eventpact.bootstrap._mailer", lambda _: post):
        chosen = settings_for(
            Path(folder),
            dispatcher=dispatcher,
            broker=broker,
            resend_interval=0,
            celery_queue=f"x1-{Path(folder).name}",
        )

        async def whole() -> object:
            async with running(chosen) as client:
                return await play(client)

        with worker(chosen) if dispatcher == "celery" else nullcontext():
            return asyncio.run(whole()), tried


def state_of(client: Client, post: Post) -> object:
    maker = CodeMaker(SECRET.encode())
    with client.application.database.transaction() as connection:
        accounts = connection.exec_driver_sql("SELECT account_id, email, display_name, verified FROM accounts").all()
        codes = {
            row[0]: row[1:]
            for row in connection.exec_driver_sql(
                "SELECT account_id, digest, attempts, redeemed_at IS NULL FROM verification_codes"
            )
        }
    return {
        "accounts": {(row[1], row[2], bool(row[3])) for row in accounts},
        "codes": {
            row[1]: (codes[row[0]][0] == maker.digest(row[0], post.last_code(row[1])), *codes[row[0]][1:])
            for row in accounts
            if row[0] in codes
        },
        "mails": Counter((to, template) for to, template, _ in post.sent),
    }


def check(dispatcher: str, history: History, broker: str) -> None:
    expected, tried = live("sync", history, broker, [])
    got, _ = live(dispatcher, history, broker, tried)
    assert got == expected


@settings(max_examples=25, database=None)
@seed(1)
@given(histories)
def test_x1_asyncio_leaves_the_state_that_sync_does(history: History) -> None:
    check("asyncio", history, "redis://127.0.0.1:1")


@settings(max_examples=6, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@seed(1)
@given(history=histories)
def test_x1_celery_leaves_the_state_that_sync_does(valkey: str, history: History) -> None:
    check("celery", history, valkey)
