"""Brokers and databases for tests: a real Valkey of the wheel everywhere, the services that the environment names."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from support.outbox_kit import Background

    from eventpact.infrastructure.persistence.database import Database


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey server that lives as long as the test session."""
    from eventpact.infrastructure.celery.embedded_broker import EmbeddedBroker

    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker.url


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[object]:
    """A Valkey server for one test, which may stop it, freeze it and start it again."""
    from eventpact.infrastructure.celery.embedded_broker import EmbeddedBroker

    with EmbeddedBroker(tmp_path / "own-broker") as broker:
        yield broker


@pytest.fixture(scope="session")
def redis_service() -> str:
    """The URL of a real Redis."""
    return _service("EVENTPACT_TEST_REDIS", 6379)


@pytest.fixture(scope="session")
def rabbitmq_service() -> str:
    """The URL of a real RabbitMQ."""
    return _service("EVENTPACT_TEST_RABBITMQ", 5672)


@pytest.fixture(scope="session")
def postgres_service() -> str:
    """The URL of a real PostgreSQL."""
    return _service("EVENTPACT_TEST_POSTGRES", 5432)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database: a file, or a schema of its own in a real PostgreSQL."""
    from eventpact.infrastructure.persistence.database import Database

    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path / 'test.db'}"
        else:
            url = stack.enter_context(_schema(request.getfixturevalue("postgres_service")))
        database = Database(url)
        stack.callback(database.close)
        database.migrate()
        yield database


@contextmanager
def _schema(service: str) -> Iterator[str]:
    import sqlalchemy as sa

    url = service.replace("postgresql://", "postgresql+psycopg://", 1)
    schema = f"eventpact_{uuid4().hex}"
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with admin.connect() as connection:
            connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
        yield f"{url}?options=-csearch_path%3D{schema}"
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
        admin.dispose()


@pytest.fixture
def background() -> Iterator[Background]:
    """Dispatchers on a loop in another thread."""
    from support.outbox_kit import Background

    background = Background()
    yield background
    background.end()


def _service(variable: str, port: int) -> str:
    """Skip where no service is named or none answers; in CI, one that is named must answer."""
    url = os.environ.get(variable)
    if not url:
        pytest.skip(f"{variable} names no service")
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or port), timeout=5).close()
    except OSError as error:
        message = f"{variable} names a service that does not answer: {error}"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(message)
        pytest.skip(message)
    return url


_SLOW = {
    "test_celery_outage",
    "test_celery_publishing",
    "test_cli",
    "test_contract_celery",
    "test_contract_outbox",
    "test_contract_thread_pool",
    "test_demo",
    "test_embedded_broker",
    "test_failed_retry",
    "test_fault_matrix",
    "test_figures",
    "test_flower",
    "test_fuzz",
    "test_gallery",
    "test_harness",
    "test_interchangeable",
    "test_logs",
    "test_plugin",
    "test_retries",
    "test_stranger",
    "test_verify",
}
"""Modules that take most of the time of a run; every interpreter runs the rest, Python 3.11 runs all."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in _SLOW:
            item.add_marker(pytest.mark.slow)
