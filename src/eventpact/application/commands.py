"""The use cases: create an account, verify it, ask for another code."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

from eventpact.application.ports import AccountRepository, EmailTakenError, VerificationCodes
from eventpact.domain.account import Account, CreateAccountData, InvalidAccountError, normalize_email
from eventpact.domain.dispatcher import DispatchError, EventDispatcher
from eventpact.domain.events import (
    AccountCreatedEvent,
    DomainEvent,
    SignUpRepeatedEvent,
    VerificationCodeRequestedEvent,
)

__all__ = ["CreateAccountCommand", "InvalidCodeError", "ResendCodeCommand", "VerifyAccountCommand"]


class InvalidCodeError(Exception):
    """The code is wrong, used, expired, or the address has no account; which of these is not told."""


class CreateAccountCommand:
    """Signs someone up. Nothing in its outcome tells whether the address was known."""

    def __init__(self, dispatcher: EventDispatcher, repository: AccountRepository) -> None:
        self._dispatcher = dispatcher
        self._repository = repository

    def execute(self, data: CreateAccountData) -> Account:
        """Save the account, then dispatch an :class:`AccountCreatedEvent`.

        An address that has an account keeps it: its owner is mailed, at most once a resend interval. So signing up
        again is how to recover from an error.

        Returns:
            The account of that address.

        Raises:
            DispatchError: the event was not accepted; the account is kept, and signing up again mails its owner.
        """
        account = Account(account_id=str(uuid4()), email=data.email, display_name=data.display_name)
        try:
            self._repository.add(account)
        except EmailTakenError:
            return self._repeated(data)
        event = AccountCreatedEvent(account_id=account.account_id, email=account.email)
        _dispatch_or_release(self._dispatcher, self._repository, account, event)
        return account

    def _repeated(self, data: CreateAccountData) -> Account:
        account = self._repository.by_email(data.email)
        if account is None:  # deleted since
            return self.execute(data)
        kind = SignUpRepeatedEvent if account.verified else VerificationCodeRequestedEvent
        _mail(self._dispatcher, self._repository, account, kind)
        return account


class ResendCodeCommand:
    """Sends the owner of an unverified account another code; the one before is void then."""

    def __init__(self, dispatcher: EventDispatcher, repository: AccountRepository) -> None:
        self._dispatcher = dispatcher
        self._repository = repository

    def execute(self, email: str) -> None:
        """Dispatch a :class:`VerificationCodeRequestedEvent`, at most once a resend interval.

        An unknown, verified or impossible address is passed over in silence, as the answer must not tell.

        Raises:
            DispatchError: the event was not accepted; asking again is allowed at once.
        """
        try:
            account = self._repository.by_email(normalize_email(email))
        except InvalidAccountError:
            return
        if account is not None and not account.verified:
            _mail(self._dispatcher, self._repository, account, VerificationCodeRequestedEvent)


class VerifyAccountCommand:
    """Redeems a code."""

    def __init__(self, codes: VerificationCodes) -> None:
        self._codes = codes

    def execute(self, email: str, code: str) -> Account:
        """The account, verified from now on.

        Raises:
            InvalidCodeError: this is not the live code of that address.
        """
        try:
            account = self._codes.redeem(normalize_email(email), code)
        except InvalidAccountError:
            account = None
        if account is None:
            raise InvalidCodeError("the code is wrong, used or expired; ask for another")
        return account


def _mail(
    dispatcher: EventDispatcher,
    repository: AccountRepository,
    account: Account,
    kind: Callable[..., DomainEvent],
) -> None:
    if repository.reserve_mail(account.account_id):
        event = kind(account_id=account.account_id, email=account.email)
        _dispatch_or_release(dispatcher, repository, account, event)


def _dispatch_or_release(
    dispatcher: EventDispatcher, repository: AccountRepository, account: Account, event: DomainEvent
) -> None:
    try:
        dispatcher.dispatch(event)
    except DispatchError:
        repository.release_mail(account.account_id)
        raise
