"""GET /metrics tells what was accepted, settled, failed and waits; it tells nothing of anybody."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.application import Client, mails_in, running, settings_for
from support.celery_kit import worker_of
from support.waiting import until

from eventpact.bootstrap import build_worker
from eventpact.domain.dispatcher import DispatchError
from eventpact.domain.events import AccountCreatedEvent
from eventpact.infrastructure.monitoring.metrics import Metrics, Stock

Sample = tuple[str, tuple[str, ...]]
ACCEPTED = ("eventpact_events_accepted_total", ("AccountCreatedEvent",))
SUCCEEDED = ("eventpact_deliveries_settled_total", ("AccountCreatedEvent", "succeeded"))
FAILED = ("eventpact_deliveries_settled_total", ("AccountCreatedEvent", "failed"))
UP = ("eventpact_database_up", ())
KEPT = ("eventpact_failed_deliveries", ())
PENDING = ("eventpact_outbox_pending", ())
OLDEST = ("eventpact_outbox_oldest_seconds", ())


async def scrape(client: Client) -> dict[Sample, float]:
    """Every sample, by its name and the values of its labels, in the order of their names."""
    answer = await client.http.get("/metrics")
    assert answer.status_code == 200
    assert "@" not in answer.text
    assert "example.com" not in answer.text
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


async def scrape_until(client: Client, **wanted: float) -> dict[Sample, float]:
    async with asyncio.timeout(20):
        while True:
            samples = await scrape(client)
            if all(samples[globals()[name]] == value for name, value in wanted.items()):
                return samples
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("outbox", [True, False])
@pytest.mark.parametrize("dispatcher", ["sync", "asyncio"])
async def test_what_is_accepted_and_settled_in_this_process_is_counted(
    tmp_path: Path, dispatcher: str, outbox: bool
) -> None:
    async with running(settings_for(tmp_path, dispatcher=dispatcher, outbox=outbox, retries=0)) as client:
        before = await scrape(client)
        assert (before[ACCEPTED], before[SUCCEEDED], before[FAILED], before[UP], before[KEPT]) == (0, 0, 0, 1, 0)
        await client.sign_up()
        samples = await scrape_until(client, SUCCEEDED=1)
        assert (samples[ACCEPTED], samples[FAILED], samples[KEPT]) == (1, 0, 0)
        for mail in (tmp_path / "mail").iterdir():
            mail.unlink()
        (tmp_path / "mail").rmdir()
        await client.sign_up("grace@example.com")
        samples = await scrape_until(client, KEPT=1, FAILED=1)
        assert (samples[ACCEPTED], samples[SUCCEEDED]) == (2, 1)
        assert (PENDING in samples, OLDEST in samples) == (outbox, outbox)


@pytest.mark.parametrize("version", ["abc", "1..0", "9" * 5000, ".", "-1", "99"])
async def test_whatever_version_is_asked_for_an_answer_comes(tmp_path: Path, version: str) -> None:
    async with running(settings_for(tmp_path, dispatcher="sync")) as client:
        for media_type in ("text/plain", "application/openmetrics-text"):
            accept = f"{media_type}; version={version}"
            answer = await client.http.get("/metrics", headers={"Accept": accept})
            assert answer.status_code == 200


async def test_what_is_rolled_back_was_not_accepted_and_what_is_refused_is_told_with_its_error(tmp_path: Path) -> None:
    event = AccountCreatedEvent(account_id="1", email="ada@example.com")
    async with running(settings_for(tmp_path, dispatcher="asyncio")) as client:
        application = client.application

        def change_ones_mind() -> None:
            with application.database.transaction():
                application.dispatcher.dispatch(event)
                raise KeyError

        with pytest.raises(KeyError):
            change_ones_mind()
        assert (await scrape(client))[ACCEPTED] == 0
        await application.dispatcher.aclose()
        with pytest.raises(DispatchError):
            application.dispatcher.dispatch(event)
        samples = await scrape(client)
        assert samples[ACCEPTED] == 0
        assert samples["eventpact_events_refused_total", ("DispatcherClosedError", "AccountCreatedEvent")] == 1


async def test_with_the_database_away_it_answers_with_what_the_process_has_counted(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, dispatcher="asyncio")) as client:
        await client.sign_up()
        await scrape_until(client, SUCCEEDED=1)
        with client.application.database.transaction() as connection:
            connection.exec_driver_sql("ALTER TABLE failed_deliveries RENAME TO gone")
        samples = await scrape(client)
        assert (samples[ACCEPTED], samples[SUCCEEDED], samples[UP]) == (1, 1, 0)
        assert not {KEPT, PENDING, OLDEST} & samples.keys()
        with client.application.database.transaction() as connection:
            connection.exec_driver_sql("ALTER TABLE gone RENAME TO failed_deliveries")
        assert (await scrape(client))[UP] == 1


@pytest.mark.slow
def test_a_database_that_does_not_answer_holds_up_no_scrape_for_long() -> None:
    thawed = threading.Event()
    asked: list[str] = []

    def take_stock() -> Stock:
        asked.append(threading.current_thread().name)
        assert thawed.wait(30)
        return Stock(failed=7)

    metrics = Metrics([AccountCreatedEvent], take_stock, settles=True)
    metrics.accepted(AccountCreatedEvent(account_id="1", email="ada@example.com"))
    for _ in range(2):
        text = metrics.expose("")[0].decode()
        assert "eventpact_database_up 0.0" in text
        assert 'eventpact_events_accepted_total{event="AccountCreatedEvent"} 1.0' in text
        assert "eventpact_failed_deliveries" not in text
    assert len(asked) == 1  # the second did not ask again
    thawed.set()
    until(lambda: "eventpact_failed_deliveries 7.0" in metrics.expose("")[0].decode())


async def test_with_celery_nothing_is_told_of_what_workers_settle(tmp_path: Path, valkey: str) -> None:
    settings = settings_for(tmp_path, dispatcher="celery", broker=valkey, celery_queue=f"metrics-{tmp_path.name}")
    async with running(settings) as client:
        await client.sign_up()
        samples = await scrape(client)
        assert samples[ACCEPTED] == samples[PENDING] == 1
        waited = samples[OLDEST]
        assert (await scrape(client))[OLDEST] > waited > 0
        app, dispatcher, parts = await asyncio.to_thread(build_worker, settings)
        with worker_of(app):
            await asyncio.to_thread(until, lambda: mails_in(tmp_path))
            samples = await scrape_until(client, PENDING=0)
        await dispatcher.aclose()
        parts.database.close()
        assert not [name for name, _ in samples if "settled" in name]


async def test_applications_in_one_process_count_by_themselves(tmp_path: Path) -> None:
    one, other = settings_for(tmp_path / "one", dispatcher="sync"), settings_for(tmp_path / "other", dispatcher="sync")
    async with running(one) as busy, running(other) as idle:
        await busy.sign_up()
        assert (await scrape(busy))[SUCCEEDED] == 1
        assert (await scrape(idle))[SUCCEEDED] == 0


async def test_it_can_be_switched_off_and_is_no_part_of_the_api(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, metrics=False)) as client:
        assert client.application.metrics is None
        assert (await client.http.get("/metrics")).status_code == 404
    async with running(settings_for(tmp_path)) as client:
        schema: dict[str, Any] = (await client.http.get("/openapi.json")).json()
        assert "/metrics" not in schema["paths"]


async def test_prometheus_gets_the_format_that_it_asks_for(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path)) as client:
        answer = await client.http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")
