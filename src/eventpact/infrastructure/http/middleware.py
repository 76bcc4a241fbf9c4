"""Middleware: body size, concurrency and rate limits, and constant-time responses."""

import asyncio
import logging
import math
import time
import traceback
from collections import Counter
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from uuid import uuid4

import limits
from limits.errors import ConfigurationError
from limits.storage import storage_from_string
from limits.strategies import MovingWindowRateLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eventpact.infrastructure.http.problems import (
    PROBLEMS,
    ProblemResponse,
    TooManyRequestsError,
    problem,
    too_many,
    unavailable,
)
from eventpact.infrastructure.monitoring.logs import REQUEST_ID
from eventpact.settings import SettingsError

_log = logging.getLogger("eventpact")

FEW: Final = 10
"""Requests and connections that every client may have at once, however busy the server is."""


class Requests:
    """Gives each request an id for the log and the answer, and a client that is an address or nobody.

    A trusted proxy is believed about the address of its client, but not about anything else that may stand there,
    because it would be logged.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid4().hex
        # Never reset: the server logs the request after this has returned, in the same context.
        REQUEST_ID.set(request_id)
        if scope.get("client") and address_of(scope["client"][0]) is None:
            scope["client"] = ("unknown", 0)

        async def identified(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        await self._app(scope, receive, identified)


class CatchAll:
    """Answers every other error. Starlette's own handler would raise it again, and the server would log its text."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise
            await _unexpected(scope, error)(scope, receive, send)


def _unexpected(scope: Scope, error: Exception) -> ProblemResponse:
    error_id = uuid4().hex
    # Without the exception's text, which may quote an address.
    _log.error(
        "error %s: %s in %s %s\n%s",
        error_id,
        type(error).__name__,
        scope["method"],
        ascii(scope["path"]),
        "".join(traceback.format_tb(error.__traceback__)),
    )
    return problem(500, PROBLEMS[500], error_id=error_id)


class BodyLimit:
    """Reads a body whole before the application sees it, and answers 413 to one that is too large.

    One whose length is stated in two ways is refused: what stands in front may have believed the other (RFC 9112, 6.3).
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if {b"transfer-encoding", b"content-length"} <= {name for name, _ in scope["headers"]}:
            fault = "send Content-Length or Transfer-Encoding, but not both"
            await problem(400, fault, headers={"Connection": "close"})(scope, receive, send)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_bytes:
                answer = problem(
                    413, f"a body may have {self._max_bytes} bytes at most", headers={"Connection": "close"}
                )
                await answer(scope, receive, send)
                return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)


class EvenPace:
    """Lets answers about accounts leave at multiples of ``step`` seconds, whatever was found while they were made.

    An answer that takes longer than a step, because a mail is sent before it, takes more steps.
    """

    def __init__(self, app: ASGIApp, step: float) -> None:
        self._app = app
        self._step = step

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_about_accounts(scope):
            await self._app(scope, receive, send)
            return
        began = time.monotonic()

        async def paced(message: Message) -> None:
            if message["type"] == "http.response.start":
                await asyncio.sleep((began - time.monotonic()) % self._step)
            await send(message)

        await self._app(scope, receive, paced)


class InFlightLimit:
    """Answers 503 while ``most`` requests about accounts are being served, so that none waits for long.

    They are served by a pool of threads, whose queue has no end of its own. One client gets as many as are still free
    for the others, so that it cannot keep them out.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._in_flight: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_about_accounts(scope):
            await self._app(scope, receive, send)
            return
        client = client_of(scope["client"][0] if scope.get("client") else "unknown")
        free = self._most - self._in_flight.total()
        if free <= 0:
            await unavailable("the server is busy; nothing was done, send the same request again later")(
                scope, receive, send
            )
            return
        if self._in_flight[client] >= max(FEW, free):
            await too_many("too many requests at once from this address", retry_after=1)(scope, receive, send)
            return
        self._in_flight[client] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight[client] -= 1
            if not self._in_flight[client]:
                del self._in_flight[client]


class ClientLimit:
    """Counts the requests of each client address in a moving window. In IPv6 a client has a whole /64 network.

    Args:
        rate: as the ``limits`` library writes it, ``20/minute``. It holds for each kind of request by itself.
        storage: ``memory://``, or ``redis://…`` where several processes must count together.

    Attributes:
        is_shared: True where the storage is another process, which may be unreachable.

    Raises:
        SettingsError: there is no such storage, or no library for it.
    """

    def __init__(self, rate: str, storage: str) -> None:
        self.is_shared = not storage.startswith("memory:")
        self._rate = limits.parse(rate)
        waits = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0} if self.is_shared else {}
        try:
            self._storage = storage_from_string(storage, wrap_exceptions=True, **waits)
        except ConfigurationError as error:
            raise SettingsError(
                f"EVENTPACT_RATE_LIMIT_STORAGE: {error}; pip install 'eventpact[celery]' brings what redis:// needs"
            ) from None
        self._limiter = MovingWindowRateLimiter(self._storage)

    def count(self, kind: str, host: str) -> None:
        """Count one request of this kind.

        Raises:
            TooManyRequestsError: the client has used up its limit.
            limits.errors.StorageError: the storage cannot be reached.
        """
        client = client_of(host)
        if not self._limiter.hit(self._rate, kind, client):
            reset = self._limiter.get_window_stats(self._rate, kind, client).reset_time
            raise TooManyRequestsError(max(1, math.ceil(reset - time.time())))

    def check(self) -> None:
        """Raise ``limits.errors.StorageError`` unless the storage can be written."""
        self._storage.incr("eventpact-ready", 1)


def _is_about_accounts(scope: Scope) -> bool:
    return scope["type"] == "http" and str(scope["path"]).startswith(("/accounts", "/verify"))


def address_of(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a host is, without its zone; None where it is a name."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def client_of(host: str) -> str:
    """Return the name that a client is counted under: its IPv4 address, or its IPv6 network."""
    address = address_of(host)
    if not isinstance(address, IPv6Address):
        return host
    return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))
