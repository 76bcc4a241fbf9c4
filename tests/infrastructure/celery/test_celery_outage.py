"""A server whose broker, a process of its own, is stopped, frozen and comes back."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import redis
from support.application import SECRET
from support.waiting import until

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
            process = broker.pid  # a frozen one is not asked
            os.kill(process, signal.SIGSTOP)
            is_refused_in_time(server)
            is_refused_in_time(server)
            os.kill(process, signal.SIGCONT)
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


class Starting(Worker):
    """A worker that is not waited for: while its broker is full, it does not come up."""

    def is_ready(self) -> bool:
        return True


@pytest.mark.timeout(240)
def test_a_worker_outlives_a_full_broker_and_handles_what_waits_when_there_is_room(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "broker", port=0) as broker, redis.Redis.from_url(broker.url) as client:
        environment = {
            "EVENTPACT_DATA_DIR": str(tmp_path),
            "EVENTPACT_BROKER": broker.url,
            "EVENTPACT_SECRET": SECRET,
            # A message that Redis has handed over, and did not let the worker register, is published again.
            "EVENTPACT_OUTBOX_RESEND": "2",
        }
        with Server(tmp_path, environment, "celery") as server:
            for number in range(5):
                assert server.sign_up(f"ada{number}@example.com")[0] == 202
            until(lambda: client.llen("eventpact") == 5, 30)
            client.config_set("maxmemory", 1)
            with Starting(tmp_path, environment) as worker:
                until(lambda: "maxmemory" in (tmp_path / "worker.log").read_text(), 90)
                time.sleep(5)  # it has time to end, or to fill its log
                assert worker.is_running
                assert (tmp_path / "worker.log").stat().st_size < 60_000
                client.config_set("maxmemory", 0)
                until(lambda: len(list((tmp_path / "mail").glob("*.eml"))) == 5, 60)
                assert worker.is_running
