"""The settings of Celery: each has a reason, each exists, and the two roles differ where they must."""

from __future__ import annotations

from datetime import timedelta

import pytest
from celery.app.defaults import NAMESPACES, flatten
from support.celery_kit import Broker, app_on

from eventpact.infrastructure.celery.app import Role, choices, make_celery

BROKERS = ["redis://127.0.0.1/0", "amqp://127.0.0.1//"]


@pytest.mark.parametrize("url", BROKERS)
@pytest.mark.parametrize("role", ["web", "worker"])
def test_every_choice_is_a_setting_of_celery_with_its_reason_and_is_made_once(url: str, role: Role) -> None:
    known = {name for name, _ in flatten(NAMESPACES)}
    made = choices(Broker(url), role)
    assert all(choice.name.partition(".")[0] in known and choice.reason for choice in made)
    assert len({choice.name for choice in made}) == len(made)


@pytest.mark.parametrize("url", BROKERS)
def test_publishing_gives_up_soon_and_consuming_never(url: str) -> None:
    web, worker = app_on(url, "web").conf, app_on(url, "worker").conf
    assert web.broker_transport_options["max_retries"] == 0
    assert any(name.endswith("timeout") for name in web.broker_transport_options)
    assert worker.broker_connection_max_retries is None
    assert not {"socket_timeout", "read_timeout"} & worker.broker_transport_options.keys()


@pytest.mark.parametrize(
    ("url", "setting", "late"),
    [
        (BROKERS[0], None, False),
        (BROKERS[1], None, True),
        (BROKERS[0], True, True),
        (BROKERS[1], False, False),
    ],
)
def test_acknowledging_late_follows_the_broker_unless_it_is_set(url: str, setting: bool | None, late: bool) -> None:
    app = make_celery(Broker(url, celery_acks_late=setting), "worker")
    assert (app.conf.task_acks_late, app.conf.task_reject_on_worker_lost, app.conf.task_acks_on_timeout) == (
        late,
        late,
        not late,
    )


def test_a_killed_worker_s_event_is_looked_for_before_long_on_redis() -> None:
    options = app_on(BROKERS[0], celery_visibility_timeout=timedelta(seconds=2)).conf.broker_transport_options
    assert options["visibility_timeout"] == 2
    assert options["unacked_restore_interval"] * options["unacked_restore_throttle"] <= 1


def test_pickle_is_neither_written_nor_read() -> None:
    conf = app_on(BROKERS[0]).conf
    assert (conf.task_serializer, conf.accept_content) == ("json", ["json"])


def test_without_a_broker_it_says_what_to_set() -> None:
    with pytest.raises(ValueError, match="EVENTPACT_BROKER"):
        make_celery(Broker(None), "web")


@pytest.mark.parametrize("role", ["web", "worker"])
def test_the_broker_is_that_of_the_settings_whatever_the_environment_says_to_celery(
    role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BROKER", "BROKER_READ", "BROKER_WRITE"):
        monkeypatch.setenv(f"CELERY_{name}_URL", "amqp://somebody.else//")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "django-db")
    for name in ("CELERY_CONFIG_MODULE", "CELERY_LOADER", "DJANGO_SETTINGS_MODULE"):
        monkeypatch.setenv(name, "is_not_there")
    app = app_on(BROKERS[0], role)
    for connection in (app.connection_for_read(), app.connection_for_write(), app.connection()):
        assert (connection.transport_cls, connection.hostname) == ("redis", "127.0.0.1")
    assert (app.conf.broker_url, app.conf.result_backend) == (BROKERS[0], "")
