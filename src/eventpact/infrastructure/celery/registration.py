"""The tasks of a worker: one for each event type, registered with a Celery app."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from celery import Celery

from eventpact.domain.dispatcher import FailureSink, Handlers, RegistrationError
from eventpact.infrastructure.celery.consumer import UnreadableSink, keep_unreadable
from eventpact.infrastructure.celery.messages import PREFIX
from eventpact.infrastructure.celery.publisher import Publisher
from eventpact.infrastructure.celery.queues import transport_of
from eventpact.infrastructure.celery.task import EventTask, own_class
from eventpact.infrastructure.dispatching.context import ContextCarrier
from eventpact.infrastructure.dispatching.failures import FailureReporter
from eventpact.infrastructure.dispatching.loop_thread import LoopThread
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable

__all__ = ["EventTasks"]

_RETRY_STEP_SECONDS: Final = 5.0
"""A worker waits as long for its broker to confirm a retry: nobody waits for the worker, and to take a retry for lost
which is not would be an attempt too many."""

_LEAST_SECONDS: Final = 0.2
"""The loop of the async handlers has as long to end, however little time there is."""


class EventTasks:
    """Registers the tasks of a worker. For a process that handles events, and need not publish any.

    Its arguments are those of :class:`~eventpact.infrastructure.celery_dispatcher.CeleryEventDispatcher`.

    Attributes:
        publisher: publishes retries.

    Raises:
        RegistrationError: ``handlers`` or ``on_failure`` is impossible (law A4), the app has a task for one of the
            event types already, or Redis would deliver a message again while it waits for a retry.
    """

    def __init__(
        self,
        celery_app: Celery,
        handlers: Handlers,
        *,
        on_failure: FailureSink | None = None,
        on_unreadable: UnreadableSink | None = None,
        retries: int = 3,
        backoff: float = 2.0,
        max_backoff: float = 60.0,
        context: ContextCarrier | None = None,
        agreement: Mapping[str, str] | None = None,
    ) -> None:
        table = SubscriptionTable(handlers)
        failures = FailureReporter(on_failure)
        _check_visibility(celery_app, min(backoff * 2.0 ** (retries - 1), max_backoff) if retries else 0.0)
        for name in table.wire_names:
            _check_free(celery_app, f"{PREFIX}{name}")
        if on_unreadable is not None:
            keep_unreadable(celery_app, on_unreadable)
        self.publisher = Publisher(celery_app, _RETRY_STEP_SECONDS)
        self._loop = LoopThread()
        self._tasks = []
        for name, event_type in table.wire_names.items():
            task = own_class(EventTask)(
                f"{PREFIX}{name}",
                event_type,
                table,
                publisher=self.publisher,
                loop=self._loop,
                failures=failures,
                retries=retries,
                backoff=backoff,
                max_backoff=max_backoff,
                context=context,
                agreement=agreement or {},
            )
            celery_app.tasks.pop(task.name, None)
            celery_app.register_task(task)
            self._tasks.append(task)

    def close(self, timeout: float) -> None:
        """Close the connections, and stop the loop of the async handlers. Other tasks may take the names then."""
        deadline = time.monotonic() + timeout
        for task in self._tasks:
            task.is_closed = True
        self.publisher.close(timeout)
        self._loop.close(max(_LEAST_SECONDS, deadline - time.monotonic()))


def _check_free(app: Celery, name: str) -> None:
    task: Any = app.tasks.get(name)
    if task is not None and not getattr(task, "is_closed", False):
        raise RegistrationError(
            f"the Celery app has a task {name} already; give one dispatcher all handlers of the event, close the other"
            " dispatcher first, or take another app"
        )


def _check_visibility(app: Celery, longest_wait: float) -> None:
    if transport_of(app) != "redis":
        return
    visibility = (app.conf.broker_transport_options or {}).get("visibility_timeout", 3600.0)
    if visibility <= longest_wait:
        raise RegistrationError(
            f"a retry waits up to {longest_wait:g} s (retries, backoff, max_backoff), but Redis delivers a message"
            f" again after {visibility:g} s (visibility_timeout), so that it would be attempted twice; raise"
            " EVENTPACT_CELERY_VISIBILITY_TIMEOUT, or lower EVENTPACT_RETRIES or EVENTPACT_RETRY_BACKOFF"
        )
