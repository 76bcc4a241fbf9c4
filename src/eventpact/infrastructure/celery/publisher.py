"""Publishing that is bounded in time and confirmed, over connections that are held."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from amqp.exceptions import MessageNacked
from celery import Celery
from kombu import Queue

from eventpact.domain.dispatcher import DispatchError, DispatchUncertainError
from eventpact.infrastructure.celery.connection import STEP, BrokerConnection, Connector
from eventpact.infrastructure.celery.queues import is_amqp
from eventpact.infrastructure.dispatching.processes import reset_in_children

__all__ = ["Publisher"]

_AT_ONCE: Final = 0.2
"""A held connection that breaks sooner than this was dead already, and there is time left for a new one."""

_IDLE: Final = 30.0
"""Seconds after which a held connection is not trusted any more: a firewall may have forgotten it silently."""

_LEAST: Final = 0.2
"""Seconds that closing waits for connections that are still being made, however little time there is."""

_KEPT: Final = 16
"""How many connections are held while nobody publishes."""


class Publisher:
    """Publishes the messages of one app, each over a connection that no other thread uses meanwhile.

    The connections are its own, not those of the app's pools, which wait without end by default, and on a worker must.
    A forked child opens its own.

    Args:
        step: seconds that connecting may take, and as much again publishing.
    """

    def __init__(self, app: Celery, step: float = STEP) -> None:
        self._app = app
        self._step = step
        self._lock = threading.Lock()
        self._connector = Connector(app, step)
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

        Celery's signals are sent, so what listens to them sees this as it sees every task.

        Raises:
            DispatchUncertainError: the broker did not answer in time, so it may have the message.
            DispatchError: it has not.
        """

        def put(connection: BrokerConnection) -> None:
            self._app.amqp.send_task_message(
                connection.producer,
                name,
                message,
                queue=queue,  # through the default exchange, which routes by the queue's name
                declare=[],
                retry=False,
                **self._limits,
                **properties,
            )

        self.use(put, name)

    def use(self, action: Callable[[BrokerConnection], None], what: str) -> None:
        """Call ``action`` with an open connection; a second time, if a held one turns out to be dead.

        Raises:
            DispatchError: as :meth:`publish`.
        """
        in_doubt = False
        connection = self._take()
        if connection is not None:
            started = time.monotonic()
            try:
                action(connection)
            except BaseException as error:
                connection.close(broken=True)
                if time.monotonic() - started > _AT_ONCE or not isinstance(error, _broken(connection)):
                    raise _refusal(what, error, connection) from error
                in_doubt = not isinstance(error, connection.channel_errors) and _was_sent(error)
            else:
                self._give_back(connection)
                return
        try:
            connection = self._connector.connect(what)
        except DispatchError as error:
            if in_doubt:
                raise DispatchUncertainError(f"{what} may have been accepted: the connection broke") from error
            raise
        try:
            action(connection)
        except BaseException as error:
            connection.close(broken=True)
            refusal = _refusal(what, error, connection)
            if in_doubt and isinstance(refusal, DispatchError):
                refusal = DispatchUncertainError(f"{what} may have been accepted, though the second try was refused")
            raise refusal from error
        self._give_back(connection)

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
        self._connector = Connector(self._app, self._step)


def _broken(connection: BrokerConnection) -> tuple[type[BaseException], ...]:
    """Errors that a new connection may mend: a dead one, or a queue that was deleted (it declares it anew)."""
    return (*connection.connection_errors, *connection.channel_errors)


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
