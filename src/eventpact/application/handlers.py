"""Handlers of the events. They are idempotent, because an event may be delivered more than once."""

import asyncio
import logging

from eventpact.application.ports import MailerService, VerificationCodes
from eventpact.domain.events import AccountCreatedEvent, SignUpRepeatedEvent, VerificationCodeRequestedEvent

__all__ = ["NotifyOwnerHandler", "VerifyAccountEmailHandler"]

_log = logging.getLogger("eventpact")


class VerifyAccountEmailHandler:
    """Mails a verification code to the owner of a new account.

    The code follows from the event, so an event that is delivered twice mails the same code twice.
    """

    def __init__(self, codes: VerificationCodes, mailer: MailerService) -> None:
        self._codes = codes
        self._mailer = mailer

    async def handle(self, event: AccountCreatedEvent | VerificationCodeRequestedEvent) -> None:
        """Store the digest of the code, then send the mail."""
        # The database blocks, and the loop that this runs on must not.
        code = await asyncio.to_thread(self._codes.issue, event.account_id, event.event_id, event.occurred_at)
        if code is not None:
            context = {"code": code, "link_code": self._codes.link_code(event.event_id)}
            await self._mailer.send(to=event.email, template="verification", context=context)
            _log.info("a code was mailed to account %s for %s", event.account_id, event.event_id)


class NotifyOwnerHandler:
    """Mails a notice to the owner of a verified account: someone signed up with the same address."""

    def __init__(self, mailer: MailerService) -> None:
        self._mailer = mailer

    async def handle(self, event: SignUpRepeatedEvent) -> None:
        """Send the mail."""
        await self._mailer.send(to=event.email, template="sign-up-repeated", context={})
        _log.info("a notice was mailed to account %s for %s", event.account_id, event.event_id)
