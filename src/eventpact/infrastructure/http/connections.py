"""Connections of ``eventpact serve``: h11 with a deadline for each request, and limits on open connections."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from ipaddress import ip_network
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from eventpact.infrastructure.http.middleware import FEW, address_of, client_of
from eventpact.infrastructure.http.problems import ProblemResponse, problem, title, unavailable

REQUEST_SECONDS: Final = 10.0
"""Seconds for a client to send a request, and as many to take an answer that it does not read."""

MAX_HEAD_BYTES: Final = 16 * 1024
"""Bytes that the head of a request may have: its first line and its headers."""

_PIECE_BYTES: Final = 4 * 1024


class ConnectionLimits:
    """Bounds the open connections. When they are too many, the oldest that waits for its client is closed.

    A client that sends nothing thus loses its connections to those that do, instead of keeping them out.

    Args:
        most: open connections. One client gets as many as are still free for the others.
        proxies: addresses and networks of reverse proxies, whose connections are those of many clients.
    """

    def __init__(self, most: int, proxies: tuple[str, ...] = ()) -> None:
        self._most = most
        self._proxies = [ip_network(proxy) for proxy in proxies]
        self._open: dict[_Connection, str] = {}  # in the order of their coming
        self._of_client: Counter[str] = Counter()

    def protocol(self) -> Callable[..., asyncio.Protocol]:
        """Return the class of connections, as uvicorn takes it."""
        return partial(_Connection, self)

    def admit(self, connection: _Connection, host: str) -> bool:
        """Count a new connection. False where there is no room for it, and none can be made."""
        client = self._client(host)
        free = self._most - len(self._open)
        if client and self._of_client[client] >= max(FEW, free):
            room = self._close_oldest(lambda each: self._open[each] == client)
        else:
            room = free > 0 or self._close_oldest(lambda _: True)
        if room:
            self._open[connection] = client
            self._of_client[client] += 1
        return room

    def release(self, connection: _Connection) -> None:
        """Stop counting a connection."""
        client = self._open.pop(connection, None)
        if client is not None:
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]

    def _close_oldest(self, among: Callable[[_Connection], bool]) -> bool:
        oldest = next((each for each in self._open if each.waits_for_client and among(each)), None)
        if oldest is None:
            return False
        self.release(oldest)
        oldest.transport.abort()
        return True

    def _client(self, host: str) -> str:
        address = address_of(host)
        if address is None or any(address in network for network in self._proxies):
            return ""
        return client_of(host)


class _Connection(H11Protocol):
    """One connection.

    uvicorn bounds the time between two requests, but not the time of a request: a client that stops in the middle of
    one, or does not read its answer, would hold the connection for as long as it likes.
    """

    def __init__(self, limits: ConnectionLimits, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self._deadline: asyncio.TimerHandle | None = None
        self._has_begun = False

    @property
    def waits_for_client(self) -> bool:
        """True while the client owes the rest of a request, or does not read its answer."""
        return self.flow.write_paused or self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._limits.admit(self, self.client[0] if self.client else ""):
            self._watch()
        else:
            self._refuse(unavailable("the server has too many connections; send the same request again later"))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._limits.release(self)
        self._stop_watching()

    def data_received(self, data: bytes) -> None:
        self._has_begun = True
        # h11 bounds only a head that it has read in part, and asyncio reads up to 256 kB at once.
        for begin in range(0, len(data), _PIECE_BYTES):
            if self.transport.is_closing():
                break
            super().data_received(data[begin : begin + _PIECE_BYTES])
        self._watch()

    def on_response_complete(self) -> None:
        self._has_begun = False
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch()

    def shutdown(self) -> None:
        """End an unfinished request at once: nothing of it was accepted. All others are answered first."""
        if self.waits_for_client:
            self.transport.abort()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        self._refuse(problem(400, f"this is no HTTP/1.1 request, or its head has over {MAX_HEAD_BYTES} bytes"))

    def _watch(self) -> None:
        if not self.waits_for_client:
            self._stop_watching()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self._expire)

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if self.flow.write_paused or not self._has_begun:
            self.transport.abort()
        else:
            self._refuse(problem(408, f"the request was not complete after {REQUEST_SECONDS:g} s"))

    def _refuse(self, answer: ProblemResponse) -> None:
        if self.transport.is_closing():
            return
        headers = [b"%b: %b" % (name.title(), value) for name, value in answer.raw_headers]
        status = f"HTTP/1.1 {answer.status_code} {title(answer.status_code)}".encode()
        self.transport.write(b"\r\n".join([status, *headers, b"Connection: close", b"", bytes(answer.body)]))
        self.transport.close()
