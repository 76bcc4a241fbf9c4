"""Known-bad handlers, one defect each, with the law that convicts it.

Each is a contract class, so ``eventpact verify eventpact_contracts.handlers.rogues:Counter`` shows its verdict.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any, ClassVar, Final
from uuid import uuid4

from eventpact.domain.events import AccountCreatedEvent
from eventpact_contracts.handlers.contract import HandlerContract

__all__ = ["HANDLER_ROGUES", "CheckThenAct", "Counter", "EarlyRow", "Guarded", "Keyless", "LostUpdate"]


class _Rows:
    """A table: rows by key."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self._lock = threading.Lock()

    def has(self, key: str) -> bool:
        return key in self.rows

    def insert(self, key: str) -> None:
        self.rows.append(key)

    def insert_if_absent(self, key: str) -> bool:
        with self._lock:
            if key in self.rows:
                return False
            self.rows.append(key)
            return True


class _MailServer:
    """A mail server that drops a mail whose key it has seen."""

    def __init__(self) -> None:
        self.mails: dict[str, str] = {}

    async def send(self, to: str, key: str) -> None:
        await asyncio.sleep(0)
        self.mails[key] = to


class _Balance:
    def __init__(self) -> None:
        self.value = 0

    def read(self) -> int:
        return self.value

    def write(self, value: int) -> None:
        self.value = value


class _Rogue(HandlerContract):
    convicted_by: ClassVar[str]
    message: ClassVar[str]
    also: ClassVar[tuple[str, ...]] = ()

    def handler(self) -> Any:
        self.rows, self.server, self.balance = _Rows(), _MailServer(), _Balance()
        return self

    def event(self) -> AccountCreatedEvent:
        return AccountCreatedEvent(account_id="1", email="ada@example.com")

    def state(self) -> Any:
        return sorted(self.rows.rows), len(self.server.mails), self.balance.value


class Counter(_Rogue):
    """Adds to a balance, and keeps no record of the events that it contains."""

    convicted_by, message, also = "H1", "after it was handled twice", ("H2", "H3")

    def handle(self, event: AccountCreatedEvent) -> None:  # noqa: ARG002 - any event counts
        self.balance.write(self.balance.read() + 1)


class Keyless(_Rogue):
    """Sends a mail under a key that is made anew in each call."""

    convicted_by, message, also = "H1", "after it was handled twice", ("H2", "H3")

    async def handle(self, event: AccountCreatedEvent) -> None:
        await self.server.send(event.email, key=str(uuid4()))


class CheckThenAct(_Rogue):
    """Inserts a row after it has seen that there is none."""

    convicted_by, message = "H2", "while the first was after rows.has"

    def handle(self, event: AccountCreatedEvent) -> None:
        if not self.rows.has(event.account_id):
            self.rows.insert(event.account_id)


class LostUpdate(_Rogue):
    """Inserts a row after an ``await``, in which another call of the handler does the same."""

    convicted_by, message = "H2", "after two calls handled it together"

    async def handle(self, event: AccountCreatedEvent) -> None:
        missing = event.account_id not in self.rows.rows
        await asyncio.sleep(0)
        if missing:
            self.rows.rows.append(event.account_id)


class EarlyRow(_Rogue):
    """Writes down that an event was handled, and sends the mail afterwards."""

    convicted_by, message = "H3", "after it was interrupted after rows.insert_if_absent"

    async def handle(self, event: AccountCreatedEvent) -> None:
        if self.rows.insert_if_absent(event.account_id):
            await self.server.send(event.email, key=event.account_id)


class Guarded(_Rogue):
    """Keeps other calls out by a mark that an interrupted call leaves behind."""

    convicted_by, message = "H3", "interrupted"

    def handler(self) -> Any:
        self.busy: set[str] = set()
        return super().handler()

    async def handle(self, event: AccountCreatedEvent) -> None:
        if event.account_id not in self.busy:
            self.busy.add(event.account_id)
            await self.server.send(event.email, key=event.account_id)
            self.busy.discard(event.account_id)


HANDLER_ROGUES: Final = (Counter, Keyless, CheckThenAct, LostUpdate, EarlyRow, Guarded)
"""All of them."""
