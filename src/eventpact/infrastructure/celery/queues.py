"""The queues of events: the main one and, on RabbitMQ, those where messages wait for a retry or for a person."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from celery import Celery
from kombu import Connection, Exchange, Queue

from eventpact.domain.dispatcher import RegistrationError

__all__ = [
    "broker_urls",
    "dead_queue_name",
    "declare_queues",
    "event_queue",
    "is_amqp",
    "queue_of",
    "retry_queue",
    "transport_of",
]

_SUPPORTED: Final = {"amqp", "memory", "redis"}


DELIVERY_LIMIT: Final = 5
"""How often RabbitMQ redelivers a message whose worker died, before it goes to the dead-letter queue."""

_DEFAULT_EXCHANGE: Final = Exchange("", type="direct")


def broker_urls(app: Celery) -> tuple[str, ...]:
    """The brokers that the app publishes to: one, or several that stand in for one another."""
    given: Any = app.conf.broker_write_url or "amqp://"
    return tuple(given.split(";") if isinstance(given, str) else map(str, given))


def transport_of(app: Celery) -> str:
    """The kind of the app's broker: ``amqp`` (RabbitMQ), ``redis``, or ``memory`` (one process, for tests).

    Raises:
        RegistrationError: it is another, or the brokers are of several kinds.
    """
    kinds = {_driver_type(url) for url in broker_urls(app)}
    if len(kinds) == 1 and kinds <= _SUPPORTED:
        return kinds.pop()
    raise RegistrationError(
        f"the broker of the Celery app is {' and '.join(sorted(kinds))}; give it one of redis://, rediss://, sentinel://,"
        " amqp://, amqps:// or memory://, or several of one kind, of which one is used at a time"
    )


def is_amqp(app: Celery) -> bool:
    """Return whether the app's broker is RabbitMQ."""
    return transport_of(app) == "amqp"


@cache
def _driver_type(url: str) -> str:
    try:
        return str(Connection(url).transport.driver_type)
    except (ImportError, KeyError, ValueError):
        return url.partition(":")[0]


def queue_of(app: Celery) -> Queue:
    """The queue that the app's events go to."""
    queue: Queue = app.amqp.queues[app.conf.task_default_queue]
    return queue


def dead_queue_name(queue: str) -> str:
    """The queue of messages that no worker can make sense of, or that killed too many."""
    return f"{queue}.dead"


def event_queue(name: str, *, amqp: bool) -> Queue:
    """The queue that workers consume."""
    if not amqp:
        return Queue(name, _DEFAULT_EXCHANGE, routing_key=name)
    return _quorum(name, dead_queue_name(name), **{"x-delivery-limit": DELIVERY_LIMIT})


def retry_queue(queue: str, attempt: int) -> Queue:
    """Return where messages wait on RabbitMQ before that attempt, until they expire back into ``queue``.

    One for each attempt, because only the head of a queue expires: what waits for long must not hold up what waits for
    less.
    """
    return _quorum(f"{queue}.retry.{attempt}", queue)


def declare_queues(app: Celery, channel: Any, retries: int = 0) -> None:
    """Declare the app's queue, and the dead-letter queue behind it, so that publishing needs no worker to be first.

    Args:
        retries: how many times an event may be tried again; the queues where it waits for that are declared as well.
            RabbitMQ (3.10) writes down about a second later that a quorum queue exists, and a node that is killed
            before then does not bring it back; so they are declared before there is anything to put in.
    """
    if not is_amqp(app):
        return  # a list in Redis exists once something is in it
    main = queue_of(app)
    dead = (main.queue_arguments or {}).get("x-dead-letter-routing-key")
    if dead:
        Queue(
            dead, _DEFAULT_EXCHANGE, routing_key=dead, queue_arguments={"x-queue-type": "quorum"}, channel=channel
        ).queue_declare()
    main(channel).declare()
    for retry in range(retries):
        retry_queue(main.name, retry + 2)(channel).declare()


def _quorum(name: str, dead_letters_to: str, **arguments: Any) -> Queue:
    return Queue(
        name,
        _DEFAULT_EXCHANGE,
        routing_key=name,
        durable=True,
        queue_arguments={
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead_letters_to,
            # A dead letter is removed only when the queue behind has confirmed it; that needs reject-publish.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            **arguments,
        },
    )
