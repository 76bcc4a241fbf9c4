"""What the use cases need from the outside, as protocols; the engines behind them are a setting."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol
from uuid import UUID

from eventpact.domain.account import Account
from eventpact.domain.dispatcher import PermanentFailureError

__all__ = [
    "AccountRepository",
    "EmailTakenError",
    "MailRejectedError",
    "MailerService",
    "VerificationCodes",
]


class EmailTakenError(Exception):
    """An account with this address exists already."""


class MailRejectedError(PermanentFailureError):
    """The mail server refused for good; sending the same mail again cannot help."""


class AccountRepository(Protocol):
    """Keeps accounts. Any thread may call it."""

    def add(self, account: Account) -> None:
        """Keep a new account, with a code counted as requested now.

        Raises:
            EmailTakenError: its address has an account.
        """

    def by_email(self, email: str) -> Account | None:
        """The account of this normalized address."""

    def reserve_mail(self, account_id: str) -> bool:
        """Count a mail as requested now, unless the last one was less than the resend interval ago."""

    def release_mail(self, account_id: str) -> None:
        """Take back the last reservation, because no mail will come of it."""


class VerificationCodes(Protocol):
    """Keeps at most one live code an account, as a digest. Any thread may call it."""

    def issue(self, account_id: str, event_id: UUID, requested_at: datetime) -> str | None:
        """The code of this request, live from now on; it voids those of earlier requests.

        The same request gives the same code again. None where no mail should go out: the account is verified or gone,
        its code is used up, or a later request has been issued.
        """

    def redeem(self, email: str, code: str) -> Account | None:
        """The account, verified now, if this is its live code; a code works once. Every call counts as an attempt."""


class MailerService(Protocol):
    """Sends mail."""

    async def send(self, *, to: str, template: str, context: Mapping[str, str]) -> None:
        """Send the mail that ``template`` names, filled with ``context``.

        Raises:
            MailRejectedError: it can never be sent.
            Exception: it was not sent this time.
        """
