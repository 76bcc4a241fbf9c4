"""A server and a worker that disagree lose no mail silently: refused at start, or set aside by message."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from support.application import SECRET
from support.services_kit import MailServer, own_database
from support.waiting import until

from eventpact.domain.events import AccountCreatedEvent
from eventpact.infrastructure.celery.embedded_broker import EmbeddedBroker
from eventpact.infrastructure.celery.messages import disagreement
from eventpact.infrastructure.dispatching.failures import UnreadableMessage
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.persistence.failure_store import FailureStore
from eventpact.infrastructure.persistence.opening import agree, open_database
from eventpact_contracts.demo.processes import Server, Worker

pytestmark = pytest.mark.slow

ADDRESS = "ada@example.com"


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture
def common(tmp_path: Path, mail: MailServer, valkey: str) -> dict[str, str]:
    """Settings of a server; its worker's are these with one difference."""
    return {
        "EVENTPACT_DATA_DIR": str(tmp_path / "data"),
        "EVENTPACT_BROKER": valkey,
        "EVENTPACT_SMTP": mail.url,
        "EVENTPACT_SMTP_STARTTLS": "false",
        "EVENTPACT_RETRIES": "0",
        "EVENTPACT_OUTBOX_RESEND": "1",
        "EVENTPACT_CELERY_QUEUE": f"agreement-{tmp_path.name[-60:].strip('-_.')}",
    }


def eventpact(environment: dict[str, str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "eventpact", *arguments],
        env=os.environ | environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )


