"""A server whose broker, a process of its own, is stopped, frozen and comes back."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from support.celery_kit import until

from eventpact.infrastructure.celery.embedded_broker import EmbeddedBroker
from eventpact_contracts.demo.processes import Server, Worker

pytestmark = pytest.mark.slow

SIGN_UP = {"email": "ada@example.com", "display_name": "Ada"}


def is_refused_in_time(server: Server) -> None:
    started = time.monotonic()
    status, body = server.request("POST", "/accounts", SIGN_UP)
    assert time.monotonic() - started < 3
    problem = json.loads(body)
    assert (status, problem["status"]) == (503, 503)
    assert "again" in problem["detail"]
    assert server.request("GET", "/health/live")[0] == 200


def test_a_sign_up_is_refused_in_time_and_can_be_made_again(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "broker")
    broker.start()
    environment = {
        "EVENTPACT_DATA_DIR": str(tmp_path),
        "EVENTPACT_BROKER": broker.url,
        "EVENTPACT_OUTBOX": "false",  # with an outbox, sign-ups are accepted all the same
        "TMPDIR": str(tmp_path),
    }
    try:
        with Server(tmp_path, environment, "celery") as server:
            os.kill(broker.pid, signal.SIGSTOP)
            is_refused_in_time(server)
            is_refused_in_time(server)
            os.kill(broker.pid, signal.SIGCONT)
            broker.stop()
            is_refused_in_time(server)
            assert server.request("GET", "/health/ready")[0] == 503
            broker.start()
            until(lambda: server.request("GET", "/health/ready")[0] == 200)
            assert server.request("POST", "/accounts", SIGN_UP)[0] == 202
            with Worker(tmp_path, environment):
                until(lambda: list((tmp_path / "mail").glob("*.eml")), 20)
    finally:
        broker.stop()
