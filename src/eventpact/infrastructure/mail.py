"""Mail: by SMTP, or as ``.eml`` files in a folder where no server is set."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4
from weakref import WeakKeyDictionary

import aiosmtplib

from eventpact.application.ports import MailRejectedError

MAX_CONNECTIONS: Final = 10
"""SMTP connections of one process at once. Mails beyond wait; a mail server would refuse hundreds."""

IDLE_SECONDS: Final = 10.0

# The address stands in the link's fragment, which no browser sends, so that no server on the way logs it.
_TEMPLATES: Final = {
    "verification": (
        "Your verification code",
        "Welcome!\n\nYour verification code is {code}\n\nEnter it, or follow this link, which works once:\n"
        "{base_url}/verify#email={to_quoted}&code={link_code}\n\nIf you did not sign up, ignore this mail.\n",
    ),
    "sign-up-repeated": (
        "You have an account already",
        "Someone, perhaps you, signed up at {base_url} with this address.\n\n"
        "You have an account already, so nothing was changed. If it was not you, ignore this mail.\n",
    ),
}


class Messages:
    """Makes messages of templates, from this sender and with links that begin with this URL."""

    def __init__(self, sender: str, base_url: str) -> None:
        self._sender = sender
        self._base_url = base_url

    def build(self, to: str, template: str, context: Mapping[str, str]) -> EmailMessage:
        """The message.

        Raises:
            MailRejectedError: the address cannot stand in a header.
            KeyError: there is no such template, or ``context`` lacks something that it names.
        """
        subject, body = _TEMPLATES[template]
        message = EmailMessage()
        try:
            message["To"] = to
            # The header must hold the address itself, and nothing that a parser made of it, such as a decoded word.
            (recipient,) = message["To"].addresses
            if recipient.addr_spec != to or recipient.display_name:
                raise ValueError
        except ValueError as error:
            raise MailRejectedError("the address of the recipient cannot stand in a header") from error
        message["From"] = self._sender
        message["Subject"] = subject
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=urlsplit(self._base_url).hostname)
        message["Auto-Submitted"] = "auto-generated"
        given = {"link_code": context.get("code", ""), "base_url": self._base_url, "to_quoted": quote(to)}
        text = body.format(**given | dict(context))
        # Seven bits as they are, so that the link is one line in the raw mail, too.
        message.set_content(text, cte="7bit" if text.isascii() else None)
        return message


class FolderMailer:
    """Writes each mail as an ``.eml`` file, whole or not at all."""

    def __init__(self, folder: Path, messages: Messages) -> None:
        self._folder = folder
        self._messages = messages
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # codes are in there

    async def send(self, *, to: str, template: str, context: Mapping[str, str]) -> None:
        """Write the mail."""
        message = self._messages.build(to, template, context)
        await asyncio.to_thread(self._write, bytes(message))

    def _write(self, content: bytes) -> None:
        part = self._folder / f"{uuid4().hex}.part"
        with open(part, "xb", opener=partial(os.open, mode=0o600)) as file:
            file.write(content)
        part.rename(part.with_suffix(".eml"))


class SmtpMailer:
    """Hands each mail to an SMTP server, over few connections that are used again.

    Args:
        url: ``smtp://user:password@host:port``, or ``smtps://`` for TLS from the start.
        starttls: insist on STARTTLS (True), do without (False), or use it where it is offered (None). With a password
            None insists, too.
        timeout: seconds that one answer of the server may take.
    """

    def __init__(self, url: str, messages: Messages, *, starttls: bool | None, timeout: float) -> None:
        parts = urlsplit(url)
        tls = parts.scheme == "smtps"
        password = unquote(parts.password) if parts.password else None
        # An attacker on the way could hide the offer of STARTTLS, and read the password.
        insists = True if starttls is None and password is not None else starttls
        self._connect = partial(
            aiosmtplib.SMTP,
            hostname=parts.hostname or "localhost",
            port=parts.port,
            username=unquote(parts.username) if parts.username else None,
            password=password,
            use_tls=tls,
            start_tls=False if tls else insists,
            timeout=timeout,
        )
        self._messages = messages
        # A connection belongs to the loop that opened it.
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = WeakKeyDictionary()

    async def send(self, *, to: str, template: str, context: Mapping[str, str]) -> None:
        """Send the mail, at once or as soon as one of the connections is free.

        Raises:
            MailRejectedError: the server refused this recipient or this mail permanently (5xx), or there can be no
                such recipient, or not on this server.
            aiosmtplib.SMTPException: it was not sent this time. A server that refuses the sender, the login or the
                connection is of this kind even with 5xx: it refuses every mail until somebody mends the settings.
            OSError: the server cannot be reached.
        """
        message = self._messages.build(to, template, context)
        pool = self._pools.setdefault(asyncio.get_running_loop(), _Pool(self._connect))
        async with pool.connection() as smtp:
            try:
                await smtp.send_message(message, recipients=[to])
            except aiosmtplib.SMTPRecipientsRefused as error:
                if all(refusal.code >= 500 for refusal in error.recipients):
                    raise MailRejectedError(f"the mail server refused the recipient ({_codes(error)})") from None
                raise
            except aiosmtplib.SMTPDataError as error:
                if error.code >= 500:
                    raise MailRejectedError(f"the mail server refused the mail ({error.code})") from None
                raise
            except aiosmtplib.SMTPNotSupported:
                raise MailRejectedError("the mail server takes no address beyond ASCII (no SMTPUTF8)") from None
            except ValueError:
                raise MailRejectedError("the address of the recipient cannot stand in an SMTP command") from None


class _Pool:
    """The SMTP connections of one event loop.

    Args:
        connect: makes one that is not connected yet.
    """

    def __init__(self, connect: Callable[[], aiosmtplib.SMTP]) -> None:
        self._connect = connect
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)
        self._idle: dict[aiosmtplib.SMTP, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[aiosmtplib.SMTP]:
        """Lend a connection. It is closed if the mail fails, because its state is not known then."""
        async with self._room:
            smtp = await self._take()
            try:
                yield smtp
            except BaseException:
                smtp.close()
                raise
            # A task, not a timer, so that a loop that ends and cancels its tasks closes the connection, too.
            self._idle[smtp] = asyncio.create_task(asyncio.sleep(IDLE_SECONDS), name="eventpact-smtp-idle")
            self._idle[smtp].add_done_callback(partial(self._close, smtp))

    async def _take(self) -> aiosmtplib.SMTP:
        while self._idle:
            smtp, idle = self._idle.popitem()
            idle.cancel()
            try:
                await smtp.noop()
            except (aiosmtplib.SMTPException, OSError):  # the server has closed it meanwhile
                smtp.close()
            else:
                return smtp
        smtp = self._connect()
        await smtp.connect()
        return smtp

    def _close(self, smtp: aiosmtplib.SMTP, _: asyncio.Task[None]) -> None:
        if self._idle.pop(smtp, None) is not None:
            smtp.close()


def _codes(error: aiosmtplib.SMTPRecipientsRefused) -> str:
    return ", ".join(str(refusal.code) for refusal in error.recipients)
