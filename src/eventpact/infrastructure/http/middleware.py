"""Middleware: body size, concurrency and rate limits, and constant-time responses."""

from __future__ import annotations

import asyncio
import math
import time
from ipaddress import IPv6Address, ip_address

import limits
from limits.errors import ConfigurationError
from limits.storage import storage_from_string
from limits.strategies import MovingWindowRateLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eventpact.infrastructure.http.problems import TooManyRequestsError, problem, unavailable
from eventpact.settings import SettingsError

__all__ = ["BodyLimit", "ClientLimit", "EvenPace", "InFlightLimit", "client_of"]


class BodyLimit:
    """Reads a body whole before the application sees it, and answers 413 to one that is too large."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
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

    What takes longer than a step, as mailing before answering does, still takes more steps.
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
    """Answers 503 to what comes while ``most`` requests about accounts are being served, so that none waits for long.

    They are served by a pool of threads, whose queue has no end of its own.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_about_accounts(scope):
            await self._app(scope, receive, send)
            return
        if self._in_flight >= self._most:
            await unavailable("the server is busy; nothing was done, send the same request again later")(
                scope, receive, send
            )
            return
        self._in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1


class ClientLimit:
    """Counts the requests of each client address in a moving window. In IPv6 a client has a whole /64 network.

    Args:
        rate: as the ``limits`` library writes it, ``20/minute``. It holds for each kind of request by itself.
        storage: ``memory://``, or ``redis://…`` where several processes must count together.

    Raises:
        SettingsError: there is no such storage, or no library for it.
    """

    def __init__(self, rate: str, storage: str) -> None:
        self._rate = limits.parse(rate)
        waits = {} if storage.startswith("memory:") else {"socket_timeout": 1.0, "socket_connect_timeout": 1.0}
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
        """Ask the storage whether it can be written.

        Raises:
            limits.errors.StorageError: it cannot.
        """
        self._storage.incr("eventpact-ready", 1)


def _is_about_accounts(scope: Scope) -> bool:
    return scope["type"] == "http" and str(scope["path"]).startswith("/accounts")


def client_of(host: str) -> str:
    """Return the name that a client is counted under: its IPv4 address, or its IPv6 network."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))
