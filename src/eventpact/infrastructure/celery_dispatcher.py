"""The dispatcher for more than one process: an event is one message, and a Celery worker handles it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Final

from celery import Celery

from eventpact.domain.dispatcher import (
    Delivery,
    DispatcherClosedError,
    EventDispatcher,
    FailureSink,
    Guarantees,
    Handlers,
    Ordering,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.celery.consumer import UnreadableSink, keep_unreadable
from eventpact.infrastructure.celery.messages import event_message, task_name
from eventpact.infrastructure.celery.publisher import Publisher
from eventpact.infrastructure.celery.queues import is_amqp, queue_of
from eventpact.infrastructure.celery.task import EventTask, own_class
from eventpact.infrastructure.dispatching.failures import FailureReporter
from eventpact.infrastructure.dispatching.loop_thread import LoopThread
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable

__all__ = ["CeleryEventDispatcher"]

_RETRY_STEP: Final = 5.0
"""Seconds that a worker waits for its broker to confirm a retry: nobody waits for the worker, and to take a retry for
lost which is not would be an attempt too many."""

_LEAST: Final = 0.2
"""Seconds in which the loop of the async handlers may end, however little time there is."""


class CeleryEventDispatcher(EventDispatcher):
    """Publishes each event as one message, ``handle_<EventName>``; a worker of the same app calls the handlers.

    Building it registers the tasks with the app, so the worker builds one too, with the same handlers. A handler that
    fails is tried again, alone, after a wait that doubles, by a new message. Nothing of an event is shown in headers,
    logs or monitors but its id, which is the id of the task.

    Whether an accepted event survives a crash depends on the app, and ``guarantees`` says so: RabbitMQ with late
    acknowledgement does; Redis does not, whatever the settings (what a worker has fetched and not yet registered dies
    with it).

    Args:
        celery_app: see :func:`eventpact.infrastructure.celery.app.make_celery`; any other Celery app will do.
        handlers: event types, each with a handler or a sequence of handlers.
        on_failure: the failure sink; the log where it is not given. Called in the worker.
        on_unreadable: called in the worker with messages that it cannot make sense of; they are logged in any case.
        retries: how many times a failed delivery is tried again.
        backoff: seconds before the first retry, at most; doubled for each further one, of which the second half is
            random.
        max_backoff: what it is not doubled beyond.
        agreement: facts that every process of the deployment must share, by name. A message states them; a worker that
            states others sets the message aside as unreadable, and never handles it.

    Raises:
        RegistrationError: ``handlers`` is impossible (law A4).
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
        agreement: Mapping[str, str] | None = None,
    ) -> None:
        self._table = SubscriptionTable(handlers)
        failures = FailureReporter(on_failure)
        self._app = celery_app
        conf = celery_app.conf
        survives = is_amqp(celery_app) and conf.task_acks_late and conf.task_reject_on_worker_lost
        self.guarantees: Guarantees = Guarantees(
            blocks_caller=False,
            retries=retries,
            delivery=Delivery.AT_LEAST_ONCE if survives else Delivery.AT_MOST_ONCE,
            ordering=Ordering.NONE,
        )
        self._agreement = dict(agreement or {})
        self._queue = queue_of(celery_app)
        self._publisher = Publisher(celery_app)
        self._retry_publisher = Publisher(celery_app, _RETRY_STEP)
        self._loop = LoopThread()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._publishing = 0
        self._closing = False
        if on_unreadable is not None:
            keep_unreadable(celery_app, on_unreadable)
        for event_type, route in self._table.items():
            task = own_class(EventTask)(
                event_type,
                route,
                publisher=self._retry_publisher,
                loop=self._loop,
                failures=failures,
                retries=retries,
                backoff=backoff,
                max_backoff=max_backoff,
                agreement=self._agreement,
            )
            celery_app.tasks.pop(task.name, None)
            celery_app.register_task(task)

    def dispatch(self, event: DomainEvent) -> None:
        """Publish ``event``, and return when the broker has confirmed it, within 2 seconds.

        Raises:
            TypeError: ``event`` is not a :class:`DomainEvent` (law A1).
            DispatcherClosedError: closing has begun (law A3).
            DispatchUncertainError: the broker did not answer in time. Dispatching the event again does no harm: the
                message has the same id.
            DispatchError: the broker cannot be reached, or refused (law A5).
        """
        route = self._table.route(event)
        with self._lock:
            if self._closing:
                raise DispatcherClosedError(f"{type(event).__name__} was refused: the dispatcher is closed")
            if not route:
                return
            self._publishing += 1
        try:
            message = event_message(self._app, event, agreement=self._agreement)
            self._publisher.publish(task_name(type(event)), message, self._queue)
        finally:
            with self._lock:
                self._publishing -= 1
                if self._closing:
                    self._idle.notify_all()

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        """Refuse new events, wait for those being published, and close the connections.

        Nothing is undelivered: what was accepted is the broker's to keep, and the workers' to settle.
        """
        with self._lock:
            if self._closing:
                return ()
            self._closing = True
        await asyncio.to_thread(self._close, timeout)
        return ()

    def _close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._lock:
            self._idle.wait_for(lambda: self._publishing == 0, timeout)
        for publisher in (self._publisher, self._retry_publisher):
            publisher.close(max(0.0, deadline - time.monotonic()))
        self._loop.close(max(_LEAST, deadline - time.monotonic()))
