"""Mail goes out by SMTP or into a folder, and a refusal for good is told from one for now."""

import asyncio
import email
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
from aiosmtpd.smtp import SMTP, AuthResult

from eventpact.application.ports import MailRejectedError
from eventpact.infrastructure.mail import MAX_CONNECTIONS, FolderMailer, Messages, SmtpMailer

MESSAGES = Messages("Shop <no-reply@shop.example>", "https://shop.example")


class Inbox:
    """An SMTP server's handler that keeps what it gets, and answers RCPT and DATA as it is told."""

    def __init__(self, rcpt: str = "250 ok", data: str = "250 ok") -> None:
        self.rcpt, self.data = rcpt, data
        self.mails: list[EmailMessage] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        if self.rcpt.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append(email.message_from_bytes(envelope.content, policy=default))  # type: ignore[arg-type]
        return self.data


@asynccontextmanager
async def smtp_server(
    inbox: object,
    *,
    tls: ssl.SSLContext | None = None,
    scheme: str = "smtp",
    login: str = "",
    utf8: bool = True,
    **more: Any,
) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    sessions: list[SMTP] = []

    def session() -> SMTP:
        sessions.append(SMTP(inbox, loop=loop, enable_SMTPUTF8=utf8, **more))
        return sessions[-1]

    server = await loop.create_server(session, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{scheme}://{login}127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for each in sessions:  # wait_closed() waits for them, too, and a mailer keeps its connections
            if each.transport is not None:
                each.transport.close()
        await server.wait_closed()


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate that this process trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


class Doorman:
    """Lets in who has the password, and keeps whether it was told over TLS."""

    def __init__(self) -> None:
        self.told_over_tls: list[bool] = []

    def __call__(self, server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
        self.told_over_tls.append(session.ssl is not None)
        return AuthResult(success=(given.login, given.password) == (b"shop", b"p@ss:word/"), handled=False)


LOGIN = "shop:p%40ss%3Aword%2F@"


async def send(url: str, *, starttls: bool | None = None) -> None:
    mailer = SmtpMailer(url, MESSAGES, starttls=starttls, timeout=5)
    await mailer.send(to="ada@example.com", template="verification", context={"code": "7K3M9QXT"})


async def test_a_mail_arrives_by_smtp() -> None:
    inbox = Inbox()
    async with smtp_server(inbox) as url:
        await send(url)
    (mail,) = inbox.mails
    assert mail["To"] == "ada@example.com"
    assert mail["From"] == "Shop <no-reply@shop.example>"
    assert "7K3M9QXT" in mail.get_content()
    assert "https://shop.example/verify#email=ada%40example.com" in mail.get_content()


@pytest.mark.parametrize("answers", [{"rcpt": "550 no such user"}, {"data": "554 spam"}])
async def test_a_refusal_for_good_is_permanent_and_quotes_no_address(answers: dict[str, str]) -> None:
    async with smtp_server(Inbox(**answers)) as url:
        with pytest.raises(MailRejectedError) as caught:
            await send(url)
    assert "ada" not in str(caught.value)


@pytest.mark.parametrize("address", ["a da@example.com", "jürgen@example.com", "ada@example.com\nBcc: eve@example.com"])
async def test_an_address_that_no_server_or_not_this_one_can_take_is_permanent_and_is_not_quoted(address: str) -> None:
    async with smtp_server(Inbox(), utf8=False) as url:
        mailer = SmtpMailer(url, MESSAGES, starttls=None, timeout=5)
        with pytest.raises(MailRejectedError) as caught:
            await mailer.send(to=address, template="sign-up-repeated", context={})
    assert "example.com" not in str(caught.value)


@pytest.mark.parametrize("answers", [{"rcpt": "450 busy"}, {"data": "451 later"}])
async def test_a_refusal_for_now_may_be_tried_again(answers: dict[str, str]) -> None:
    async with smtp_server(Inbox(**answers)) as url:
        with pytest.raises(Exception, match=r"busy|later") as caught:
            await send(url)
    assert not isinstance(caught.value, MailRejectedError)


@pytest.mark.parametrize("starttls", [None, True])
async def test_a_login_goes_through_starttls(tls: ssl.SSLContext, starttls: bool | None) -> None:
    inbox, doorman = Inbox(), Doorman()
    async with smtp_server(inbox, login=LOGIN, tls_context=tls, require_starttls=True, authenticator=doorman) as url:
        await send(url, starttls=starttls)
    assert len(inbox.mails) == 1
    assert doorman.told_over_tls == [True]


async def test_smtps_is_tls_from_the_start(tls: ssl.SSLContext) -> None:
    inbox = Inbox()
    async with smtp_server(inbox, tls=tls, scheme="smtps") as url:
        await send(url)
    assert len(inbox.mails) == 1


async def test_a_certificate_that_is_not_trusted_is_refused(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    inbox = Inbox()
    async with smtp_server(inbox, tls=tls, scheme="smtps") as url:
        with pytest.raises(aiosmtplib.SMTPException) as caught:
            await send(url)
    assert "certificate" in str(caught.value).lower()
    assert not inbox.mails


async def test_a_password_is_told_to_no_server_without_tls_unless_that_is_set() -> None:
    inbox, doorman = Inbox(), Doorman()
    async with smtp_server(inbox, login=LOGIN, auth_require_tls=False, authenticator=doorman) as url:
        with pytest.raises(aiosmtplib.SMTPException, match="STARTTLS"):
            await send(url)
        assert doorman.told_over_tls == []
        await send(url, starttls=False)
    assert doorman.told_over_tls == [False]


async def test_a_login_that_is_refused_is_to_be_mended_and_tried_again() -> None:
    async with smtp_server(Inbox(), login="shop:wrong@", auth_require_tls=False, authenticator=Doorman()) as url:
        with pytest.raises(aiosmtplib.SMTPAuthenticationError) as caught:
            await send(url, starttls=False)
    assert not isinstance(caught.value, MailRejectedError)


async def test_a_server_that_turns_everybody_away_has_not_refused_the_mail() -> None:
    async def turn_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554 no service here\r\n")
        writer.close()

    server = await asyncio.start_server(turn_away, "127.0.0.1", 0)
    async with server:
        with pytest.raises(aiosmtplib.SMTPException) as caught:
            await send(f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert not isinstance(caught.value, MailRejectedError)


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    held: list[asyncio.StreamWriter] = []

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    async with server:
        mailer = SmtpMailer(
            f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}", MESSAGES, starttls=None, timeout=0.1
        )
        async with asyncio.timeout(5):
            with pytest.raises(aiosmtplib.SMTPTimeoutError):
                await mailer.send(to="ada@example.com", template="sign-up-repeated", context={})
        for writer in held:
            writer.close()
            await writer.wait_closed()


class Counting(Inbox):
    """Counts connections: those there ever were, and the most at once; mails are held until as many as told came."""

    def __init__(self, hold: int = 0) -> None:
        super().__init__()
        self.open: set[int] = set()
        self.ever, self.most, self.hold = 0, 0, hold
        self.enough = asyncio.Event()

    async def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str, options: Any) -> Any:  # noqa: N802
        session.host_name = hostname
        self.ever += 1
        return options

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.open.add(id(session))
        self.most = max(self.most, len(self.open))
        if len(self.open) >= self.hold:
            self.enough.set()
        await self.enough.wait()
        self.open.discard(id(session))
        return await super().handle_DATA(server, session, envelope)


async def test_many_mails_share_few_connections_that_are_used_again() -> None:
    inbox = Counting(hold=MAX_CONNECTIONS)
    async with smtp_server(inbox) as url:
        mailer = SmtpMailer(url, MESSAGES, starttls=None, timeout=30)
        mails = [mailer.send(to=f"a{n}@example.com", template="sign-up-repeated", context={}) for n in range(100)]
        await asyncio.gather(*mails)
    assert len(inbox.mails) == 100
    assert inbox.most == inbox.ever == MAX_CONNECTIONS


async def test_a_connection_that_the_server_has_closed_meanwhile_costs_no_mail() -> None:
    inbox = Inbox()
    async with smtp_server(inbox) as url:
        mailer = SmtpMailer(url, MESSAGES, starttls=None, timeout=5)
        await mailer.send(to="ada@example.com", template="sign-up-repeated", context={})
    port = int(url.rsplit(":", 1)[1])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(inbox, loop=loop), "127.0.0.1", port)
    try:
        await mailer.send(to="ada@example.com", template="sign-up-repeated", context={})
    finally:
        server.close()
    assert len(inbox.mails) == 2


async def test_an_idle_connection_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventpact.infrastructure.mail.IDLE_SECONDS", 0.05)
    inbox = Counting()
    async with smtp_server(inbox) as url:
        mailer = SmtpMailer(url, MESSAGES, starttls=None, timeout=5)
        await mailer.send(to="ada@example.com", template="sign-up-repeated", context={})
        [idle] = [task for task in asyncio.all_tasks() if task.get_name() == "eventpact-smtp-idle"]
        closed = asyncio.Event()
        idle.add_done_callback(lambda _: closed.set())  # it comes after the mailer's own
        await asyncio.wait_for(closed.wait(), 10)
        await mailer.send(to="ada@example.com", template="sign-up-repeated", context={})
    assert (len(inbox.mails), inbox.ever) == (2, 2)


def test_a_mailer_serves_one_loop_after_another() -> None:
    inbox = Inbox()

    async def one_mail(mailer: SmtpMailer | None) -> SmtpMailer:
        async with smtp_server(inbox) as url:
            mailer = SmtpMailer(url, MESSAGES, starttls=None, timeout=5) if mailer is None else mailer
            mailer._connect.keywords["port"] = int(url.rsplit(":", 1)[1])
            await mailer.send(to="ada@example.com", template="sign-up-repeated", context={})
            return mailer

    mailer = asyncio.run(one_mail(None))
    asyncio.run(one_mail(mailer))
    assert len(inbox.mails) == 2


async def test_a_sender_that_the_server_refuses_is_no_fault_of_the_mail() -> None:
    class Picky(Inbox):
        async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
            return "550 this sender is not yours"

    async with smtp_server(Picky()) as url:
        with pytest.raises(aiosmtplib.SMTPSenderRefused):
            await send(url)


@pytest.mark.parametrize("address", ["=?utf-8?q?eve=40evil.example=2C?=@example.com", "Eve <eve@example.com>"])
async def test_a_header_holds_the_address_and_nothing_that_was_made_of_it(tmp_path: Path, address: str) -> None:
    with pytest.raises(MailRejectedError):
        await FolderMailer(tmp_path, MESSAGES).send(to=address, template="sign-up-repeated", context={})


async def test_a_server_that_is_away_may_be_tried_again() -> None:
    async with smtp_server(Inbox()) as url:
        gone = url
    with pytest.raises(OSError) as caught:  # noqa: PT011 - which one depends on the system
        await send(gone)
    assert not isinstance(caught.value, MailRejectedError)


async def test_a_folder_holds_whole_mails_only(tmp_path: Path) -> None:
    mailer = FolderMailer(tmp_path, MESSAGES)
    await mailer.send(to="ada@example.com", template="sign-up-repeated", context={})
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".eml"
    assert email.message_from_bytes(file.read_bytes())["To"] == "ada@example.com"


@pytest.mark.parametrize("address", ["ada@example.com\r\nBcc: eve@example.com", "ada@example.com\nX: y"])
async def test_an_address_cannot_bring_headers_of_its_own(tmp_path: Path, address: str) -> None:
    with pytest.raises(MailRejectedError):
        await FolderMailer(tmp_path, MESSAGES).send(to=address, template="verification", context={"code": "x"})
    assert not list(tmp_path.iterdir())
