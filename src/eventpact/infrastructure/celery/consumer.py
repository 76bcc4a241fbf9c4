"""A Celery consumer that drops nothing: messages that it cannot make a task of are reported and stored."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final
from weakref import WeakKeyDictionary

from celery import Celery
from celery.exceptions import WorkerShutdown
from celery.worker.consumer import Consumer
from kombu.exceptions import ContentDisallowed

from eventpact.infrastructure.celery.brokers import bounded_connection, is_amqp, refusal
from eventpact.infrastructure.celery.messages import (
    HEADER,
    arguments,
    declare_queues,
    disagreement,
    malformed_header,
    queue_of,
    receive_anything,
)
from eventpact.infrastructure.celery.stalls import stalls_reported
from eventpact.infrastructure.dispatching.failures import UnreadableMessage, UnreadableSink
from eventpact.infrastructure.monitoring.logs import harmless

_log = logging.getLogger("eventpact")

MAX_SINK_WAIT_SECONDS: Final = 30.0
"""The longest wait for the sink of unreadable messages, which doubles while it raises."""

REFUSED_WAIT_SECONDS: Final = 3.0
"""Between two tries of a worker whose broker is full."""

_sinks: WeakKeyDictionary[Celery, tuple[UnreadableSink, Mapping[str, str]]] = WeakKeyDictionary()


def keep_unreadable(app: Celery, sink: UnreadableSink, agreement: Mapping[str, str]) -> None:
    """Have ``sink`` called with messages that the workers of ``app`` cannot read, or whose sender disagrees."""
    _sinks[app] = (sink, agreement)


def tell_unreadable(app: Celery, message: UnreadableMessage, stated: object) -> None:
    """Hand ``message`` to the app's sink, and log it once it is stored.

    Args:
        stated: the facts that its sender stated. One that cannot be read *and* disagrees must not be handled by a
            later version that can read it.
    """
    sink, agreement = _sinks.get(app, (None, {}))
    reason, differing = message.reason, disagreement(agreement, stated) if message.name is not None else None
    if differing is not None and differing not in reason:
        reason = f"{reason}; {differing}"
    message = replace(message, reason=harmless(reason), disagrees=differing is not None)
    if sink is not None:
        sink(message)
    name, message_id = harmless(message.name or "(no task)"), harmless(message.message_id or "(no id)")
    text = "a message for %s (%s) was set aside: %s"
    _log.error(text, name, message_id, message.reason, extra={"event_id": message_id})


class KeepingConsumer(Consumer):
    """Celery's consumer, which tells the app's sink of a message before it is rejected.

    A rejected message goes to the dead-letter queue where there is one (RabbitMQ).
    """

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc, valid-type]  # a class all the same
        """Celery's, less the exchanges and queues of its delayed delivery: retries wait in queues of their own."""

        default_steps = tuple(step for step in Consumer.Blueprint.default_steps if "delayed_delivery" not in step)

    connection_errors: tuple[type[BaseException], ...]
    channel_errors: tuple[type[BaseException], ...]
    hub: Any
    loop: Callable[..., None]
    qos: Any
    _sink_failures = 0
    _sink_rests_until = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # RabbitMQ has heartbeats; and a pool that runs handlers in the loop makes it stand still.
        if self.hub is not None and not is_amqp(self.app) and self.pool.uses_semaphore:
            loop = self.loop

            def watched(*arguments: Any) -> None:
                with stalls_reported(self.timer):
                    loop(*arguments)

            self.loop = watched

    def connect(self) -> Any:
        """Connect, and declare the queues that rejected messages go to, and those that wait for a retry."""
        try:
            connection = super().connect()
        except Exception as error:
            if reason := refusal(error):
                _log.critical("the broker refuses this worker: %s; it stops", reason)
                raise WorkerShutdown(1) from error
            raise
        receive_anything(connection.default_channel)
        tasks: list[Any] = [task for task in self.app.tasks.values() if hasattr(task, "event_retries")]
        queues = {task.event_queue.name: task.event_queue for task in tasks}.values() or [queue_of(self.app)]
        retries = max((task.event_retries for task in tasks), default=0)
        with self.app.connection_for_write() as own:
            declare_queues(self.app, queues, own.channel(), retries)
        return connection

    def ensure_connected(self, conn: Any) -> Any:
        """Wait for the broker, and tell of each try that failed, as Celery does; and of one that is not answered.

        A limit of the connection itself would apply to all that it does: Redis would have an acknowledgement that the
        worker takes for lost.
        """
        with bounded_connection(self.app) as probe:
            super().ensure_connected(probe)
        return super().ensure_connected(conn)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close the connection that broke, whatever that raises, and go on, so that the worker connects again.

        With messages of Redis in hand, kombu puts them back over the very connection that it closes; the error
        of that is no connection error, so that the worker would end. The visibility time-out restores them.
        """
        self._rest(exc)
        if self.connection is not None:
            try:
                self.connection.close()
            except Exception as error:  # noqa: BLE001 - it is given up either way
                _log.warning("closing the broken connection to the broker raised %s", type(error).__name__)
        super().on_connection_error_after_connected(exc)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Wait before the next try, where the broker answers that it refuses."""
        self._rest(exc)
        super().on_connection_error_before_connected(exc)

    def _rest(self, error: Exception) -> None:
        """Wait, because a broker that is full answers at once, so that the worker would try all the time."""
        if isinstance(error, self.channel_errors):
            time.sleep(REFUSED_WAIT_SECONDS)  # there is nothing that would tell that it has room again

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Celery's, for what it can handle: from anything else it would end, and the worker with it, or drop it."""
        receive = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> Any:
            try:
                reason = self._objection(message)
                return receive(message) if reason is None else self._set_aside(message, reason)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                if message.acknowledged:
                    raise
                return self._set_aside(message, f"its envelope cannot be decoded ({type(error).__name__})")

        return on_task_received

    def _objection(self, message: Any) -> str | None:
        """Tell why a message cannot be handled. Of tasks that are no events, Celery is the judge."""
        headers = message.headers
        if not isinstance(headers, dict) or not isinstance(headers.get("task"), str):
            return "it is no task"
        task: Any = self.app.tasks.get(headers["task"])
        if task is None:
            return "no handler is registered for that name; is this worker older than the sender?"
        if not hasattr(task, "event_retries"):
            return None
        if reason := malformed_header(headers):
            return reason
        try:
            args, kwargs = arguments(message.decode())
        except ContentDisallowed as error:
            return f"it is refused ({type(error).__name__})"
        except Exception as error:  # noqa: BLE001 - a codec may raise anything
            return f"it cannot be decoded ({type(error).__name__})"
        read = task.read(args, kwargs, headers.get(HEADER))
        return read if isinstance(read, str) else None

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """The body is not of its content type."""
        self._set_aside(message, f"it cannot be decoded ({type(exc).__name__})")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002 - Celery's signature
        """Its content type is refused (pickle), or its envelope is broken."""
        self._set_aside(message, f"it is refused ({type(exc).__name__})")

    def _set_aside(self, message: Any, reason: str) -> None:
        if time.monotonic() < self._sink_rests_until:
            self._put_back_later(message)
            return
        headers = message.headers if isinstance(message.headers, dict) else {}
        name, message_id = headers.get("task"), headers.get("id")
        try:
            tell_unreadable(
                self.app,
                UnreadableMessage(
                    reason=reason,
                    name=name if isinstance(name, str) else None,
                    message_id=message_id if isinstance(message_id, str) else None,
                    content=_bytes(message.body),
                    content_type=message.content_type,
                ),
                headers.get(HEADER),
            )
        except Exception as error:  # noqa: BLE001 - not acknowledged, so the broker keeps it
            self._sink_failures += 1
            wait = min(2.0**self._sink_failures, MAX_SINK_WAIT_SECONDS)
            self._sink_rests_until = time.monotonic() + wait
            _log.error(
                "the sink of unreadable messages raised %s; they are put back in %.0f s", type(error).__name__, wait
            )
            self._put_back_later(message)
            return
        self._sink_failures = 0
        message.reject_log_error(_log, self.connection_errors)

    def _put_back_later(self, message: Any) -> None:
        """Hold the message for a while, beyond the prefetch limit, as Celery holds a task with an ETA.

        Put back at once, it would come again at once, and the worker would do nothing else.
        """
        self.qos.increment_eventually()
        self.timer.call_after(max(0.0, self._sink_rests_until - time.monotonic()), self._put_back, (message,))

    def _put_back(self, message: Any) -> None:
        message.reject_log_error(_log, self.connection_errors, requeue=True)
        self.qos.decrement_eventually()


def _bytes(body: object) -> bytes:
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    return str(body).encode("utf-8", "surrogateescape")
