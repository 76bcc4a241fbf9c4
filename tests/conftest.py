"""Brokers and databases for tests: a real Valkey of the wheel everywhere, the services that the environment names."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from support.outbox_kit import Background

    from eventpact.infrastructure.persistence.database import Database

_HERE = Path(__file__).resolve().parent

# On a busy machine an example that takes 200 ms says nothing about the code.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey server that lives as long as the test session."""
    from eventpact.infrastructure.celery.embedded_broker import EmbeddedBroker

    with EmbeddedBroker(tmp_path_factory.mktemp("broker"), port=0) as broker:
        yield broker.url


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[object]:
    """A Valkey server for one test, which may stop it, freeze it and start it again."""
    from eventpact.infrastructure.celery.embedded_broker import EmbeddedBroker

    with EmbeddedBroker(tmp_path / "own-broker", port=0) as broker:
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


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite database with today's tables, to be copied: to migrate one takes as long as many a test."""
    from eventpact.infrastructure.persistence.database import Database

    file = tmp_path_factory.mktemp("migrated") / "empty.db"
    database = Database(f"sqlite:///{file}")
    database.migrate()
    database.close()
    return file


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database: a file, or a schema of its own in a real PostgreSQL."""
    from eventpact.infrastructure.persistence.database import Database

    with ExitStack() as stack:
        if request.param == "sqlite":
            file = shutil.copyfile(request.getfixturevalue("migrated_file"), tmp_path / "test.db")
            database = Database(f"sqlite:///{file}")
        else:
            database = Database(stack.enter_context(_schema(request.getfixturevalue("postgres_service"))))
            database.migrate()
        stack.callback(database.close)
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


collect_ignore = [] if importlib.util.find_spec("schemathesis") else ["fuzz"]  # the group `fuzz` has it

_TIER = "not slow and not services"
_FEW_EXAMPLES = 10
_ENGINES = {"contract", "faults", "fuzz"}


def pytest_configure(config: pytest.Config) -> None:
    """Select the tier ``pytest`` where nothing else was asked for; tests/README.md names the tiers."""
    for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is signal.SIG_IGN:  # under nohup or in the background; what tests start would be so
            signal.signal(number, usual)
    if "MUTANT_UNDER_TEST" in os.environ:
        config.pluginmanager.import_plugin("mutation.isolation")
    if config.args_source is not pytest.Config.ArgsSource.ARGS and not config.option.markexpr:
        config.option.markexpr = _TIER
        config.option.eventpact_examples = config.option.eventpact_examples or _FEW_EXAMPLES


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run files that are named in this process: their output is seen, and no worker has to start.

    Two workers a core elsewhere, because tests wait for more than half of their time.
    """
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    alone = named and not any(Path(arg.partition("::")[0]).is_dir() for arg in config.args)
    return 0 if alone else 2 * (os.cpu_count() or 1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if (folder := item.path.relative_to(_HERE).parts[0]) in _ENGINES:
            item.add_marker(pytest.mark.engines)
            if folder != "contract":  # where each dispatcher says it
                item.add_marker(pytest.mark.slow)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name a failure when it happens; xdist shows the tracebacks at the end."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nFAILED {report.nodeid} ({report.when})", flush=True)
