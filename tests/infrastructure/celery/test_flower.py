"""Flower watches the workers, lets nobody in without the password, and shows no address."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from support.application import SECRET
from support.services_kit import MailServer
from support.waiting import until

from eventpact_contracts.demo.processes import Server, Worker

pytestmark = pytest.mark.slow

pytest.importorskip("flower", reason="Flower is not installed; pip install 'eventpact[monitoring]'")

LOGIN = ("ops", "a-long-password")


@dataclass
class World:
    server: Server
    flower: httpx.Client
    folder: Path

    def tasks(self, state: str) -> list[dict[str, object]]:
        answer = self.flower.get("/api/tasks", auth=LOGIN)
        return [task for task in answer.json().values() if task["state"] == state] if answer.status_code == 200 else []


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    environment = {
        "EVENTPACT_DATA_DIR": str(tmp_path),
        "EVENTPACT_SECRET": SECRET,
        "FLOWER_BASIC_AUTH": ":".join(LOGIN),
    }
    arguments = ["-m", "celery", "-A", "eventpact.worker", "flower", "--address=127.0.0.1", f"--port={port}"]
    with ExitStack() as stack:
        mail = stack.enter_context(MailServer())
        mail.refusal = "550 no such user here"
        mail.refuse["refused@example.com"] = 1
        environment |= {"EVENTPACT_SMTP": mail.url, "EVENTPACT_SMTP_STARTTLS": "false"}
        server = stack.enter_context(Server(tmp_path, environment, "celery"))
        stack.enter_context(Worker(tmp_path, environment))
        log = stack.enter_context((tmp_path / "flower.log").open("wb"))
        process = subprocess.Popen(
            [sys.executable, *arguments], env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT
        )
        stack.callback(process.wait, 20)
        stack.callback(process.terminate)
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20))

        def answers() -> bool:
            assert process.poll() is None, (tmp_path / "flower.log").read_text()
            try:
                return client.get("/healthcheck").status_code == 200
            except httpx.TransportError:
                return False

        until(answers, 30)
        yield World(server, client, tmp_path)


def test_it_asks_for_the_password_and_shows_events_by_their_ids_alone(world: World) -> None:
    for path in ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks"):
        assert world.flower.get(path).status_code == 401
        assert world.flower.get(path, auth=("ops", "a-wrong-password")).status_code == 401
        assert world.flower.get(path, auth=LOGIN).status_code == 200
    assert world.flower.post("/api/worker/shutdown/any").status_code == 401

    # It asks the workers for their events when it has found them, and sees what is handled after that.
    until(lambda: "enabled by remote" in (world.folder / "worker.log").read_text(), 40)
    for address in ("taken@example.com", "refused@example.com"):
        assert world.server.sign_up(address)[0] == 202
    until(lambda: world.tasks("SUCCESS") and world.tasks("FAILURE"), 20)

    (failed,) = world.tasks("FAILURE")
    assert failed["name"] == "handle_AccountCreatedEvent"
    assert failed["args"] == f"(<event {failed['uuid']}>,)"
    assert "MailRejectedError" in str(failed["exception"])
    metrics = world.flower.get("/metrics").text
    for outcome in ("task-succeeded", "task-failed"):
        assert f'task="handle_AccountCreatedEvent",type="{outcome}"' in metrics
    shown = [
        world.flower.get(path, auth=LOGIN).text
        for path in ("/api/tasks", "/tasks", f"/task/{failed['uuid']}", "/api/workers?refresh=true", "/metrics")
    ]
    for text in (*shown, (world.folder / "flower.log").read_text()):
        assert "example.com" not in text
        assert SECRET not in text
