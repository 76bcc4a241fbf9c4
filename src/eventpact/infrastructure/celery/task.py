"""The tasks of a worker: decode the message of an event, call the handlers, try again those that failed."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from billiard.common import terminate_handler_fired  # type: ignore[attr-defined]  # newer than its stubs
from celery import Celery, Task
from celery.exceptions import Reject, Retry, WorkerShutdown, WorkerTerminate
from celery.worker.request import Request
from kombu import Queue

from eventpact.domain.dispatcher import (
    DispatchError,
    FailedDelivery,
    FailureSink,
    Handlers,
    PermanentFailureError,
    RegistrationError,
)
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.celery.brokers import check_agreement, check_app, is_amqp
from eventpact.infrastructure.celery.consumer import MAX_SINK_WAIT_SECONDS, keep_unreadable, tell_unreadable
from eventpact.infrastructure.celery.messages import (
    CONTEXT_HEADER,
    HEADER,
    PREFIX,
    disagreement,
    queue_of,
    retry_queue,
    task_message,
    task_name,
)
from eventpact.infrastructure.celery.publisher import Publisher
from eventpact.infrastructure.dispatching.context import ContextCarrier, check_carrier, run_with
from eventpact.infrastructure.dispatching.failures import (
    FailureReporter,
    RetryPolicy,
    UnreadableMessage,
    UnreadableSink,
    is_a,
)
from eventpact.infrastructure.dispatching.registration import check_sink
from eventpact.infrastructure.dispatching.subscriptions import Subscription, SubscriptionTable, must_await
from eventpact.infrastructure.dispatching.threads import LoopThread
from eventpact.infrastructure.monitoring.logs import log_about

_log = logging.getLogger("eventpact")

_RETRY_STEP_SECONDS: Final = 5.0
"""A worker waits as long for its broker to confirm a retry: nobody waits for the worker, and to take a retry for lost
which is not would be an attempt too many."""

_LEAST_SECONDS: Final = 0.2
"""The loop of the async handlers has as long to end, however little time there is."""


class FailedDeliveryError(Exception):
    """A delivery has failed and was reported. Raised so that Celery's signals and monitors show the task as failed."""


