"""What tests with real services share: a mail server, a proxy, a database and a queue of one's own."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import kombu
import psycopg
import redis
from aiosmtpd.smtp import SMTP, Envelope

CODE: Final = re.compile(rb"code is (\w{8})")


class LoopInThread:
    """An event loop in a thread, for the time of a ``with`` block."""

    def __enter__(self) -> Self:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.run(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class MailServer(LoopInThread):
    """A real SMTP server that keeps what it takes.

    Attributes:
        mails: recipient and code of each mail, in the order of their coming.
        refuse: how many times each recipient's mail is refused, by default for now.
        refusal: with what.
        gate: while it is closed, no mail is answered.
    """

    def __init__(self) -> None:
        self.mails: list[tuple[str, str]] = []
        self.refuse: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.refusal = "451 try again later"
        self.waiting = 0

    def __enter__(self) -> Self:
        super().__enter__()
        self.gate = asyncio.Event()
        self.loop.call_soon_threadsafe(self.gate.set)
        make = self.loop.create_server(lambda: SMTP(self, loop=self.loop, enable_SMTPUTF8=True), "127.0.0.1", 0)
        self._server = self.run(make)
        return self

    def __exit__(self, *exc: Any) -> None:
        self.loop.call_soon_threadsafe(self.gate.set)
        self.loop.call_soon_threadsafe(self._server.close)
        super().__exit__(*exc)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def hold(self) -> None:
        self.loop.call_soon_threadsafe(self.gate.clear)

    def release(self) -> None:
        self.loop.call_soon_threadsafe(self.gate.set)

    def codes(self, recipient: str) -> list[str]:
        return [code for address, code in self.mails if address == recipient]

    async def handle_DATA(self, _: object, __: object, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        (recipient,) = envelope.rcpt_tos
        self.waiting += 1
        await self.gate.wait()
        if self.refuse[recipient] > self.refused[recipient]:
            self.refused[recipient] += 1
            return self.refusal
        content = envelope.content
        found = CODE.search(content if isinstance(content, bytes) else (content or "").encode())
        self.mails.append((recipient, found[1].decode() if found else ""))
        return "250 ok"


_given_ports: set[int] = set()


def steady_port() -> int:
    """A free port that no outgoing connection is given, so that a server which was unreachable can have it again.

    No port is given twice, because a server binds its port later, or is restarted.
    """
    for port in random.sample(sorted(set(range(20_000, 32_000)) - _given_ports), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given_ports.add(port)
            return port
    raise OSError("there is no free port between 20000 and 32000")


_PORTS: Final = {"amqp": 5672, "redis": 6379, "postgresql": 5432}


class Proxy(LoopInThread):
    """Passes TCP connections on to a server, until it is told to cut them, or to let nothing through.

    Attributes:
        delay: seconds that whatever passes is held up.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._parts = parts
        self._target = (parts.hostname or "127.0.0.1", parts.port or _PORTS[parts.scheme])
        self._port = steady_port()
        self._writers: set[asyncio.StreamWriter] = set()
        self.delay = 0.0

    def __enter__(self) -> Self:
        super().__enter__()
        self._passing = asyncio.Event()
        self._passing.set()
        self.open()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.cut()
        super().__exit__(*exc)

    @property
    def url(self) -> str:
        userinfo, at, _ = self._parts.netloc.rpartition("@")
        return urlunsplit(self._parts._replace(netloc=f"{userinfo}{at}127.0.0.1:{self._port}"))

    def open(self) -> None:
        self._server = self.run(asyncio.start_server(self._pass_on, "127.0.0.1", self._port))

    def cut(self) -> None:
        """Refuse new connections, and end the others."""

        async def close() -> None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()

        self.run(close())

    def stall(self) -> None:
        """Accept connections, and let nothing through on any of them, as a black hole does."""
        self.loop.call_soon_threadsafe(self._passing.clear)

    def resume(self) -> None:
        """Let through what was held up, and all that follows."""
        self.loop.call_soon_threadsafe(self._passing.set)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()  # the server is away, which its clients are to see
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        except asyncio.CancelledError:
            return  # the proxy ends; a cancelled task would be told as an error in Python 3.11
        finally:
            self._writers -= {writer, back}
            for each in (writer, back):
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._passing.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        writer.close()


@contextmanager
def own_database(url: str) -> Iterator[str]:
    """A PostgreSQL database that nobody else uses."""
    name = f"eventpact_{uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    try:
        yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextmanager
def own_queue(url: str) -> Iterator[str]:
    """The name of a queue that nobody else uses, and of which nothing is left."""
    name = f"test-{uuid4().hex}"
    try:
        yield name
    finally:
        if url.startswith("redis"):
            with redis.Redis.from_url(url) as client:
                for key in client.scan_iter(match=f"*{name}*"):
                    client.delete(key)
        else:
            with kombu.Connection(url) as connection:
                for each in (name, f"{name}.dead", *(f"{name}.retry.{attempt}" for attempt in range(2, 10))):
                    connection.channel().queue_delete(each)
