"""Accounts and their verification codes, in the database."""

import hmac
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import sqlalchemy as sa

from eventpact.application.ports import EmailTakenError
from eventpact.domain.account import LINK_LENGTH, Account, CodeMaker, mailbox_of
from eventpact.infrastructure.persistence.database import PATIENT, Database, UtcDateTime, metadata

_log = logging.getLogger("eventpact")

_LONGEST_WAIT: Final = 64
"""Resend intervals between two codes at most: about an hour by default, however many were sent."""

MAX_ATTEMPTS: Final = 5
"""So often a short code may be tried before it is void."""

_DAY: Final = timedelta(days=1)

_NO_EVENT: Final = UUID(int=0)

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("account_id", sa.String(36), primary_key=True),
    sa.Column("email", sa.String(254), nullable=False, unique=True),
    sa.Column("display_name", sa.String(100), nullable=False),
    sa.Column("verified", sa.Boolean, nullable=False),
    # Named by the first schema, which servers of the version before still write to during a deploy.
    sa.Column("mail_reserved_at", UtcDateTime, key="signed_up_at"),
)

codes = sa.Table(
    "verification_codes",
    metadata,
    sa.Column("account_id", sa.String(36), sa.ForeignKey("accounts.account_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("event_id", sa.Uuid, nullable=False),
    sa.Column("requested_at", UtcDateTime, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("redeemed_at", UtcDateTime),
)

mailboxes = sa.Table(
    "mailboxes",
    metadata,
    sa.Column("mailbox", sa.String(254), primary_key=True),
    sa.Column("mails", sa.Integer, nullable=False),
    sa.Column("mailed_at", UtcDateTime),
    sa.Column("noticed_at", UtcDateTime),
)

_ACCOUNT = (accounts.c.account_id, accounts.c.email, accounts.c.display_name, accounts.c.verified)


class SqlAccountRepository:
    """The :class:`~eventpact.application.ports.AccountRepository` in a database.

    Args:
        resend_interval: between the first two codes to one mailbox. It doubles with each further code, up to
            64 times itself, and starts again after a day without one.
        clock: the database's where none is given.
    """

    def __init__(
        self, database: Database, resend_interval: timedelta, clock: Callable[[], datetime] | None = None
    ) -> None:
        self._database = database
        self._interval = resend_interval
        self._clock = clock or database.now

    def add(self, account: Account) -> None:
        # A conflict is an answer here, not an error: an error would end the transaction that this may be part of.
        with self._database.transaction() as connection:
            statement = (
                self._database.insert(accounts)
                .values(
                    account_id=account.account_id,
                    email=account.email,
                    display_name=account.display_name,
                    verified=account.verified,
                    signed_up_at=self._clock(),
                )
                .on_conflict_do_nothing(index_elements=[accounts.c.email])
                .returning(accounts.c.account_id)
            )
            if connection.execute(statement).one_or_none() is None:
                raise EmailTakenError("an account with this address exists")

    def by_email(self, email: str) -> Account | None:
        row = self._database.fetch(sa.select(*_ACCOUNT).where(accounts.c.email == email)).one_or_none()
        return None if row is None else Account(**row._mapping)

    def rename(self, account: Account, display_name: str) -> Account:
        with self._database.transaction():
            now = self._clock()
            # Repeating a sign-up writes nothing, so that a burst of them does not wait for the disk.
            new = sa.or_(accounts.c.display_name != display_name, accounts.c.signed_up_at < now - _DAY)
            mine = sa.and_(accounts.c.account_id == account.account_id, accounts.c.verified.is_(False))
            values = {"display_name": display_name, "signed_up_at": now}
            self._database.write(sa.update(accounts).where(mine, new).values(**values))
        return replace(account, display_name=display_name)

    def reserve_mail(self, email: str, *, notice: bool = False) -> datetime | None:
        mine = mailboxes.c.mailbox == mailbox_of(email)
        with self._database.transaction() as connection:
            new = self._database.insert(mailboxes).values(mailbox=mailbox_of(email), mails=0)
            connection.execute(new.on_conflict_do_nothing(index_elements=[mailboxes.c.mailbox]))
            # The lock lets the requests for one mailbox take turns, whichever of its spellings they use.
            row = connection.execute(sa.select(mailboxes).where(mine).with_for_update()).one()
            now = self._clock()
            last = row.noticed_at if notice else row.mailed_at
            mails = 0 if last is None or now - last >= _DAY else row.mails
            wait = _DAY if notice else self._interval * min(2 ** max(0, mails - 1), _LONGEST_WAIT)
            if last is not None:
                now = max(now, last + timedelta(microseconds=1))  # no two requests have the same moment
                if now - last < wait:
                    return None
            values = {"noticed_at": now} if notice else {"mailed_at": now, "mails": min(mails + 1, _LONGEST_WAIT)}
            connection.execute(sa.update(mailboxes).where(mine).values(**values))
        return now

    def release_mail(self, email: str, *, notice: bool = False) -> None:
        mails = sa.case((mailboxes.c.mails > 0, mailboxes.c.mails - 1), else_=0)
        values = {"noticed_at": None} if notice else {"mailed_at": None, "mails": mails}
        self._database.write(sa.update(mailboxes).where(mailboxes.c.mailbox == mailbox_of(email)).values(**values))

    def prune(self, unused_for: timedelta) -> int:
        """Delete unverified accounts whose last sign-up is so long ago, and counters of mails that count no more.

        An account with a live code is kept. Codes go with their accounts, whose number is returned.
        """
        with self._database.transaction() as connection:
            now = self._clock()
            live = sa.exists().where(codes.c.account_id == accounts.c.account_id, codes.c.expires_at > now)
            unused = sa.or_(accounts.c.signed_up_at.is_(None), accounts.c.signed_up_at < now - unused_for)
            pruned = connection.execute(sa.delete(accounts).where(accounts.c.verified.is_(False), unused, ~live))
            for_long = [
                sa.or_(moment.is_(None), moment < now - max(_DAY, self._interval * _LONGEST_WAIT))
                for moment in (mailboxes.c.mailed_at, mailboxes.c.noticed_at)
            ]
            connection.execute(sa.delete(mailboxes).where(*for_long))
        return pruned.rowcount


class SqlVerificationCodes:
    """The :class:`~eventpact.application.ports.VerificationCodes` in a database: one row an account.

    Args:
        ttl: how long a code is valid, from when it was last issued.
        clock: the database's where none is given: one machine issues a code and another redeems it, and a code must not
            be void on arrival because their clocks differ.
    """

    def __init__(
        self,
        database: Database,
        maker: CodeMaker,
        ttl: timedelta,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._database = database
        self._maker = maker
        self._ttl = ttl
        self._clock = clock or database.now

    def issue(self, account_id: str, event_id: UUID, requested_at: datetime) -> str | None:
        code = self._maker.code(event_id)
        with self._database.transaction(PATIENT) as connection:
            fresh = {
                "event_id": event_id,
                "requested_at": requested_at,
                "digest": self._maker.digest(account_id, code),
                "expires_at": self._clock() + self._ttl,
                "attempts": 0,
                "redeemed_at": None,
            }
            # Locking the account makes two deliveries of one owner take turns.
            verified = connection.execute(
                sa.select(accounts.c.verified).where(accounts.c.account_id == account_id).with_for_update()
            ).scalar_one_or_none()
            if verified is None or verified:
                return None
            mine = codes.c.account_id == account_id
            row = connection.execute(sa.select(codes).where(mine)).one_or_none()
            if row is None:
                connection.execute(sa.insert(codes).values(account_id=account_id, **fresh))
            elif row.event_id == event_id:
                # A code that others have used up is mailed all the same, because the link beside it still works.
                if row.redeemed_at is not None:
                    return None
                connection.execute(sa.update(codes).where(mine).values(expires_at=fresh["expires_at"]))
            elif (row.requested_at, row.event_id.hex) < (requested_at, event_id.hex):
                connection.execute(sa.update(codes).where(mine).values(**fresh))
            else:
                return None
        return code

    def link_code(self, event_id: UUID) -> str:
        return self._maker.link_code(event_id)

    def redeem(self, email: str, code: str) -> Account | None:
        by_link = len(code.strip()) == LINK_LENGTH
        with self._database.transaction() as connection:
            now = self._clock()
            # The account is locked first, as issuing a code does: in the other order the two would wait for each other.
            account = connection.execute(
                sa.select(*_ACCOUNT).where(accounts.c.email == email).with_for_update()
            ).one_or_none()
            account_id = "" if account is None else account.account_id
            live = sa.and_(codes.c.account_id == account_id, codes.c.redeemed_at.is_(None), codes.c.expires_at > now)
            if not by_link:
                live = sa.and_(live, codes.c.attempts < MAX_ATTEMPTS)
            # Counted before it is compared, in one statement, so that no burst of guesses gets more than it may.
            row = connection.execute(
                sa.update(codes)
                .where(live)
                .values(attempts=codes.c.attempts + (0 if by_link else 1))
                .returning(codes.c.event_id, codes.c.digest, codes.c.attempts)
            ).one_or_none()
            # Compared even where there is nothing to compare with: an unknown address takes as long.
            kept = "0" * 64 if row is None else row.digest
            if by_link:
                kept = self._maker.digest(account_id, self._maker.link_code(_NO_EVENT if row is None else row.event_id))
            right = hmac.compare_digest(kept, self._maker.digest(account_id, code))
            if account is None or row is None:
                return None
            if not right:
                if row.attempts == MAX_ATTEMPTS and not by_link:
                    _log.warning("account %s: too many wrong codes; only the link of its mail works now", account_id)
                return None
            connection.execute(sa.update(codes).where(codes.c.account_id == account_id).values(redeemed_at=now))
            connection.execute(sa.update(accounts).where(accounts.c.account_id == account_id).values(verified=True))
        return Account(**{**account._mapping, "verified": True})

    def prune(self, unused_for: timedelta) -> int:
        """Delete codes that were used or have expired so long ago, and return how many.

        It must be longer than an event may wait for its delivery: an event whose code is deleted is mailed anew.
        """
        before = self._clock() - unused_for
        old = sa.or_(codes.c.redeemed_at < before, codes.c.expires_at < before)
        return self._database.write(sa.delete(codes).where(old))
