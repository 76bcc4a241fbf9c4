"""A Celery app of one's own under Celery's own fixtures: a worker in this process, and no server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.contrib.pytest import celery_worker  # noqa: F401  # pytest-celery's own of this name starts a container
from support.celery_kit import AsyncRecorder, Named, Recorder
from support.waiting import until

from eventpact.domain.dispatcher import FailedDelivery
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher
from eventpact_contracts.subjects.celery import stop_worker

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def celery_config() -> dict[str, Any]:
    return {"broker_url": "memory://", "task_default_queue": "shop"}


@pytest.fixture(scope="session")
def celery_worker_parameters() -> dict[str, Any]:
    stop_worker()  # that of the contract suite: two in one process share Celery's event loop
    return {"perform_ping_check": False, "shutdown_timeout": 20}


@pytest.fixture
def failures() -> list[FailedDelivery]:
    return []


@pytest.fixture
def handlers() -> list[Recorder]:
    return [Recorder(), AsyncRecorder(failures=1), Recorder(failures=9)]


@pytest.fixture
def dispatcher(
    celery_app: Celery, handlers: list[Recorder], failures: list[FailedDelivery]
) -> Iterator[CeleryEventDispatcher]:
    """A dispatcher on the app of the fixture, built before its worker starts."""
    made = CeleryEventDispatcher(celery_app, {Named: handlers}, on_failure=failures.append, retries=1, backoff=0.01)
    yield made
    assert asyncio.run(made.aclose()) == ()


def test_a_worker_of_the_fixtures_delivers_retries_and_reports(
    dispatcher: CeleryEventDispatcher,
    celery_worker: object,  # noqa: F811
    handlers: list[Recorder],
    failures: list[FailedDelivery],
) -> None:
    dispatcher.dispatch(event := Named(email="ada@example.com"))
    until(lambda: failures)
    assert [len(handler.events) for handler in handlers] == [1, 2, 2]
    assert [(failure.event, failure.attempts) for failure in failures] == [(event, 2)]
