"""Events on the wire: Celery's task messages, and the queues where they wait for a worker, a retry or a person."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from celery import Celery
from kombu import Connection, Exchange, Queue

from eventpact.domain.dispatcher import RegistrationError
from eventpact.domain.events import DomainEvent

_SUPPORTED: Final = {"amqp", "memory", "redis"}

DELIVERY_LIMIT: Final = 5
"""The times that RabbitMQ redelivers a message whose worker died, before it goes to the dead-letter queue."""

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

    One for each attempt, because only the head of a queue expires: a long wait must not hold up a shorter one.
    """
    return _quorum(f"{queue}.retry.{attempt}", queue)


def declare_queues(app: Celery, channel: Any, retries: int = 0) -> None:
    """Declare the app's queue, and the dead-letter queue behind it, so that publishing needs no worker to be first.

    Args:
        retries: how many times an event may be tried again. The queues where it waits are declared early, because
            RabbitMQ (3.10) takes about a second to write down that a quorum queue exists.
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


HEADER: Final = "eventpact"
"""The header of a message that states the facts its sender assumes of a worker."""

_UNSTATED: Final = {"outbox": "no"}
"""The facts of a sender that states none: another program, which knows of no outbox."""

CONTEXT_HEADER: Final = "eventpact_context"
"""The header that holds the context of the caller of ``dispatch``."""

PREFIX: Final = "handle_"
"""The beginning of a task's name; the event type's name follows."""


def task_name(event_type: type[DomainEvent]) -> str:
    """The name of the task, and so of the message, of an event type."""
    return f"{PREFIX}{event_type.__name__}"


def event_message(
    app: Celery, event: DomainEvent, context: Mapping[str, str], agreement: Mapping[str, str] | None
) -> Any:
    """The message of ``event``: its only argument is the event's fields, and its id the event's.

    Args:
        context: the context of the caller of ``dispatch``.
        agreement: the facts that a worker must share.
    """
    headers = {CONTEXT_HEADER: context, HEADER: agreement}
    stated = {name: dict(facts) for name, facts in headers.items() if facts}
    return task_message(app, task_name(type(event)), str(event.event_id), (event.to_dict(),), {}, headers=stated)


def task_message(
    app: Celery,
    name: str,
    task_id: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    headers: Mapping[str, Any],
    **options: Any,
) -> Any:
    """A message of Celery's protocol.

    Headers, and so logs and monitors, tell the event's id and nothing else of it: its fields may be addresses.
    """
    amqp: Any = app.amqp
    message = amqp.as_task_v2(
        task_id,
        name,
        args,
        dict(kwargs),
        argsrepr=f"(<event {task_id}>,)",
        kwargsrepr="{}",
        ignore_result=True,
        create_sent_event=app.conf.task_send_sent_event,
        **options,
    )
    message.headers.update(headers)
    return message


def disagreement(own: Mapping[str, str], stated: object) -> str | None:
    """Name the facts that a message states and this process does not share."""
    theirs = stated if isinstance(stated, Mapping) else _UNSTATED
    differing = [name for name in own if name in theirs and theirs[name] != own[name]]
    if not differing:
        return None
    facts = ", ".join(f"{name} is {str(theirs[name])[:100]!r} there and {own[name]!r} here" for name in differing)
    return f"its sender and this worker differ ({facts}); give both the same settings"
