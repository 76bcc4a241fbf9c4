"""The use cases: create an account, verify it, ask for another code."""

from contextlib import nullcontext, suppress
from uuid import uuid4

from eventpact.application.ports import AccountRepository, EmailTakenError, UnitOfWork, VerificationCodes
from eventpact.domain.account import Account, CreateAccountData, InvalidAccountError, normalize_email
from eventpact.domain.dispatcher import DispatchError, EventDispatcher
from eventpact.domain.events import AccountCreatedEvent, SignUpRepeatedEvent, VerificationCodeRequestedEvent

__all__ = ["CreateAccountCommand", "InvalidCodeError", "ResendCodeCommand", "VerifyAccountCommand"]

MailedEvent = AccountCreatedEvent | VerificationCodeRequestedEvent | SignUpRepeatedEvent


class InvalidCodeError(Exception):
    """The code is wrong, used or expired, or the address has no account. The error does not say which of these."""


class _MailingCommand:
    """A use case that mails the owner of an account, by an event.

    Args:
        unit_of_work: one transaction for all writes inside it. An outbox dispatcher writes the event into the same
            database, so account and event are committed together. No other dispatcher can take part in a
            transaction, so none is given with those: the account is saved first, and its event dispatched then.
    """

    def __init__(
        self, dispatcher: EventDispatcher, repository: AccountRepository, unit_of_work: UnitOfWork = nullcontext
    ) -> None:
        self._dispatcher = dispatcher
        self._repository = repository
        self._unit_of_work = unit_of_work

    def _mail(self, account: Account, event_type: type[MailedEvent]) -> None:
        event = self._reserve(account, event_type)
        if event is not None:
            self._dispatch_or_release(event)

    def _reserve(self, account: Account, event_type: type[MailedEvent]) -> MailedEvent | None:
        # The event occurs when the database says so: codes replace one another in the order of their events, and the
        # clocks of two servers may differ.
        moment = self._repository.reserve_mail(account.email, notice=event_type is SignUpRepeatedEvent)
        if moment is None:
            return None
        return event_type(account_id=account.account_id, email=account.email, occurred_at=moment)

    def _dispatch_or_release(self, event: MailedEvent) -> None:
        try:
            self._dispatcher.dispatch(event)
        except DispatchError:
            with suppress(Exception):  # a transaction that the refusal has spoilt undoes the reservation itself
                self._repository.release_mail(event.email, notice=isinstance(event, SignUpRepeatedEvent))
            raise


class CreateAccountCommand(_MailingCommand):
    """Signs someone up. Nothing in its outcome tells whether the address was known."""

    def execute(self, data: CreateAccountData) -> Account:
        """Save the account and dispatch an :class:`AccountCreatedEvent`.

        The owner of a known address is mailed instead. So signing up again is how to recover from an error. While
        the account is unverified the name of the last sign-up counts, because the first may have been a stranger's.

        A mailbox that was mailed too recently gets no new account: an account exists if and only if its event does.

        Returns:
            The account of that address.

        Raises:
            DispatchError: the event was not accepted. Signing up again mails the owner at once.
        """
        with self._unit_of_work():
            account = self._repository.by_email(data.email)
            if account is None:
                return self._create(data)
            if account.verified:
                self._mail(account, SignUpRepeatedEvent)
            else:
                account = self._repository.rename(account, data.display_name)
                self._mail(account, VerificationCodeRequestedEvent)
            return account

    def _create(self, data: CreateAccountData) -> Account:
        account = Account(account_id=str(uuid4()), email=data.email, display_name=data.display_name)
        event = self._reserve(account, AccountCreatedEvent)
        if event is not None:
            try:
                self._repository.add(account)
            except EmailTakenError:  # by another sign-up at the same moment
                return self.execute(data)
            self._dispatch_or_release(event)
        return account


class ResendCodeCommand(_MailingCommand):
    """Sends the owner of an unverified account another code, which voids the one before."""

    def execute(self, email: str) -> None:
        """Dispatch a :class:`VerificationCodeRequestedEvent`, unless the mailbox was mailed too recently.

        Ignore an unknown, verified or impossible address without an error, because the answer must not tell.

        Raises:
            DispatchError: the event was not accepted. Asking again is allowed at once.
        """
        try:
            email = normalize_email(email)
        except InvalidAccountError:
            return
        with self._unit_of_work():
            account = self._repository.by_email(email)
            if account is not None and not account.verified:
                self._mail(account, VerificationCodeRequestedEvent)


class VerifyAccountCommand:
    """Redeems a code."""

    def __init__(self, codes: VerificationCodes) -> None:
        self._codes = codes

    def execute(self, email: str, code: str) -> Account:
        """Verify the account that this code was mailed to, and return it.

        Raises:
            InvalidCodeError: this is no live code of that address.
        """
        try:
            account = self._codes.redeem(normalize_email(email), code)
        except InvalidAccountError:
            account = None
        if account is None:
            raise InvalidCodeError(
                "the code is wrong, used or expired; follow the link of its mail, or ask for another"
            )
        return account
