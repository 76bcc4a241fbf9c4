"""One connection to the broker for publishing, on which nothing can take long."""

from __future__ import annotations

import logging
import select
import time
from concurrent.futures import Future, wait
from functools import cache
from typing import Any, Final

from celery import Celery
from kombu import Connection

from eventpact.domain.dispatcher import DispatchError
from eventpact.infrastructure.celery.queues import broker_urls, declare_queues, is_amqp
from eventpact.infrastructure.dispatching.threads import in_thread

__all__ = ["STEP", "BrokerConnection", "Connector"]

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
    """An open connection, its channel and a producer. Not to be used by two threads at once.

    Args:
        url: of the broker.
        step: seconds that one answer of the broker may take.
        connect_step: seconds that it may take to accept the connection.

    Attributes:
        used_at: when it was last given back, on the monotonic clock.
    """

    def __init__(self, app: Celery, url: str, step: float, connect_step: float) -> None:
        self._amqp = is_amqp(app)
        self._connection: Connection = app.connection_for_write(
            url, connect_timeout=connect_step, transport_options=_limits(step, connect_step, amqp=self._amqp)
        )
        self.used_at = time.monotonic()
        try:
            self._connection.ensure_connection(max_retries=0)  # whoever dispatches decides whether to try again
            channel: Any = self._connection.channel()
            if hasattr(channel, "Client"):
                # kombu makes a client of redis-py for each command, which takes longer than the command itself. One for
                # each pool does the same: it only borrows the pool's connections.
                channel.Client = cache(channel.Client)
            self.channel = channel
            self.producer: Any = app.amqp.Producer(self.channel, auto_declare=False)
            declare_queues(app, self.channel)
        except BaseException:
            self.close(broken=True)
            raise

    @property
    def connection_errors(self) -> tuple[type[BaseException], ...]:
        """Exceptions raised when the connection broke, or the broker did not answer."""
        errors: tuple[type[BaseException], ...] = self._connection.connection_errors
        return errors

    @property
    def channel_errors(self) -> tuple[type[BaseException], ...]:
        """Exceptions raised when the broker answered that it refuses."""
        errors: tuple[type[BaseException], ...] = self._connection.channel_errors
        return errors

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
    """Makes connections by a deadline. In threads, because name resolution and handshakes have none of their own."""

    def __init__(self, app: Celery, step: float = STEP) -> None:
        self._app = app
        self._step = step
        self._urls = list(broker_urls(app))  # the one that answered last is the first
        self._late: set[Future[BrokerConnection]] = set()

    def connect(self, what: str) -> BrokerConnection:
        """A new connection.

        Raises:
            DispatchError: there is none within ``step`` seconds; the message begins with ``what``.
        """
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
                connection = BrokerConnection(self._app, url, self._step, self._step / len(urls))
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
