"""Events on the wire: Celery's task messages, the queues that they wait in, and those that a worker lets through."""

import base64
import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from celery import Celery
from celery.app.routes import Router, prepare
from celery.app.task import Context
from kombu import Exchange, Queue
from kombu.utils.json import loads

from eventpact.domain.dispatcher import RegistrationError
from eventpact.domain.events import DomainEvent, to_wire
from eventpact.infrastructure.celery.brokers import is_amqp
from eventpact.infrastructure.dispatching.failures import MAX_WAIT_SECONDS

DELIVERY_LIMIT: Final = 5
"""The times that RabbitMQ redelivers a message whose worker died, before it goes to the dead-letter queue."""

_DEFAULT_EXCHANGE: Final = Exchange("", type="direct")


def queue_of(app: Celery, task: str = "") -> Queue:
    """The queue that the app's settings name for a task: that of ``task_routes``, else ``task_default_queue``.

    A message goes there through the default exchange, which routes by the name of a queue alone: so do its retries. The
    routes are asked once, when a dispatcher is built, so that they cannot depend on the event.

    Raises:
        RegistrationError: the settings name none, or none that workers consume.
    """
    try:
        router: Any = Router(prepare(app.conf.task_routes), app.amqp.queues, app=app)
        route = router.route({}, task)
    except Exception as error:
        raise RegistrationError(
            f"the Celery app has no queue for {task or 'events'} ({type(error).__name__}: {error}); name one in"
            " task_routes or task_default_queue, and declare it in task_queues"
        ) from error
    queue: Queue = route.pop("queue", None)
    if route or queue is None or queue.exchange.type == "fanout":
        raise RegistrationError(
            f"the Celery app routes {task or 'events'} by {', '.join(sorted(route)) or 'an exchange for all queues'};"
            " give it a route that names a queue and nothing else, as an event and its retries wait in one queue"
        )
    declared: Any = app.conf.task_queues
    names = [each if isinstance(each, str) else each.name for each in declared or [queue]]
    if queue.name not in names:
        raise RegistrationError(
            f"the queue of {task or 'events'} is {queue.name}, which is not in the task_queues of the Celery app, so"
            " that its workers do not consume it; declare it there"
        )
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


def declare_queues(app: Celery, queues: Iterable[Queue], channel: Any, retries: int = 0) -> None:
    """Declare queues, and the dead-letter queues behind them, so that publishing needs no worker to be first.

    Args:
        retries: how many times an event may be tried again. The queues where it waits are declared early, because
            RabbitMQ (3.10) takes about a second to write down that a quorum queue exists.
    """
    if not is_amqp(app):
        return  # a list in Redis exists once something is in it
    for main in queues:
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
    """Make the message of ``event``: its only argument is the event's fields, and its id the event's.

    It carries the context of the caller of ``dispatch``, and states the facts that a worker must share.
    """
    headers = {CONTEXT_HEADER: context, HEADER: agreement}
    stated = {name: dict(facts) for name, facts in headers.items() if facts}
    return task_message(app, task_name(type(event)), str(event.event_id), (to_wire(event),), {}, headers=stated)


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


_MAX_NAME_CHARACTERS: Final = 255

_MAX_RETRIES: Final = 2**31 - 1

_OCTETS: Final = "application/octet-stream"


def receive_anything(channel: Any) -> None:
    """Have a channel of Redis deliver what is no message as one: without a task, and what came as its body.

    kombu would raise while it makes a message of what it has taken off the list already. Here, before that, nothing is
    lost; and it is put back like any other if the worker dies with it.
    """
    client: Any = getattr(channel, "client", None)
    if hasattr(client, "set_response_callback"):  # RabbitMQ's envelopes have types
        client.set_response_callback("BRPOP", lambda response: response and _delivery(channel, *response))


def _delivery(channel: Any, source: bytes, item: bytes) -> tuple[bytes, bytes]:
    try:
        if _is_envelope(loads(item)):
            return source, item
    except Exception:  # noqa: BLE001, S110 - whatever is raised, it is none
        pass
    wrapped = {
        "body": base64.b64encode(item).decode(),
        "content-type": _OCTETS,
        "content-encoding": "binary",
        "headers": {},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
            "delivery_info": {"exchange": "", "routing_key": source.decode().rsplit(channel.sep, 1)[0]},
        },
    }
    return source, json.dumps(wrapped).encode()


def _is_envelope(payload: Any) -> bool:
    properties = payload["properties"]
    sent, encoding = properties["delivery_info"], properties.get("body_encoding")
    if encoding == "base64":
        base64.b64decode(payload["body"], validate=True)
    texts = [payload["body"], payload["content-type"], payload["content-encoding"], properties["delivery_tag"]]
    return (
        all(isinstance(text, str) for text in (*texts, sent["exchange"], sent["routing_key"]))
        and isinstance(payload["headers"], dict)
        and encoding in {"base64", "utf-8", None}
    )


def malformed_header(headers: Mapping[Any, Any]) -> str | None:
    """Name the first header that no publisher of events writes so.

    Headers that Celery does not know pass, since those who trace have theirs. They become attributes of a task's
    request, so that none may have the name of an attribute that is Celery's own.
    """
    for name, value in headers.items():
        is_right = _HEADERS.get(name)
        if not (is_right(value) if is_right else isinstance(name, str) and not hasattr(Context, name)):
            return f"its header {str(name)[:_MAX_NAME_CHARACTERS]!r} is malformed"
    return next((f"it has no header {name!r}" for name in ("task", "id") if name not in headers), None)


def arguments(body: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a task; raise ``ValueError`` if it has another shape, or other tasks are to follow it."""
    match body:
        case [list(args), dict(kwargs), (dict() | None) as following] if not any((following or {}).values()):
            return args, kwargs
    raise ValueError("a body is arguments, keyword arguments, and nothing to follow")


def _is_id(value: Any) -> bool:
    """Tell an id from anything that a log must not hold."""
    return _is_text(value) and 0 < len(value) <= _MAX_NAME_CHARACTERS and "@" not in value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_text_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair)


def _is_limit(value: Any) -> bool:
    return value is None or (type(value) in {int, float} and 0 < value < math.inf)


def _is_moment(value: Any) -> bool:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return moment.replace(tzinfo=moment.tzinfo or UTC) <= datetime.now(UTC) + timedelta(seconds=MAX_WAIT_SECONDS)


def _is_integer(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_RETRIES


def _or_none(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_right(value)


_HEADERS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "task": _is_id,
    "id": _is_id,
    # A log shows a shadow in place of the task's name.
    **dict.fromkeys(("root_id", "parent_id", "group", "shadow"), _or_none(_is_id)),
    **dict.fromkeys(("lang", "origin", "argsrepr", "kwargsrepr", "compression"), _or_none(_is_text)),
    **dict.fromkeys(("retries", "group_index", "replaced_task_nesting"), _or_none(_is_integer)),
    "ignore_result": _or_none(lambda value: isinstance(value, bool)),
    "timelimit": _or_none(lambda value: isinstance(value, list | tuple) and [*map(_is_limit, value)] == [True, True]),
    "eta": _or_none(_is_moment),
    "expires": lambda value: value is None,  # an event does not expire: it is handled, or set aside
    "headers": _or_none(lambda value: isinstance(value, dict)),
    "stamps": _or_none(lambda value: isinstance(value, dict)),
    "stamped_headers": _or_none(lambda value: isinstance(value, list) and all(map(_is_text, value))),
    HEADER: _or_none(_is_text_by_name),
    CONTEXT_HEADER: _or_none(_is_text_by_name),
}
