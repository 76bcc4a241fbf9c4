"""The form of an event on the wire: a task message of Celery's protocol, which any Celery worker understands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from celery import Celery

from eventpact.domain.events import DomainEvent

__all__ = ["CONTEXT_HEADER", "HEADER", "PREFIX", "disagreement", "event_message", "task_message", "task_name"]

HEADER: Final = "eventpact"
"""The header of a message that states the facts its sender assumes of a worker."""

_UNSTATED: Final = {"outbox": "no"}
"""The facts of a sender that states none: another program, which knows of no outbox."""

CONTEXT_HEADER: Final = "eventpact_context"
"""The header that holds the context of the caller of ``dispatch``."""


PREFIX: Final = "handle_"
"""What the name of a task begins with; the event type's name follows."""


def task_name(event_type: type[DomainEvent]) -> str:
    """The name of the task, and so of the message, of an event type."""
    return f"{PREFIX}{event_type.__name__}"


def event_message(
    app: Celery,
    event: DomainEvent,
    *,
    only: Sequence[str] | None = None,
    retries: int = 0,
    countdown: float | None = None,
    root_id: str | None = None,
    parent_id: str | None = None,
    context: Mapping[str, str] | None = None,
    agreement: Mapping[str, str] | None = None,
) -> Any:
    """The message of ``event``: its only argument is the event's fields, and its id the event's.

    Args:
        only: the keys of the handlers that a retry is for.
        retries: how many attempts there were before.
        countdown: seconds that a worker is to wait first.
        context: the context of the caller of ``dispatch``.
        agreement: the facts that a worker must share.
    """
    headers = {CONTEXT_HEADER: context, HEADER: agreement}
    return task_message(
        app,
        task_name(type(event)),
        str(event.event_id),
        (event.to_dict(),),
        {} if only is None else {"only": list(only)},
        retries=retries,
        countdown=countdown,
        root_id=root_id,
        parent_id=parent_id,
        headers={name: dict(stated) for name, stated in headers.items() if stated},
    )


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
