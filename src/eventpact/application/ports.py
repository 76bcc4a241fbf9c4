"""Protocols of the services that the use cases need. The settings choose the engines behind them."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
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
    "UnitOfWork",
    "VerificationCodes",
]


class EmailTakenError(Exception):
    """An account with this address exists already."""


class MailRejectedError(PermanentFailureError):
    """The mail server refused the mail permanently; sending the same mail again cannot help."""


class UnitOfWork(Protocol):
    """Opens a transaction: everything written inside the ``with`` block is committed together, or not at all."""

    def __call__(self) -> AbstractContextManager[object]: ...


class AccountRepository(Protocol):
    """Stores accounts, and counts the mails to each mailbox. Any thread may call it."""

    def add(self, account: Account) -> None:
        """Store a new account.

        Raises:
            EmailTakenError: its address has an account.
        """

    def by_email(self, email: str) -> Account | None:
        """Return the account of this normalized address."""

    def rename(self, account: Account, display_name: str) -> Account:
        """Change the name of an account that is not verified yet, and return it."""

    def reserve_mail(self, email: str, *, notice: bool = False) -> datetime | None:
        """Count one mail to the mailbox of this address, unless it was mailed too recently.

        The interval between two codes grows with their number. Notices are counted apart: one a day.

        Returns:
            The moment of this request by the clock that all servers share, later than that of the request before;
            None where no mail may be sent.
        """

    def release_mail(self, email: str, *, notice: bool = False) -> None:
        """Undo the last reservation, because no mail was sent."""


class VerificationCodes(Protocol):
    """Stores at most one live code an account, as a digest. Any thread may call it."""

    def issue(self, account_id: str, event_id: UUID, requested_at: datetime) -> str | None:
        """Make the code of this request the live one; it voids those of earlier requests.

        The same request gives the same code again. None where no mail should be sent: the account is verified or gone,
        the code is used, or a later request has been issued.
        """

    def link_code(self, event_id: UUID) -> str:
        """Return the long code of a request, for the link of its mail. Nobody can guess it, so no guess voids it."""

    def redeem(self, email: str, code: str) -> Account | None:
        """Verify and return the account if this is its live code, short or long; it works once.

        Every short code counts as an attempt. Too many void the short code, but not the long one.
        """


class MailerService(Protocol):
    """Sends mail."""

    async def send(self, *, to: str, template: str, context: Mapping[str, str]) -> None:
        """Send the mail that ``template`` names, filled with ``context``.

        Raises:
            MailRejectedError: it can never be sent.
            Exception: it was not sent this time.
        """
