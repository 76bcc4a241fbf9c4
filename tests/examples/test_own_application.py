"""The example of one's own application does what it says, on real engines."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.waiting import until

from eventpact.infrastructure.celery.embedded_broker import EmbeddedBroker

HERE = Path(__file__).parent

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    with EmbeddedBroker(tmp_path / "broker") as broker:
        yield os.environ | {"BROKER": broker.url, "DATABASE": f"sqlite:///{tmp_path / 'shop.db'}"}


def run(engine: str, environment: dict[str, str], cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, HERE / "own_application.py", engine],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def worker(environment: dict[str, str], cwd: Path, module: str = "own_worker") -> Iterator[Path]:
    """A Celery worker of the application, started by Celery's own command, and its log."""
    log = cwd / "worker.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "--app", module, "worker", "--concurrency", "1"],
            env=environment | {"PYTHONPATH": os.pathsep.join([str(HERE), environment.get("PYTHONPATH", "")])},
            cwd=cwd,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            yield log
        finally:
            process.terminate()
            process.wait(60)


def test_asyncio_handles_reports_and_returns_nothing_undelivered(tmp_path: Path, environment: dict[str, str]) -> None:
    assert set(run("asyncio", environment, tmp_path).splitlines()) == {
        "receipt for order-0: 12.50",
        "receipt for order-1: 9999",
        "order-0 is packed",
        "Warehouse failed: too large to be packed",
        "0 undelivered",
    }


@pytest.mark.parametrize("engine", ["celery", "outbox"])
def test_a_worker_of_one_s_own_celery_app_handles_and_reports(
    tmp_path: Path, environment: dict[str, str], engine: str
) -> None:
    if engine == "outbox":
        environment["OUTBOX"] = "yes"  # for the worker; the program goes by its argument
    orders = ["order-0", "order-2"] if engine == "outbox" else ["order-0"]
    expected = [
        *(f"receipt for {order}" for order in orders),
        *(f"{order} is packed" for order in orders),
        "receipt for order-1: 9999",
        "Warehouse failed: too large to be packed",
    ]
    with worker(environment, tmp_path) as log:
        assert run(engine, environment, tmp_path).splitlines() == ["0 undelivered"]
        until(lambda: all(line in log.read_text() for line in expected), 60)
    assert all(log.read_text().count(line) == 1 for line in expected)


def test_a_worker_with_handlers_of_other_names_says_so(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "renamed.py").write_text(
        "from own_application import Receipt, OrderPlaced, app, database, with_celery, on_failure\n"
        "from eventpact.infrastructure.outbox.store import OutboxStore\n"
        "from eventpact.infrastructure.outbox_dispatcher import OutboxEventDispatcher\n"
        "from datetime import timedelta\n"
        "class Other(Receipt): pass\n"
        "database.migrate()\n"
        "dispatcher = OutboxEventDispatcher({OrderPlaced: Other()}, with_celery, OutboxStore(database),"
        " resend=timedelta(seconds=30), relay=False)\n"
    )
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), str(tmp_path)])
    with worker(environment, tmp_path, "renamed") as log:
        program = subprocess.Popen(
            [sys.executable, HERE / "own_application.py", "outbox"], env=environment, stdout=subprocess.DEVNULL
        )
        try:
            until(lambda: "is not handled. Do both processes define" in log.read_text(), 60)
        finally:
            program.kill()
            program.wait()
    assert "receipt" not in log.read_text()
