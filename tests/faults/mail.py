"""A mail server that can be told to refuse, to hang, to be slow, or to hang up at the worst moment."""

from __future__ import annotations

import asyncio
from typing import Any

from aiosmtpd.smtp import Envelope
from support.services_kit import MailServer

__all__ = ["FaultyMailServer"]


class FaultyMailServer(MailServer):
    """A real SMTP server. A mail is held before its content is taken, so one whose client is killed never comes.

    Attributes:
        fault: empty, ``refuse`` (451), ``reject`` (550), ``hang``, ``drop`` (hang up after the mail was taken, before
            the 250) or ``drop-after`` (after the 250).
        delay: seconds that it takes to accept a mail.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fault = ""
        self.delay = 0.0

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _: object, __: object, envelope: Envelope, address: str, ___: object
    ) -> str:
        self.waiting += 1
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        if self.fault == "reject":
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server: Any, session: object, envelope: Envelope) -> str:  # noqa: N802
        if self.fault == "refuse":
            return "451 try again later"
        if self.fault == "hang":
            await asyncio.Event().wait()
        if self.delay:
            await asyncio.sleep(self.delay)
        answer = await super().handle_DATA(server, session, envelope)
        self.waiting -= 1
        if self.fault == "drop":
            server.transport.abort()
        elif self.fault == "drop-after":
            server.transport.write(b"250 ok\r\n")
            server.transport.close()
        return answer
