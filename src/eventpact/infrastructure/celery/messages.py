"""The form of an event on the wire: a task message of Celery's protocol, which any Celery worker understands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from celery import Celery

from eventpact.domain.events import DomainEvent

__all__ = ["PREFIX", "event_message", "task_name"]


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
) -> Any:
    """The message of ``event``: its only argument is the event's fields, and its id the event's.

    Headers, and so logs and monitors, tell that id and nothing else of the event, whose fields may be addresses.

    Args:
        only: the keys of the handlers that a retry is for.
        retries: how many attempts there were before.
        countdown: seconds that a worker is to wait first.
    """
    amqp: Any = app.amqp
    task_id = str(event.event_id)
    return amqp.as_task_v2(
        task_id,
        task_name(type(event)),
        (event.to_dict(),),
        {} if only is None else {"only": list(only)},
        retries=retries,
        countdown=countdown,
        root_id=root_id,
        parent_id=parent_id,
        argsrepr=f"(<event {task_id}>,)",
        kwargsrepr="{}",
        ignore_result=True,
        create_sent_event=app.conf.task_send_sent_event,
    )
