"""The embedded broker of a running server is killed: it is started again, and no sign-up is lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import redis
from support.services_kit import MailServer
from support.waiting import until

from eventpact_contracts.demo.processes import Server, Worker


@pytest.mark.slow
def test_a_killed_broker_is_started_again_and_each_sign_up_is_mailed(tmp_path: Path) -> None:
    with MailServer() as mail:
        settings = {
            "EVENTPACT_DATA_DIR": str(tmp_path / "data"),
            "EVENTPACT_SMTP": mail.url,
            "EVENTPACT_SMTP_STARTTLS": "false",
        }
        with Server(tmp_path, settings, "celery") as server:
            assert server.sign_up("before@example.com")[0] == 202
            with redis.Redis(unix_socket_path=str(tmp_path / "data" / "broker" / "valkey.sock")) as client:
                pid = client.info("server")["process_id"]
            os.kill(pid, signal.SIGKILL)
            until(lambda: server.request("GET", "/health/ready")[0] == 200, 60)
            assert server.sign_up("after@example.com")[0] == 202
            with Worker(tmp_path, settings):
                until(lambda: {"before@example.com", "after@example.com"} <= {to for to, _ in mail.mails}, 60)
    assert "the embedded broker died, and is started again" in (tmp_path / "serve.log").read_text()
