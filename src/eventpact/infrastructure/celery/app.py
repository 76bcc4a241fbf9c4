"""The Celery app, configured for delivery: every setting with its reason, for each broker and role, in one place."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from celery import Celery
from celery.app.utils import Settings
from celery.loaders.app import AppLoader

from eventpact.infrastructure.celery.brokers import is_amqp
from eventpact.infrastructure.celery.messages import event_queue, queue_of
from eventpact.infrastructure.celery.publisher import STEP, Connector

__all__ = ["CelerySettings", "Choice", "choices", "make_celery", "ping"]

Role = Literal["web", "worker"]


class CelerySettings(Protocol):
    """Settings that :func:`make_celery` needs."""

    @property
    def broker(self) -> str | None: ...
    @property
    def celery_queue(self) -> str: ...
    @property
    def celery_acks_late(self) -> bool | None: ...
    @property
    def celery_visibility_timeout(self) -> timedelta: ...


@dataclass(frozen=True, slots=True)
class Choice:
    """One setting of Celery, and why it is not the default. A name with a dot is a key of a dictionary's setting."""

    name: str
    value: Any
    reason: str


def choices(settings: CelerySettings, role: Role) -> tuple[Choice, ...]:
    """Celery's settings, each with its reason."""
    amqp = urlsplit(settings.broker or "").scheme in {"amqp", "amqps"}
    late = settings.celery_acks_late
    return (
        *_for_both(settings, amqp, amqp if late is None else late),
        *(_for_rabbitmq() if amqp else _for_redis(settings)),
        *(_for_worker(amqp) if role == "worker" else _for_web(amqp)),
    )


def make_celery(settings: CelerySettings, role: Role) -> Celery:
    """A Celery app that is nobody's default app, so that several may stand in one process.

    Args:
        settings: whose ``broker`` is given; an embedded one has been started by then. ``celery_acks_late`` is to
            acknowledge after handling: by default on RabbitMQ only. On Redis it gives neither at most once nor at least
            once, unless lost events are published again (by an outbox, say).
        role: ``web`` publishes and must answer soon; ``worker`` consumes, and must wait for its broker.

    Raises:
        ValueError: there is no broker.
    """
    if settings.broker is None:
        raise ValueError("no broker is set; set EVENTPACT_BROKER, or start an embedded one with embedded_broker()")
    app = Celery("eventpact", broker=settings.broker, set_as_current=False, loader=f"{__name__}:OwnLoader", fixups=[])
    options: dict[str, Any] = {}
    for choice in choices(settings, role):
        outer, _, inner = choice.name.partition(".")
        if inner:
            options[inner] = choice.value
        else:
            app.conf[outer] = choice.value
    app.conf.broker_transport_options = options
    object.__setattr__(app.conf, "__class__", _OwnSettings)  # an attribute that is set on it would be a setting
    return app


class OwnLoader(AppLoader):
    """Does not read ``CELERY_CONFIG_MODULE``, which another program of this environment is configured by."""

    def read_configuration(self, env: str = "") -> dict[str, Any]:  # noqa: ARG002 - Celery's signature
        return {}


class _OwnSettings(Settings):
    """Leaves ``CELERY_BROKER_URL`` and its like to other programs, too. Celery prefers them to the app's broker."""

    @property
    def broker_url(self) -> str:
        url: str = self["broker_url"]
        return url

    broker_read_url = broker_write_url = broker_url
    result_backend = ""


def ping(app: Celery) -> None:
    """Raise unless the broker answers within 3 seconds, and takes what is published."""
    queue = queue_of(app)
    connection = Connector(app, [queue]).connect("asking the broker")
    unused = f"{queue.name}-ready"
    try:
        if is_amqp(app):
            # To a queue that there is not: confirmed, and dropped. With an alarm, RabbitMQ reads no body of a message.
            connection.producer.publish("?", routing_key=unused, exchange="", timeout=STEP, confirm_timeout=STEP)
        else:
            # Adds to a list that there is not, which changes nothing, and yet is refused as each write is.
            connection.channel.client.lpushx(unused, "")
    except BaseException:
        connection.close(broken=True)  # in good order, RabbitMQ would be waited for
        raise
    connection.close()


