"""Brokers of a Celery app, and the checks of an app that need none to run."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from celery import Celery
from kombu import Connection
from kombu.compression import compress, decompress
from kombu.serialization import dumps, loads, prepare_accept_content

from eventpact.domain.dispatcher import RegistrationError
from eventpact.infrastructure.dispatching.failures import RetryPolicy

_SUPPORTED: Final = {"amqp", "memory", "redis"}

SERIALIZER: Final = "json"
"""Events are JSON, whatever the app's other tasks are: unpickling a message would run code that its sender chose."""

_CONNECT_SECONDS: Final = 5

_REFUSALS: Final = {
    *("AccessRefused", "NotAllowed"),  # RabbitMQ
    *("AuthenticationError", "NoPermissionError", "ResponseError"),  # Redis; one that is only busy has others
}


def broker_urls(app: Celery) -> tuple[str, ...]:
    """The brokers that the app publishes to: one, or several that stand in for one another."""
    given: Any = app.conf.broker_write_url or "amqp://"
    return tuple(given.split(";") if isinstance(given, str) else map(str, given))


def transport_of(app: Celery) -> str:
    """The kind of the app's broker: ``amqp`` (RabbitMQ), ``redis``, or ``memory`` (one process, for tests).

    Raises:
        RegistrationError: it is another, or the brokers are of several kinds.
    """
    kinds = {_driver_type(url) for url in broker_urls(app)}
    if len(kinds) == 1 and kinds <= _SUPPORTED:
        return kinds.pop()
    raise RegistrationError(
        f"the broker of the Celery app is {' and '.join(sorted(kinds))}; give it one of redis://, rediss://, sentinel://,"
        " amqp://, amqps:// or memory://, or several of one kind, of which one is used at a time"
    )


def is_amqp(app: Celery) -> bool:
    """Return whether the app's broker is RabbitMQ."""
    return transport_of(app) == "amqp"


@cache
def _driver_type(url: str) -> str:
    try:
        return str(Connection(url.partition("?")[0]).transport.driver_type)
    except Exception:  # noqa: BLE001 - a transport without its library raises what it likes, a NameError for one
        return url.partition(":")[0]


def bounded_connection(app: Celery) -> Connection:
    """Return a connection of a worker, to be opened, that does not wait without end for a broker that does not answer.

    kombu's own time-out of connecting is for RabbitMQ alone.
    """
    limits = {} if is_amqp(app) else dict.fromkeys(("socket_timeout", "socket_connect_timeout"), _CONNECT_SECONDS)
    connection: Connection = app.connection_for_read(connect_timeout=_CONNECT_SECONDS, transport_options=limits)
    return connection


def refusal(error: BaseException) -> str | None:
    """Return the broker's words if it refuses a connection: its user, password, virtual host or database."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ in _REFUSALS:
            return " ".join(str(cause).split())
        cause = cause.__cause__ or cause.__context__
    return None


def check_app(app: Celery, policy: RetryPolicy) -> None:
    """Raise :class:`RegistrationError` if events could never be published with this app, or never be handled."""
    if not isinstance(app, Celery):
        raise RegistrationError(f"the Celery app is a {type(app).__name__}; give a celery.Celery")
    if app.conf.task_always_eager:
        raise RegistrationError(
            "the Celery app has task_always_eager, but an event is always published, and would wait for a worker; leave"
            " it out, or build a SyncEventDispatcher where it is set"
        )
    on_redis = transport_of(app) == "redis"
    for url in broker_urls(app):
        try:
            visibility = try_connection(app.connection_for_write(url))
        except Exception as error:
            shown = "" if "@" in url or "password" in url else f": {error}"  # which may quote it
            raise RegistrationError(
                f"no connection can be made with the broker {url.partition(':')[0]}://… of the Celery app and its"
                f" broker_transport_options ({type(error).__name__}{shown}); correct them"
            ) from error
        if on_redis:
            _check_visibility(visibility, policy)
    _check_encoding(app)


def try_connection(connection: Any) -> Any:
    """Go as far as Celery goes before it connects. Raises what Celery would raise.

    Returns:
        Of Redis, the seconds after which a message is delivered again (``visibility_timeout``), as they were given.
    """
    transport = connection.transport
    if not isinstance(connection.connect_timeout, (int, float)):  # of the query, and then a text
        raise TypeError("connect_timeout is no number")
    if transport.driver_type != "redis":
        return None
    # kombu knows the parameters of a connection only inside a channel, and connects to make one.
    channel = object.__new__(transport.Channel)
    channel.connection = transport
    given = connection.transport_options
    vars(channel).update({name: given[name] for name in channel.from_transport_options if name in given})
    channel._get_pool().make_connection()
    return channel.visibility_timeout


def _check_visibility(visibility: Any, policy: RetryPolicy) -> None:
    if not isinstance(visibility, (int, float)) or not visibility > 0:
        raise RegistrationError(
            f"visibility_timeout in the broker_transport_options of the Celery app is {visibility!r}; give a number of"
            " seconds, or leave it out"
        )
    longest_wait = policy.longest_wait(policy.retries) if policy.retries else 0.0
    if visibility <= longest_wait:
        raise RegistrationError(
            f"a retry waits up to {longest_wait:g} s (retries, backoff, max_backoff), but Redis delivers a message"
            f" again after {visibility:g} s (visibility_timeout), so that it would be attempted twice; raise"
            " EVENTPACT_CELERY_VISIBILITY_TIMEOUT, or lower EVENTPACT_RETRIES or EVENTPACT_RETRY_BACKOFF"
        )


def _check_encoding(app: Celery) -> None:
    """Raise unless a worker with the settings of this app can read what it writes."""
    conf = app.conf
    content_type, encoding, body = dumps([[{}], {}, {}], SERIALIZER)
    try:
        if conf.task_compression:
            decompress(*compress(body, conf.task_compression))
        loads(body, content_type, encoding, accept=prepare_accept_content(conf.accept_content))
    except Exception as error:
        raise RegistrationError(
            f"a worker of the Celery app could not read its messages, which are JSON ({type(error).__name__}: {error});"
            " let accept_content hold json, and task_compression name a method that is installed, or none"
        ) from error


def check_agreement(agreement: Mapping[str, str] | None) -> None:
    """Raise :class:`RegistrationError` unless it can be stated in a message."""
    pairs: Any = {} if agreement is None else agreement
    if not isinstance(pairs, Mapping) or not all(isinstance(text, str) for pair in pairs.items() for text in pair):
        raise RegistrationError(f"agreement is {agreement!r}; give a dictionary of texts: facts by name")
