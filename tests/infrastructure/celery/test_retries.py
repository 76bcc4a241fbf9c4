"""Which failures of a mail are tried again, how often and how late, with a real worker and a real mail server."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import signals
from support.celery_kit import Named, Recorder, app_on, worker_of
from support.services_kit import MailServer
from support.waiting import until

from eventpact.domain.dispatcher import FailedDelivery
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher
from eventpact.infrastructure.mail import Messages, SmtpMailer

pytestmark = pytest.mark.slow

BACKOFF = 0.4
ADDRESS = "ada@example.com"


class Mailing:
    """A handler that mails the event, and keeps when it was called."""

    def __init__(self, url: str) -> None:
        self._mailer = SmtpMailer(url, Messages("a@example.com", "https://shop.example"), starttls=False, timeout=5)
        self.times: list[float] = []

    async def handle(self, event: Named) -> None:
        self.times.append(time.monotonic())
        await self._mailer.send(to=event.email, template="sign-up-repeated", context={})

    @property
    def waits(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


@contextmanager
def mailing(valkey: str, handler: object, failures: list[FailedDelivery], **more: Any) -> Iterator[Any]:
    app = app_on(valkey)
    options = {"retries": 3, "backoff": BACKOFF} | more
    dispatcher = CeleryEventDispatcher(app, {Named: handler}, on_failure=failures.append, **options)  # type: ignore[dict-item]
    try:
        with worker_of(app):
            yield dispatcher
    finally:
        asyncio.run(dispatcher.aclose())


@pytest.mark.parametrize("address", [ADDRESS, "a da@example.com", f"{ADDRESS}\nBcc: eve@example.com"])
def test_what_can_never_be_sent_is_tried_once_and_reported(valkey: str, address: str) -> None:
    failures: list[FailedDelivery] = []
    with MailServer() as mail:
        mail.refusal = "550 no such user here"
        mail.refuse[ADDRESS] = 99
        handler = Mailing(mail.url)
        with mailing(valkey, handler, failures) as dispatcher:
            dispatcher.dispatch(Named(email=address))
            until(lambda: failures)
    assert [(failed.attempts, type(failed.exception).__name__) for failed in failures] == [(1, "MailRejectedError")]
    assert len(handler.times) == 1


def test_what_is_refused_for_now_is_sent_after_waits_that_grow(valkey: str) -> None:
    failures: list[FailedDelivery] = []
    with MailServer() as mail:
        mail.refuse[ADDRESS] = 3
        handler = Mailing(mail.url)
        with mailing(valkey, handler, failures) as dispatcher:
            dispatcher.dispatch(Named(email=ADDRESS))
            until(lambda: mail.mails, 20)
    assert [recipient for recipient, _ in mail.mails] == [ADDRESS]
    assert failures == []
    for wait, longest in zip(handler.waits, (BACKOFF, 2 * BACKOFF, 4 * BACKOFF), strict=True):
        assert wait >= 0.75 * longest


def test_a_mail_server_that_is_away_is_tried_again_and_then_reported_with_every_attempt(valkey: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        handler = Mailing(f"smtp://127.0.0.1:{nobody.getsockname()[1]}")
        failures: list[FailedDelivery] = []
        with mailing(valkey, handler, failures, retries=2) as dispatcher:
            dispatcher.dispatch(Named(email=ADDRESS))
            until(lambda: failures, 20)
    assert [(failed.attempts, len(handler.times)) for failed in failures] == [(3, 3)]
    assert isinstance(failures[0].exception, OSError)


def test_waits_are_random_within_bounds_that_double_up_to_a_limit(valkey: str) -> None:
    """The wait stands in the message of the retry, so no clock of this machine blurs it."""
    waits: dict[int, list[float]] = {}

    def published(headers: dict[str, Any], **_: object) -> None:
        if headers["eta"]:
            wait = (datetime.fromisoformat(headers["eta"]) - datetime.now(UTC)).total_seconds()
            waits.setdefault(headers["retries"], []).append(wait)

    failures: list[FailedDelivery] = []
    signals.before_task_publish.connect(published)
    try:
        with mailing(valkey, Recorder(failures=999), failures, backoff=0.2, max_backoff=0.4) as dispatcher:
            for _ in range(12):
                dispatcher.dispatch(Named(email=ADDRESS))
            until(lambda: len(failures) == 12, 30)
    finally:
        signals.before_task_publish.disconnect(published)
    assert {retries: len(each) for retries, each in waits.items()} == {1: 12, 2: 12, 3: 12}
    for retries, longest in {1: 0.2, 2: 0.4, 3: 0.4}.items():
        # What passes between the making of the message and its sending makes them look shorter, never longer.
        assert max(waits[retries]) <= longest
        assert max(waits[retries]) > 0.75 * longest
        assert max(waits[retries]) - min(waits[retries]) > longest / 20
