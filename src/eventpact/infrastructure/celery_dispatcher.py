"""The dispatcher for several processes: an event is one message, and a Celery worker handles it."""

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Any

from celery import Celery
from kombu.exceptions import ChannelError

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
from eventpact.infrastructure.celery.brokers import check_agreement, check_app, is_amqp
from eventpact.infrastructure.celery.messages import event_message, queue_of, task_name
from eventpact.infrastructure.celery.publisher import BrokerConnection, Publisher
from eventpact.infrastructure.celery.task import EventTasks
from eventpact.infrastructure.dispatching.context import ContextCarrier, capture, check_carrier
from eventpact.infrastructure.dispatching.failures import FailureReporter, RetryPolicy, UnreadableSink
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.dispatching.threads import reset_in_children

__all__ = ["CeleryEventDispatcher"]


class CeleryEventDispatcher(EventDispatcher):
    """Publishes each event as one message, ``handle_<EventName>``; a worker of the same app calls the handlers.

    Building it registers the tasks with the app, too, so that a worker may build the same. A process that only
    publishes says ``consume=False``; one that only handles builds
    :class:`~eventpact.infrastructure.celery.task.EventTasks`. A handler that fails is tried again, alone, after
    a wait that doubles, by a new message. Headers, logs and monitors show nothing of an event but its id, which is the
    id of the task, and the context that ``context`` carries.

    Whether an accepted event survives a crash depends on the app, and ``guarantees`` says so: RabbitMQ with late
    acknowledgement does; Redis does not, whatever the settings (a message that a worker has fetched and not yet
    registered dies with it).

    Args:
        celery_app: see :func:`eventpact.infrastructure.celery.app.make_celery`; any other Celery app will do whose
            broker, or brokers, are Redis or RabbitMQ (or ``memory://``, within one process). An event goes to the
            queue that ``task_routes`` names for ``handle_<EventName>``, else to ``task_default_queue``, as JSON.
        handlers: event types, each with a handler, or a list or tuple of handlers.
        on_failure: the failure sink; the log where it is not given. Called in the worker.
        on_unreadable: called in the worker with messages that cannot be decoded; they are logged in any case.
        retries: how many times a failed delivery is tried again.
        backoff: seconds before the first retry, at most; doubled for each further one, of which the second half is
            random.
        max_backoff: the longest wait.
        context: carries context variables of the caller to the handlers. OpenTelemetry's instrumentation of Celery
            needs none.
        agreement: facts that every process of the deployment must share, by name. A message states them; a worker that
            states others sets the message aside as unreadable, and never handles it.
        consume: whether to register the tasks with the app.

    Raises:
        RegistrationError: ``handlers``, another argument, or the app is impossible (law A4): its broker, its queue or
            route for an event, or its ``accept_content``; the app has a task for one of the event types already; or
            Redis would deliver a message again while it waits for a retry.
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
        consume: bool = True,
    ) -> None:
        self._table = SubscriptionTable(handlers)
        failures = FailureReporter(on_failure)
        policy = RetryPolicy(retries=retries, backoff=backoff, max_backoff=max_backoff)
        check_app(celery_app, policy)
        check_agreement(agreement)
        check_carrier(context)
        self._app = celery_app
        conf = celery_app.conf
        survives = is_amqp(celery_app) and conf.task_acks_late and conf.task_reject_on_worker_lost
        self.guarantees: Guarantees = Guarantees(
            blocks_caller=False,
            retries=policy.retries,
            delivery=Delivery.AT_LEAST_ONCE if survives else Delivery.AT_MOST_ONCE,
            ordering=Ordering.NONE,
        )
        self._queues = {kind: queue_of(celery_app, task_name(kind)) for kind in self._table}
        self._context = context
        self._agreement = agreement
        self._tasks: EventTasks | None = None
        if consume:
            self._tasks = EventTasks(
                celery_app,
                self._table,
                on_failure=failures,
                on_unreadable=on_unreadable,
                retries=retries,
                backoff=backoff,
                max_backoff=max_backoff,
                context=context,
                agreement=agreement,
            )
        self._publisher = Publisher(celery_app, tuple(self._queues.values()))
        self._closing = False
        self.reset_after_fork()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """Leave events that the parent's threads are publishing to the parent."""
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._publishing = 0

    def dispatch(self, event: DomainEvent) -> None:
        """Publish ``event``, and return when the broker has confirmed it, within 2 seconds.

        Raises:
            TypeError, DispatcherClosedError: as every dispatcher (laws A1, A3).
            WireError: the event cannot be made again from its own fields.
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
            message = event_message(self._app, event, capture(self._context), self._agreement)
            self._publisher.publish(task_name(type(event)), message, self._queues[type(event)])
        finally:
            with self._lock:
                self._publishing -= 1
                if self._closing:
                    self._idle.notify_all()

    def waiting(self) -> int:
        """Count the messages that no worker has taken yet.

        Raises:
            DispatchError: the broker cannot be reached, or refused.
        """
        counts: dict[str, int] = {}

        def count(connection: BrokerConnection) -> None:
            for queue in self._queues.values():
                try:
                    declared: Any = queue(connection.channel).queue_declare(passive=True)
                    counts[queue.name] = declared.message_count
                except ChannelError:
                    if is_amqp(self._app):
                        raise
                    counts[queue.name] = 0  # Redis has no queue while there is nothing in it

        self._publisher.use(count, "counting the messages that wait")
        return sum(counts.values())

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        """Refuse new events, wait for those being published, and close the connections.

        Nothing is undelivered: the broker keeps accepted events, and workers settle them.
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
        self._publisher.close(max(0.0, deadline - time.monotonic()))
        if self._tasks is not None:
            self._tasks.close(max(0.0, deadline - time.monotonic()))
