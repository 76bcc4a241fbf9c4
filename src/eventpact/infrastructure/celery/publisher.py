"""Publishing that is bounded in time and confirmed, over connections that are held."""

import logging
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, wait
from functools import cache
from typing import Any, Final

from amqp.exceptions import MessageNacked
from celery import Celery
from kombu import Connection, Queue

from eventpact.domain.dispatcher import DispatchError, DispatchUncertainError
from eventpact.infrastructure.celery.brokers import SERIALIZER, broker_urls, is_amqp, refusal
from eventpact.infrastructure.celery.messages import declare_queues
from eventpact.infrastructure.dispatching.threads import in_thread, reset_in_children

_log = logging.getLogger("eventpact")

STEP: Final = 0.8
"""Seconds that connecting may take, and as much again publishing: together less than the 2 of law A5."""


def _limits(step: float, connect_step: float, *, amqp: bool) -> dict[str, Any]:
    if amqp:
        return {
            "read_timeout": step,
            "write_timeout": step,
            "max_retries": 0,
            "confirm_publish": True,  # without it, publishing to a frozen broker seems to succeed
        }
    return {
        "socket_timeout": step,
        "socket_connect_timeout": connect_step,
        "retry_on_timeout": False,
        "max_retries": 0,
        "health_check_interval": 0,  # asking a held connection whether it lives may take as long as using it
    }


class BrokerConnection:
    """An open connection, its channel and a producer, to be used by one thread at a time.

    The broker has ``connect_step`` seconds to accept the connection, and ``step`` seconds for each answer.
    """

    def __init__(self, app: Celery, queues: Collection[Queue], url: str, step: float, connect_step: float) -> None:
        self._amqp = is_amqp(app)
        self._connection: Connection = app.connection_for_write(
            url, connect_timeout=connect_step, transport_options=_limits(step, connect_step, amqp=self._amqp)
        )
        # Raised when the connection broke or the broker did not answer, and when it answered that it refuses.
        self.connection_errors: tuple[type[BaseException], ...] = self._connection.connection_errors
        self.channel_errors: tuple[type[BaseException], ...] = self._connection.channel_errors
        self.used_at = time.monotonic()  # when it was last given back
        try:
            self._connection.ensure_connection(max_retries=0)  # whoever dispatches decides whether to try again
            channel: Any = self._connection.channel()
            if hasattr(channel, "Client"):
                # kombu makes a client of redis-py for each command, which takes longer than the command itself. One for
                # each pool does the same: it only borrows the pool's connections.
                channel.Client = cache(channel.Client)
            self.channel = channel
            self.producer: Any = app.amqp.Producer(self.channel, auto_declare=False)
            declare_queues(app, queues, self.channel)
        except BaseException:
            self.close(broken=True)
            raise

    def is_stale(self) -> bool:
        """Return whether the broker has hung up, or says something unasked, which is never good news."""
        if not self._amqp:
            return False  # redis-py looks for itself
        return bool(select.select([self._connection.connection.sock], [], [], 0)[0])

    def close(self, *, broken: bool = False) -> None:
        """Close it, even if the broker is gone; a broken one without a word to the broker, who might take his time.

        In good order, RabbitMQ is waited for twice; Redis is not.
        """
        if broken and self._amqp:
            self._connection.collect()
            return
        try:
            self._connection.release()
        except Exception as error:  # noqa: BLE001 - it is given up either way
            _log.debug("closing a connection to the broker raised %s", type(error).__name__)
            if self._amqp:  # of others, kombu would change the time-out of every socket of this process meanwhile
                self._connection.collect()


class Connector:
    """Makes connections by a deadline. In threads, because name resolution and handshakes have none of their own.

    Args:
        queues: declared over each connection.
    """

    def __init__(self, app: Celery, queues: Collection[Queue], step: float = STEP) -> None:
        self._app = app
        self._queues = queues
        self._step = step
        self._urls = list(broker_urls(app))  # the one that answered last is the first
        self._late: set[Future[BrokerConnection]] = set()

    def connect(self, what: str) -> BrokerConnection:
        """Make a connection in ``step`` seconds, or raise :class:`DispatchError`, which begins with ``what``."""
        made = in_thread(self._open, name="eventpact-connect")
        try:
            return made.result(self._step)
        except TimeoutError as error:
            self._urls.append(self._urls.pop(0))
            self._late.add(made)
            made.add_done_callback(self._close_late)
            raise DispatchError(
                f"{what} was refused: the broker did not answer within {self._step} s; is it running?"
            ) from error
        except Exception as error:
            if reason := refusal(error):
                raise DispatchError(f"{what} was refused by the broker: {reason}; check its URL") from error
            raise DispatchError(
                f"{what} was refused: the broker cannot be reached ({type(error).__name__}); is it running?"
            ) from error

    def close(self, timeout: float) -> None:
        """Wait for the connections that came too late, which are closed."""
        wait(set(self._late), timeout)

    def _open(self) -> BrokerConnection:
        urls = list(self._urls)
        errors: list[Exception] = []
        for url in urls:
            try:
                connection = BrokerConnection(self._app, self._queues, url, self._step, self._step / len(urls))
            except Exception as error:  # noqa: BLE001 - raised again, unless another broker answers
                errors.append(error)
                continue
            self._urls.sort(key=url.__ne__)
            return connection
        raise errors[0]

    def _close_late(self, made: Future[BrokerConnection]) -> None:
        if made.exception() is None:
            made.result().close()
        self._late.discard(made)