class EventTasks:
    """Registers the tasks of a worker. For a process that handles events, and need not publish any.

    Its arguments are those of :class:`~eventpact.infrastructure.celery_dispatcher.CeleryEventDispatcher`.

    Raises:
        RegistrationError: likewise.
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
        self.table = SubscriptionTable(handlers)
        self.failures = FailureReporter(on_failure)
        self.policy = RetryPolicy(retries=retries, backoff=backoff, max_backoff=max_backoff)
        self.context = context
        self.agreement = agreement or {}
        check_app(celery_app, self.policy)
        check_agreement(agreement)
        check_carrier(context)
        if on_unreadable is not None:
            check_sink(on_unreadable, "the sink of unreadable messages", "UnreadableMessage")
        for name in self.table.wire_names:
            _check_free(celery_app, f"{PREFIX}{name}")
        if on_unreadable is not None:
            keep_unreadable(celery_app, on_unreadable, self.agreement)
        # A message under a former name is tried again where its event goes now.
        queues = {kind: queue_of(celery_app, task_name(kind)) for kind in self.table}
        self.publisher = Publisher(celery_app, tuple(queues.values()), _RETRY_STEP_SECONDS)
        self.loop = LoopThread()
        self._tasks = []
        for name, event_type in self.table.wire_names.items():
            # A class for each: Celery keeps a task's app, and values of that app's settings, on the class.
            task: EventTask = type("EventTask", (EventTask,), {})(
                f"{PREFIX}{name}", event_type, self, queues[event_type]
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
        self.loop.close(max(_LEAST_SECONDS, deadline - time.monotonic()))


def _check_free(app: Celery, name: str) -> None:
    task: Any = app.tasks.get(name)
    if task is not None and not getattr(task, "is_closed", False):
        raise RegistrationError(
            f"the Celery app has a task {name} already; give one dispatcher all handlers of the event, close the other"
            " dispatcher first, or take another app"
        )


class EventRequest(Request):
    """A message in the worker's main process."""

    def info(self, safe: bool = False) -> Any:  # noqa: ARG002 - Celery's signature
        """Describe the message to ``celery inspect`` and to monitors, always without the event's fields."""
        return super().info(safe=True)

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Acknowledge a reported failure: the failure sink has it, so the dead-letter queue need not."""
        if isinstance(getattr(exc_info.exception, "exc", exc_info.exception), FailedDeliveryError):
            self.acknowledge()
        return super().on_failure(exc_info, *args, **kwargs)


class EventTask(Task):  # type: ignore[type-arg]
    """Handles one event for all its handlers, or for those that a retry names."""

    abstract = True
    Request = EventRequest  # type: ignore[assignment]  # a class will do as well as its name
    ignore_result = True
    typing = False
    max_retries = None
    throws = (FailedDeliveryError,)  # reported already: Celery need not log it as an error
    is_closed = False

    def __init__(self, name: str, event_type: type[DomainEvent], worker: EventTasks, queue: Queue) -> None:
        self.name = name
        self.event_retries = worker.policy.retries
        self.event_queue = queue
        self._event_type = event_type
        self._worker = worker

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Handle the message. Celery is told of its end by an exception.

        Raises:
            Retry: a message for the handlers that failed has been published.
            Reject: the message cannot be understood, that retry could not be published, or the sink did not take it.
            FailedDeliveryError: deliveries have failed for good, and were reported.
        """
        carried = getattr(self.request, CONTEXT_HEADER, None)
        carried = {str(key): str(value) for key, value in carried.items()} if isinstance(carried, dict) else {}
        run_with(self._worker.context, carried, self._handle, args, kwargs)

    def _handle(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        event, subscriptions = self._decode(args, kwargs)
        failures = {
            subscription: exception
            for subscription in subscriptions
            if (exception := self._attempt(subscription, event)) is not None
        }
        if not failures:
            return
        again = [subscription for subscription, exception in failures.items() if self._may_try_again(exception)]
        waited = self._publish_retry(event, {each: failures[each] for each in again}) if again else None
        failed = [subscription for subscription in failures if waited is None or subscription not in again]
        taken = [
            self._worker.failures.report(FailedDelivery(event, each.handler, failures[each], self._attempts))
            for each in failed
        ]
        if not all(taken):
            # Acknowledged, it would be nowhere; rejected, it is in the dead-letter queue where there is one.
            raise Reject("the failure sink did not take it", requeue=False)
        if waited is not None:
            raise Retry(f"{len(again)} handler(s) failed", when=waited)  # type: ignore[arg-type]  # a float is a Real
        raise FailedDeliveryError(", ".join(f"{each.key}: {type(failures[each]).__name__}" for each in failed))

    @property
    def _attempts(self) -> int:
        return int(self.request.retries or 0) + 1

    def read(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], stated: object
    ) -> tuple[DomainEvent, Sequence[Subscription]] | str:
        """Return the event and those whom a message is for, or why it cannot be handled.

        Args:
            stated: the facts that its sender stated.
        """
        table = self._worker.table
        try:
            (data,) = args
            event = self._event_type.from_dict(data)
            keys = kwargs.get("only", [subscription.key for subscription in table[self._event_type]])
            if unknown := sorted(kwargs.keys() - {"only"}):
                raise ValueError(f"the message has the unknown arguments {unknown}")
            subscriptions = [table.keyed(self._event_type, key) for key in keys]
        except KeyError as error:
            return f"there is no handler {error} here; is this worker older than the sender?"
        except (TypeError, ValueError) as error:
            return f"it is malformed ({error})"
        except Exception as error:  # noqa: BLE001 - an event may check its fields, and raise what it likes
            return f"it is malformed ({type(error).__name__})"
        return disagreement(self._worker.agreement, stated) or (event, subscriptions)

    def _decode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[DomainEvent, Sequence[Subscription]]:
        """Read the message once more, which the consumer of another app has not read."""
        stated = getattr(self.request, HEADER, None)
        read = self.read(args, kwargs, stated)
        if not isinstance(read, str):
            return read
        content = repr((args, kwargs)).encode("utf-8", "surrogateescape")
        try:
            tell_unreadable(
                self.app,
                UnreadableMessage(read, self.name, str(self.request.id), content, "application/x-python"),
                stated,
            )
        except Exception as error:  # noqa: BLE001 - acknowledged now, the message would be nowhere
            _log.error("the sink of unreadable messages raised %s", type(error).__name__)
            raise self._put_back(args, kwargs) from None
        raise Reject(read, requeue=False)

    def _put_back(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exception:
        """Publish the message again, as it came, for the time when the sink takes it."""
        try:
            self._publish_later(MAX_SINK_WAIT_SECONDS, self._attempts - 1, str(self.request.id), args, kwargs)
        except DispatchError as error:
            return Reject(f"the message could not be published again: {error}", requeue=bool(self.acks_late))
        return Retry("the sink of unreadable messages raised", when=MAX_SINK_WAIT_SECONDS)  # type: ignore[arg-type]

    def _attempt(self, subscription: Subscription, event: DomainEvent) -> BaseException | None:
        """The exception that the handler raised, or ``None``."""
        try:
            result = subscription.handle(event)
            if result is not None and must_await(result):
                self._worker.loop.run(result)
        except (WorkerShutdown, WorkerTerminate):
            raise  # this process is to end, and the message is not acknowledged
        except (SystemExit, KeyboardInterrupt) as exception:
            if terminate_handler_fired():
                raise  # likewise
            return exception
        except BaseException as exception:  # noqa: BLE001 - becomes the delivery's failure
            return exception
        return None

    def _may_try_again(self, exception: BaseException) -> bool:
        return self._attempts <= self.event_retries and not is_a(exception, PermanentFailureError)

    def _publish_retry(self, event: DomainEvent, failures: Mapping[Subscription, BaseException]) -> float | None:
        """Publish a message for these handlers alone; how long it waits, or None if it cannot be published."""
        for subscription, exception in failures.items():
            key, kind, made = subscription.key, type(exception).__name__, self._attempts
            text = "attempt %d of {event} by %s failed: %s"
            log_about(event, logging.WARNING, text, made, key, kind, handler=key, attempt=made)
        wait, keys = self._worker.policy.wait(self._attempts), [subscription.key for subscription in failures]
        try:
            self._publish_later(wait, self._attempts, str(event.event_id), (event.to_dict(),), {"only": keys})
        except DispatchError as error:
            if self.acks_late:
                raise Reject(f"the retry could not be published: {error}", requeue=True) from None
            log_about(event, logging.ERROR, "a retry of {event} could not be published")
            return None
        return wait

    def _publish_later(
        self, wait: float, attempts: int, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        publisher, queue, on_rabbitmq = self._worker.publisher, self.event_queue, is_amqp(self.app)
        message = task_message(
            self.app,
            self.name,
            task_id,
            args,
            kwargs,
            # A retry has the headers of the message that began it.
            headers={
                name: stated for name in (CONTEXT_HEADER, HEADER) if (stated := getattr(self.request, name, None))
            },
            retries=attempts,
            # Redis has nowhere to wait, so there the message waits in a worker.
            countdown=None if on_rabbitmq else wait,
            root_id=self.request.root_id,
            parent_id=self.request.parent_id,
        )
        if not on_rabbitmq:
            publisher.publish(self.name, message, queue)
            return
        waiting = retry_queue(queue.name, attempts + 1)
        publisher.use(lambda connection: waiting(connection.channel).declare(), f"the queue {waiting.name}")
        publisher.publish(self.name, message, waiting, expiration=wait)
