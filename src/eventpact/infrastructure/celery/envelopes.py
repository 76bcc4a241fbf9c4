"""Envelopes and headers that a worker lets through to Celery, which others would end or leave hanging."""

import base64
import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from celery.app.task import Context
from kombu.utils.json import loads

from eventpact.infrastructure.celery.messages import CONTEXT_HEADER, HEADER

_MAX_NAME_CHARACTERS: Final = 255

_MAX_RETRIES: Final = 2**31 - 1

_MAX_WAIT: Final = timedelta(days=1)
"""No retry waits as long. What waits for years is lost in all but name."""

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
    """Return the arguments of a task.

    Raises:
        ValueError: they are of another shape, or other tasks are to follow this one.
    """
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
    return moment.replace(tzinfo=moment.tzinfo or UTC) <= datetime.now(UTC) + _MAX_WAIT


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
