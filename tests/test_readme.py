"""What the README says can be pasted, and is what the last run said."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "src" / "eventpact" / "README.md").read_text(encoding="utf-8")


PROGRAMS = {
    block.split("\n", 1)[0].removeprefix("# "): block
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.S)
    if block.startswith("# ")
}


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with the programs of the README."""
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_its_first_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    first = re.findall(r"```python\n(.*?)```", README, flags=re.S)[0]
    exec(compile(first, "README.md", "exec"), {})
    assert capsys.readouterr().out == "Welcome, test@example.com!\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["on_the_loop.py", "with_outbox.py"])
def test_its_programs_deliver_an_event_of_ones_own(name: str, programs: Path) -> None:
    done = subprocess.run([sys.executable, name], cwd=programs, capture_output=True, text=True, timeout=60)
    assert done.stdout == "invoice for A-1: 9.90\n", done.stderr


@pytest.mark.slow
def test_its_celery_app_delivers_an_event_of_ones_own(programs: Path, valkey: str) -> None:
    environment = os.environ | {"BROKER": valkey, "PYTHONUNBUFFERED": "1"}
    publish = "import on_celery, shop; on_celery.dispatcher.dispatch(shop.ORDER)"
    subprocess.run([sys.executable, "-c", publish], cwd=programs, env=environment, check=True, timeout=60)
    with subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "on_celery", "worker", "--pool", "solo"],
        cwd=programs,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # Celery writes to its log what a handler prints
        text=True,
    ) as worker:
        assert worker.stdout is not None
        try:
            assert any("invoice for A-1: 9.90" in line for line in worker.stdout)
        finally:
            worker.terminate()


def test_its_tables_are_those_of_the_last_run() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "readme.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, f"run python benchmarks/readme.py\n{done.stderr}"


def test_the_verdicts_it_shows_are_about_the_laws_and_the_guarantees_of_today() -> None:
    from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
    from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
    from eventpact_contracts.laws import LAWS

    verdicts = json.loads((ROOT / "benchmarks" / "verdicts.json").read_text(encoding="utf-8"))["dispatchers"]
    assert [verdict["dispatcher"] for verdict in verdicts] == ["sync", "asyncio", "celery", "outbox"]
    for verdict in verdicts:
        assert [(law["id"], law["title"]) for law in verdict["laws"]] == [(law.id, law.title) for law in LAWS]
        # Nobody has seen the outbox change the order, and it promises none: a hint, not a fault.
        allowed = {"upheld", "absent, as declared"} | ({"unclaimed"} if verdict["dispatcher"] == "outbox" else set())
        assert {law["outcome"] for law in verdict["laws"]} <= allowed
        assert all(law["observations"] for law in verdict["laws"])
    for verdict, dispatcher in zip(verdicts, (SyncEventDispatcher, AsyncioEventDispatcher), strict=False):
        assert verdict["guarantees"] == dispatcher.guarantees.to_dict()


@pytest.mark.parametrize(("broker", "column"), [("redis://127.0.0.1", 3), ("amqp://127.0.0.1", 4)])
@pytest.mark.parametrize("role", ["web", "worker"])
def test_its_table_of_celery_s_settings_has_each_with_what_it_is_and_why(broker: str, column: int, role: str) -> None:
    from support.celery_kit import Broker

    from eventpact.infrastructure.celery.app import choices

    table = {row.split("`")[1]: row.split("|") for row in re.findall(r"^\| `\w.*\|$", REFERENCE, re.M)}
    for choice in choices(Broker(broker, celery_queue="eventpact"), role):  # type: ignore[arg-type]
        row = table[choice.name]
        assert role in row[2]
        assert choice.name == "task_queues" or f"`{choice.value}`" == row[column].strip()
        assert choice.reason in row[5]


def test_the_reference_tells_of_every_metric() -> None:
    from eventpact.infrastructure.monitoring.metrics import Metrics, Stock

    text = (ROOT / "src" / "eventpact" / "README.md").read_text().replace("…_", "eventpact_events_")
    shown = Metrics({}, lambda: Stock(failed=0, pending=0), settles=True).expose("")[0].decode()
    names = set(re.findall(r"^# HELP (eventpact_\w+)(?<!_created) ", shown, re.MULTILINE))
    assert len(names) > 6
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_every_command_that_it_names_exists() -> None:
    from eventpact.cli.main import build_parser

    named = set(re.findall(r"eventpact (serve|worker|migrate|demo|verify|failed|relay)\b", README))
    known = build_parser().format_help()
    assert named
    assert all(re.search(rf"\b{name}\b", known) for name in named)


def test_every_environment_of_tox_that_it_names_exists() -> None:
    environments = re.findall(r"^\[testenv:(\w+)\]", (ROOT / "tox.ini").read_text(), flags=re.M)
    assert set(re.findall(r"tox -e (\w+)", README)) <= set(environments)