def folder(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path


@contextmanager
def serving(tmp_path: Path, settings: dict[str, str]) -> Iterator[Server]:
    with Server(folder(tmp_path / "server"), settings, "celery") as server:
        yield server


@contextmanager
def working(tmp_path: Path, settings: dict[str, str]) -> Iterator[Path]:
    """A running worker, and its log."""
    name = tmp_path / f"worker-{len(list(tmp_path.glob('worker-*')))}"
    with Worker(folder(name), settings):
        yield name / "worker.log"


@pytest.mark.parametrize(("there", "here"), [("false", "true"), ("true", "false")])
def test_a_worker_that_differs_about_the_outbox_sets_mails_aside(
    tmp_path: Path, common: dict[str, str], mail: MailServer, there: str, here: str
) -> None:
    server, worker = common | {"EVENTPACT_OUTBOX": there}, common | {"EVENTPACT_OUTBOX": here}
    said = {"true": "yes", "false": "no"}
    with serving(tmp_path, server) as running:
        with working(tmp_path, worker) as log:
            assert running.sign_up(ADDRESS)[0] == 202
            until(lambda: "was set aside" in log.read_text(), 20)
        differing = f"(outbox is '{said[there]}' there and '{said[here]}' here); give both the same settings"
        assert differing in log.read_text()
        assert "succeeded" not in log.read_text()
        assert ADDRESS not in log.read_text()
        assert mail.mails == []
        assert eventpact(server, "failed", "list", cwd=tmp_path).stdout.count("AccountCreatedEvent") == 1
        with working(tmp_path, server):
            if there == "false":  # no outbox delivers it again
                assert "1 stays" in eventpact(server, "failed", "retry", "--all", cwd=tmp_path).stderr
                assert eventpact(server, "failed", "retry", "1", cwd=tmp_path).returncode == 0
            until(lambda: mail.mails, 20)
            ((_, code),) = mail.mails
            assert running.verify(ADDRESS, code)


def test_a_worker_on_another_database_sets_mails_aside(
    tmp_path: Path, common: dict[str, str], mail: MailServer
) -> None:
    common |= {"EVENTPACT_OUTBOX": "false"}
    other = common | {"EVENTPACT_DATABASE": f"sqlite:///{tmp_path / 'other.db'}"}
    assert eventpact(other, "migrate", cwd=tmp_path).returncode == 0
    with serving(tmp_path, common) as running, working(tmp_path, other) as log:
        assert running.sign_up(ADDRESS)[0] == 202
        until(lambda: "was set aside" in log.read_text(), 20)
    assert "(database is '" in log.read_text()
    assert "succeeded" not in log.read_text()
    assert mail.mails == []
    assert "AccountCreatedEvent" in eventpact(other, "failed", "list", cwd=tmp_path).stdout


def test_a_worker_on_a_copy_of_the_data_folder_settles_nothing_and_says_so(
    tmp_path: Path, common: dict[str, str], mail: MailServer
) -> None:
    with serving(tmp_path, common):
        pass
    copy = common | {"EVENTPACT_DATA_DIR": str(shutil.copytree(tmp_path / "data", tmp_path / "copy"))}
    with Server(tmp_path / "server", common, "celery") as running:
        with working(tmp_path, copy) as log:
            assert running.sign_up(ADDRESS)[0] == 202
            until(lambda: "was set aside" in log.read_text(), 20)
        assert re.search(r"differ \(file is '\d+' there and '\d+' here\)", log.read_text())
        assert "succeeded" not in log.read_text()
        assert mail.mails == []
        with working(tmp_path, common) as log:
            until(lambda: mail.mails, 30)
            ((_, code),) = mail.mails
            assert running.verify(ADDRESS, code)
        assert "was set aside" not in log.read_text()


@pytest.mark.services
def test_a_copy_of_a_postgresql_database_is_told_from_it(postgres_service: str) -> None:
    with own_database(postgres_service) as url, psycopg.connect(postgres_service, autocommit=True) as admin:
        name = urlsplit(url).path[1:]
        first = facts(url)
        admin.execute(f"CREATE DATABASE {name}_copy TEMPLATE {name}")  # type: ignore[call-overload]
        try:
            copy = facts(url.replace(name, f"{name}_copy"))
        finally:
            admin.execute(f"DROP DATABASE {name}_copy")  # type: ignore[call-overload]
        assert copy["database"] == first["database"]
        assert "oid is" in str(disagreement(copy, first))
        assert disagreement(facts(url), first) is None


def facts(url: str) -> Mapping[str, str]:
    """What a process on this database states."""
    database = open_database(url.replace("postgresql://", "postgresql+psycopg://", 1), migrate=True)
    try:
        return agree(database, SECRET.encode(), outbox=True)
    finally:
        database.close()


def test_what_another_server_on_the_same_broker_sent_stays_listed_while_ours_returns_what_it_can_read(
    tmp_path: Path, common: dict[str, str], mail: MailServer
) -> None:
    theirs = common | {"EVENTPACT_OUTBOX": "false"}
    ours = common | {"EVENTPACT_DATA_DIR": str(tmp_path / "ours"), "EVENTPACT_OUTBOX_LEASE": "2"}
    with (
        serving(folder(tmp_path / "their"), theirs) as running,
        serving(folder(tmp_path / "our"), ours),
        working(tmp_path, ours) as log,
    ):
        assert running.sign_up(ADDRESS)[0] == 202
        until(lambda: "was set aside" in log.read_text(), 20)
        later = AccountCreatedEvent(account_id="1", email="eve@example.com")
        content = json.dumps(later.to_dict()).encode()
        with closing(Database(f"sqlite:///{tmp_path / 'ours' / 'eventpact.db'}")) as database:
            failures = FailureStore(database, SubscriptionTable({}))
            failures.keep_unreadable(UnreadableMessage("", "AccountCreatedEvent", str(later.event_id), content, None))
            until(lambda: failures.count() == 1, 30)  # so all have been looked at
            (left,) = failures.all()
        assert left.error_type == "Disagreement"
        assert "database is" in left.error
        assert mail.mails == []


def test_a_worker_elsewhere_without_the_secret_is_refused_and_makes_nothing(
    tmp_path: Path, common: dict[str, str]
) -> None:
    elsewhere = folder(tmp_path / "elsewhere")
    database = {"EVENTPACT_DATABASE": f"sqlite:///{tmp_path / 'data' / 'eventpact.db'}"}
    del common["EVENTPACT_DATA_DIR"]
    server = common | {"EVENTPACT_DATA_DIR": str(tmp_path / "data")}
    with serving(tmp_path, server):
        for more in ({}, database):
            done = eventpact(common | more, "worker", cwd=elsewhere)
            assert done.returncode == 1, done.stderr
            assert done.stderr.startswith("eventpact: there is no eventpact here: .eventpact/")
            assert done.stderr.count("\n") == 1
            assert list(elsewhere.iterdir()) == []


def test_a_worker_that_the_broker_refuses_ends_with_one_line(
    tmp_path: Path, common: dict[str, str], own_valkey: EmbeddedBroker
) -> None:
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("requirepass", "right")
        refused(tmp_path, common | {"EVENTPACT_BROKER": own_valkey.url})
        refused(tmp_path, common | {"EVENTPACT_BROKER": own_valkey.url.replace("//", "//:wrong-password@")})
        client.config_set("requirepass", "")
    database = urlsplit(own_valkey.url)._replace(path="/99").geturl()
    refused(tmp_path, common | {"EVENTPACT_BROKER": database})


@pytest.mark.services
@pytest.mark.parametrize("login", ["guest:wrong-password@", "guest:guest@"])
def test_a_worker_that_rabbitmq_refuses_ends_with_one_line(
    tmp_path: Path, common: dict[str, str], rabbitmq_service: str, login: str
) -> None:
    url = re.sub(r"//[^@]*@(.*?)/.*", rf"//{login}\1/no-such-vhost", rabbitmq_service)
    refused(tmp_path, common | {"EVENTPACT_BROKER": url})


def refused(tmp_path: Path, settings: dict[str, str]) -> None:
    settings = settings | {"EVENTPACT_SECRET": SECRET}
    assert eventpact(settings, "migrate", cwd=tmp_path).returncode == 0
    done = eventpact(settings, "worker", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if "refuses this worker" in line]
    assert len(lines) == 1, done.stderr
    assert "EVENTPACT_BROKER" in lines[0]
    assert "Traceback" not in done.stderr
    assert "wrong-password" not in done.stderr