def _for_both(settings: CelerySettings, amqp: bool, late: bool) -> tuple[Choice, ...]:
    queue = event_queue(settings.celery_queue, amqp=amqp)
    return (
        Choice("task_default_queue", settings.celery_queue, "events have a queue of their own"),
        Choice("task_queues", (queue,), "quorum queue with delivery limit and dead-letter queue" if amqp else "a list"),
        Choice("task_create_missing_queues", False, "a mistyped queue is an error, not a place nobody looks at"),
        Choice("task_serializer", "json", "events are JSON"),
        Choice("accept_content", ["json"], "unpickling a message would run code that its sender chose"),
        Choice("result_accept_content", ["json"], "likewise"),
        Choice("task_ignore_result", True, "what became of an event is told by the failure sink"),
        Choice(
            "task_acks_late",
            late,
            "an event is taken off the queue when it has been handled"
            if late
            else "on Redis, Celery loses events in other ways, so that late would not be at least once",
        ),
        Choice("task_reject_on_worker_lost", late, "without it, a killed child's event is acknowledged all the same"),
        Choice("task_acks_on_failure", not amqp, "what Celery itself cannot run goes to the dead-letter queue"),
        Choice("task_acks_on_timeout", not late, "an event whose handler was killed for its time was not handled"),
        Choice("task_soft_time_limit", 30, "a handler that hangs is a failed attempt, and is tried again"),
        Choice("task_time_limit", 60, "a handler that ignores that is killed"),
        Choice("broker_pool_acquire_timeout", 5, "waits for ever by default"),
        Choice("broker_connection_retry_on_startup", True, "a worker may start before its broker"),
        Choice("worker_hijack_root_logger", False, "a log that is set up already is left as it is"),
    )


def _for_redis(settings: CelerySettings) -> tuple[Choice, ...]:
    visibility = settings.celery_visibility_timeout.total_seconds()
    return (
        Choice(
            "broker_transport_options.visibility_timeout",
            visibility,
            "after this long, what a killed worker had fetched goes to another; longer than any handler takes",
        ),
        Choice(
            "broker_transport_options.unacked_restore_interval",
            min(5.0, visibility / 2),
            "how often that is looked for: 100 s by default, whatever the time-out",
        ),
        Choice("broker_transport_options.unacked_restore_throttle", 1, "each time, not each tenth time"),
    )


def _for_rabbitmq() -> tuple[Choice, ...]:
    return (
        Choice("broker_transport_options.confirm_publish", True, "without it, a frozen broker seems to accept"),
        Choice("task_default_delivery_mode", "persistent", "events outlive a restart of the broker"),
    )


def _for_web(amqp: bool) -> tuple[Choice, ...]:
    """The dispatcher bounds its own connections; these are for whatever else publishes through the app."""
    timeouts = ("read_timeout", "write_timeout") if amqp else ("socket_timeout", "socket_connect_timeout")
    return (
        *(
            Choice(f"broker_transport_options.{name}", 1.0, "a request must not hang with its broker")
            for name in timeouts
        ),
        Choice("broker_transport_options.max_retries", 0, "a request cannot wait for a broker to come back"),
        Choice("broker_connection_timeout", 1.0, "likewise"),
        Choice("task_publish_retry", False, "likewise"),
    )


def _for_worker(amqp: bool) -> tuple[Choice, ...]:
    return (
        Choice(
            "worker_consumer",
            "eventpact.infrastructure.celery.consumer:KeepingConsumer",
            "Celery drops what it cannot decode and what has an unknown name",
        ),
        Choice(
            "worker_prefetch_multiplier",
            1 if amqp else 4,
            "the next event goes to a worker that is free"
            if amqp
            else "with a window of one, a single acknowledgement that times out stalls the worker silently",
        ),
        *([] if amqp else [Choice("broker_channel_error_retry", True, "a worker outlives a full Redis")]),
        Choice("broker_connection_max_retries", None, "a worker never gives up its broker"),
        Choice("worker_cancel_long_running_tasks_on_connection_loss", True, "another worker has them by then"),
        Choice("worker_soft_shutdown_timeout", 10.0, "handlers may end when the worker is stopped the hard way"),
    )
