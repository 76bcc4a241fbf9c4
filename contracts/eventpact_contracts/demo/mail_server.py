"""A mail server that takes its time, refuses some mails for a while, and holds others until it is told not to."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

__all__ = ["MailServer"]

_CODE: Final = re.compile(rb"code is (\w{8})")


class MailServer:
    """An SMTP server on loopback, in a thread of its own, for the time of a ``with`` block.

    A mail to ``flaky…`` is refused for now (451) the first time; one to ``held…`` gets no answer until
    :meth:`release`.

    Args:
        delay: seconds that it takes to accept a mail; an attribute, which may be changed meanwhile.
    """

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mail-server")
        self._released = asyncio.Event()
        self._refused: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._held: set[str] = set()
        self.mails: list[tuple[str, str | None]] = []
        """The address and the code of each mail that was accepted."""

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self._port}"

    @property
    def refusals(self) -> int:
        """Return how many mails were refused for now."""
        return self._refused.total()

    def received(self) -> dict[str, str | None]:
        """The last code that each address was mailed."""
        with self._changed:
            return dict(self.mails)

    def holding(self) -> set[str]:
        """The addresses whose mails were held at some time."""
        with self._changed:
            return set(self._held)

    def wait_for(self, condition: Callable[[], object], timeout: float) -> bool:
        """Wait until ``condition()`` holds, which is asked after each mail; False if it did not in time."""
        with self._changed:
            return bool(self._changed.wait_for(condition, timeout))

    def release(self) -> None:
        """Answer the mails that are held, and hold no more."""
        self._loop.call_soon_threadsafe(self._released.set)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result()
        self._port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # its client was killed on purpose; or this server stops, which Python 3.11 would log as an error
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recipient = ""

        async def say(line: str) -> None:
            writer.write(f"{line}\r\n".encode())
            await writer.drain()

        await say("220 demo")
        while line := (await reader.readline()).decode("ascii", "replace").strip():
            verb = line[:4].upper()
            if verb == "RCPT":
                recipient = line.partition("<")[2].partition(">")[0]
                await self._hold(recipient)
                await say("250 ok")
            elif verb == "DATA":
                await say("354 go on")
                body = await reader.readuntil(b"\r\n.\r\n")
                await say(await self._accept(recipient, body))
            elif verb == "QUIT":
                await say("221 bye")
                return
            else:
                await say("250 ok")

    async def _hold(self, recipient: str) -> None:
        if recipient.startswith("held") and not self._released.is_set():
            with self._changed:
                self._held.add(recipient)
                self._changed.notify_all()
            await self._released.wait()

    async def _accept(self, recipient: str, body: bytes) -> str:
        if recipient.startswith("flaky") and not self._refused[recipient]:
            with self._changed:
                self._refused[recipient] += 1
                self._changed.notify_all()
            return "451 try again later"
        await asyncio.sleep(self.delay)  # as long as a real mail server takes
        found = _CODE.search(body)
        with self._changed:
            self.mails.append((recipient, found[1].decode() if found else None))
            self._changed.notify_all()
        return "250 ok"