_AT_ONCE: Final = 0.2
"""A held connection that breaks sooner than this was dead already, and there is time left for a new one."""

_IDLE: Final = 30.0
"""Seconds after which a held connection is not trusted any more: a firewall may have forgotten it silently."""

_LEAST: Final = 0.2
"""Seconds that closing waits for connections that are still being made, however little time there is."""

_KEPT: Final = 16
"""The number of connections that are held while nobody publishes."""


class Publisher:
    """Publishes the messages of one app, each over a connection that no other thread uses meanwhile.

    The connections are its own, not those of the app's pools, which wait without end by default, and on a worker must.
    A forked child opens its own. Connecting may take ``step`` seconds, and publishing as much again.

    Args:
        queues: that it publishes to.
    """

    def __init__(self, app: Celery, queues: Collection[Queue] = (), step: float = STEP) -> None:
        self._app = app
        self._queues = queues
        self._step = step
        self._lock = threading.Lock()
        self._connector = Connector(app, queues, step)
        self._idle: deque[BrokerConnection] = deque()
        self._inherited: list[BrokerConnection] = []
        self._closed = False
        reset_in_children(self)
        self._limits: dict[str, Any] = (
            # Unroutable is told only of mandatory messages: a queue may have been deleted.
            {"mandatory": True, "timeout": step, "confirm_timeout": step} if is_amqp(app) else {}
        )

    def publish(self, name: str, message: Any, queue: Queue, **properties: Any) -> None:
        """Put a task message, as ``app.amqp.as_task_v2`` makes it, on a queue.

        Celery's signals are sent as for every task.

        Raises:
            DispatchUncertainError: the broker did not answer in time, so it may have the message.
            DispatchError: it has not.
        """

        def put(connection: BrokerConnection) -> None:
            self._app.amqp.send_task_message(
                connection.producer,
                name,
                message,
                queue=queue,
                exchange_type="direct",  # has Celery take the default exchange, which routes by the queue's name
                serializer=SERIALIZER,
                declare=[],
                retry=False,
                **self._limits,
                **properties,
            )

        self.use(put, name)

    def use(self, action: Callable[[BrokerConnection], object], what: str) -> None:
        """Call ``action`` with an open connection; again, if a held one is dead. Raises as :meth:`publish` does."""
        in_doubt = False
        if (held := self._take()) is not None:
            started = time.monotonic()
            if (fault := self._try(held, action)) is None:
                return
            # A new connection may mend a dead one, or a queue that was deleted: it declares it anew.
            broken = isinstance(fault, (*held.connection_errors, *held.channel_errors))
            if time.monotonic() - started > _AT_ONCE or not broken:
                raise _refusal(what, fault, held) from fault
            in_doubt = not isinstance(fault, held.channel_errors) and _was_sent(fault)
        try:
            connection = self._connector.connect(what)
        except DispatchError as error:
            if in_doubt:
                raise DispatchUncertainError(f"{what} may have been accepted: the connection broke") from error
            raise
        if (fault := self._try(connection, action)) is not None:
            refusal = _refusal(what, fault, connection)
            if in_doubt and isinstance(refusal, DispatchError):
                refusal = DispatchUncertainError(f"{what} may have been accepted, though the second try was refused")
            raise refusal from fault

    def _try(self, connection: BrokerConnection, action: Callable[[BrokerConnection], object]) -> BaseException | None:
        """Call ``action``, and hold the connection for the next or, if that raises, close it and return the error."""
        try:
            action(connection)
        except BaseException as error:  # noqa: BLE001 - raised by the caller, unless another connection mends it
            connection.close(broken=True)
            return error
        self._give_back(connection)
        return None

    def close(self, timeout: float) -> None:
        """Close the connections that are held, within ``timeout`` seconds or soon after.

        One that is in use is closed when it is given back.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, deque()
        for connection in idle:
            left = deadline - time.monotonic()
            connection.close(broken=left < 2 * self._step)  # to part in good order may take as long
        self._connector.close(max(_LEAST, deadline - time.monotonic()))

    def _take(self) -> BrokerConnection | None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - connection.used_at < _IDLE and not connection.is_stale():
                return connection
            connection.close(broken=True)

    def _give_back(self, connection: BrokerConnection) -> None:
        connection.used_at = time.monotonic()
        with self._lock:
            keep = not self._closed and len(self._idle) < _KEPT
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()

    def reset_after_fork(self) -> None:
        """Leave the parent's connections to it: closing their sockets would end its conversations."""
        self._inherited += self._idle
        self._lock, self._idle = threading.Lock(), deque()
        self._connector = Connector(self._app, self._queues, self._step)


def _was_sent(error: BaseException | None) -> bool:
    """Return whether something may have reached the broker before this was raised."""
    while error is not None:
        if isinstance(error, (ConnectionRefusedError, socket.gaierror)):
            return False
        error = error.__cause__ or error.__context__
    return True


def _refusal(what: str, error: BaseException, connection: BrokerConnection) -> BaseException:
    if isinstance(error, (*connection.channel_errors, MessageNacked)):
        return DispatchError(f"{what} was refused by the broker ({type(error).__name__})")
    if isinstance(error, (*connection.connection_errors, OSError)):
        return DispatchUncertainError(
            f"{what} may have been accepted: the broker did not answer in time ({type(error).__name__}); dispatch the"
            " same event again, which does no harm"
        )
    return error
