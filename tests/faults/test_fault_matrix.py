"""The fault matrix keeps its own promises: it finds a loss, names what it could not run, and a few cells of it hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from faults.accounts import Answer, Balance, Ledger
from faults.cell import Cell, run_cell
from faults.cli import main
from faults.columns import COLUMNS
from faults.matrix import Place, UnavailableError, places, run, service
from faults.report import table, totals
from faults.world import Options

PLACES = {place.name: place for place in places()}
BALANCE = Balance(accepted=3, refused=1, in_doubt=0, delivered=3, failed=0, lost=0, duplicated=1, phantoms=0)
CELL = Cell("web-after-commit", "asyncio+outbox", 7, True, kills=2, balance=BALANCE, recovery=1.5)


def played(place: Place, **how: object) -> Cell:
    return run_cell(place.fault, place.column, 1, Options(**({"freeze": 2.0, "patience": 45.0} | how)))  # type: ignore[arg-type]


def test_a_run_without_the_sweeper_is_found_to_lose() -> None:
    """The canary: the outbox writes everything down, and nobody takes over what a killed server left."""
    cell = played(PLACES["asyncio+outbox/web-mid-handler"], sweeper=False, patience=5.0)
    assert cell.balance is not None
    assert cell.balance.lost > 0
    assert any("lost" in complaint for complaint in cell.complaints)


@pytest.mark.parametrize(
    "name",
    [
        "sync+outbox/web-after-commit",
        "asyncio+outbox/web-while-dispatching",
        "celery-redis+outbox/worker-stop-publish-kill",
        "celery-redis+outbox/broker-kill",
    ],
)
def test_what_promises_at_least_once_loses_nothing(name: str) -> None:
    cell = played(PLACES[name])
    assert cell.complaints == []
    assert cell.kills
    assert cell.balance is not None
    assert cell.balance.accepted


@pytest.mark.parametrize("name", ["asyncio+outbox/smtp-unreachable", "celery-redis+outbox/pair-worker-without-outbox"])
def test_a_fault_that_passes_or_is_mended_leaves_no_event_behind(name: str) -> None:
    cell = played(PLACES[name], patience=90.0)
    assert cell.complaints == []
    assert cell.balance is not None
    assert cell.balance.delivered == cell.balance.accepted > 0


@pytest.mark.services
def test_celery_on_rabbitmq_alone_loses_nothing_with_its_workers(rabbitmq_service: str) -> None:
    assert played(PLACES["celery-rabbitmq/worker-group-kill"], rabbitmq=rabbitmq_service).complaints == []


def test_the_columns_promise_what_their_dispatchers_declare() -> None:
    assert [name for name, column in COLUMNS.items() if column.promises] == [
        "sync+outbox",
        "asyncio+outbox",
        "celery-redis+outbox",
        "celery-rabbitmq",
        "celery-rabbitmq+outbox",
    ]


def test_every_sign_up_is_accounted_for() -> None:
    ledger = Ledger()
    for address, answer in (
        ("mailed", Answer.ACCEPTED),
        ("twice", Answer.ACCEPTED),
        ("kept", Answer.ACCEPTED),
        ("gone", Answer.ACCEPTED),
        ("unasked", Answer.REFUSED),
        ("not mailed", Answer.REFUSED),
        ("committed", Answer.IN_DOUBT),
        ("rolled back", Answer.IN_DOUBT),
    ):
        ledger.write(address, answer, 0.1)
    mails = [("mailed", "A"), ("twice", "B"), ("twice", "B"), ("unasked", "C")]
    before = ledger.balance(mails, failed={"kept"})
    assert before == Balance(accepted=4, refused=2, in_doubt=2, delivered=2, failed=1, lost=1, duplicated=1, phantoms=1)
    ledger.resolve(committed={"committed"})
    after = ledger.balance(mails, failed={"kept"})
    assert (after.accepted, after.refused, after.in_doubt, after.lost) == (5, 3, 0, 2)


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        (replace(CELL, balance=replace(BALANCE, lost=2)), "2 accepted event(s) lost"),
        (replace(CELL, balance=replace(BALANCE, phantoms=1)), "1 mail(s) of refused sign-ups"),
        (replace(CELL, wrong_codes=1), "1 mailed code(s) that do not verify"),
        (replace(CELL, longest_dispatch={"CeleryEventDispatcher": 2.5}), "a dispatch took 2.50 s"),
        (replace(CELL, findings=("the server logs 40 KB a second",)), "the server logs 40 KB a second"),
        (
            replace(CELL, promised=False, loud=True, balance=replace(BALANCE, lost=1)),
            "1 accepted event(s) lost",
        ),
        (replace(CELL, balance=None, reason="the server did not come up"), "the server did not come up"),
    ],
)
def test_what_is_wrong_is_said_with_the_command_that_shows_it_again(cell: Cell, complaint: str) -> None:
    assert cell.complaints == [complaint]
    text = totals([cell], "tox -e faults --")
    assert f"VIOLATED asyncio+outbox/web-after-commit: {complaint}" in text
    assert "tox -e faults -- --seed 7 --cell asyncio+outbox/web-after-commit" in text


def test_what_is_lost_without_a_promise_is_told_and_is_no_violation() -> None:
    cell = replace(CELL, column="asyncio", promised=False, recovery=None, balance=replace(BALANCE, lost=2))
    assert cell.complaints == []
    assert "2/1/never" in table([cell])
    assert "asyncio: 2 of 3 accepted lost" in totals([cell], "")


def test_what_this_machine_lacks_is_told_as_not_run() -> None:
    place = PLACES["celery-rabbitmq/worker-group-kill"]
    (cell,) = run([place], Options(), seed=0, kills=1, jobs=1, seconds=60, say=lambda text: None)
    assert cell.not_run
    assert "not run" in table([cell])
    assert "NOT RUN celery-rabbitmq/worker-group-kill: EVENTPACT_TEST_RABBITMQ" in totals([cell], "")


def test_in_ci_a_service_that_is_named_must_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTPACT_TEST_RABBITMQ", "amqp://127.0.0.1:1//")
    monkeypatch.setenv("CI", "")
    assert service("EVENTPACT_TEST_RABBITMQ", 5672) is None
    monkeypatch.setenv("CI", "true")
    with pytest.raises(UnavailableError, match="does not answer"):
        service("EVENTPACT_TEST_RABBITMQ", 5672)


def test_the_command_lists_its_cells_and_refuses_what_it_does_not_know(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--list"]) == 0
    assert "celery-rabbitmq+outbox/worker-group-kill" in capsys.readouterr().out
    assert main(["--cell", "sync/nonsense"]) == 64
    with pytest.raises(SystemExit, match="64"):
        main(["--kills", "none"])


def test_one_cell_is_run_by_its_name_and_seed_and_written_down(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = tmp_path / "matrix.json"
    assert main(["--seed", "3", "--cell", "asyncio/web-before-commit", "--json", str(report)]) == 0
    assert "web-before-commit" in capsys.readouterr().out
    (cell,) = json.loads(report.read_text())["cells"]
    assert (cell["column"], cell["fault"], cell["seed"], cell["kills"]) == ("asyncio", "web-before-commit", 3, 1)
