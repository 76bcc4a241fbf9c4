"""Accounts and their verification codes, in the database."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from eventpact.application.codes import CodeMaker
from eventpact.application.ports import EmailTakenError
from eventpact.domain.account import Account
from eventpact.infrastructure.persistence.database import PATIENT, Database, UtcDateTime, metadata

__all__ = ["SqlAccountRepository", "SqlVerificationCodes"]

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("account_id", sa.String(36), primary_key=True),
    sa.Column("email", sa.String(254), nullable=False, unique=True),
    sa.Column("display_name", sa.String(100), nullable=False),
    sa.Column("verified", sa.Boolean, nullable=False),
    sa.Column("mail_reserved_at", UtcDateTime),
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


def _account(row: Any) -> Account | None:
    return (
        None
        if row is None
        else Account(account_id=row.account_id, email=row.email, display_name=row.display_name, verified=row.verified)
    )


_ACCOUNT = (accounts.c.account_id, accounts.c.email, accounts.c.display_name, accounts.c.verified)


class SqlAccountRepository:
    """The :class:`~eventpact.application.ports.AccountRepository` in a database.

    Args:
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
        insert = postgresql.insert if not self._database.is_sqlite else sqlite.insert
        with self._database.transaction() as connection:
            statement = (
                insert(accounts)
                .values(
                    account_id=account.account_id,
                    email=account.email,
                    display_name=account.display_name,
                    verified=account.verified,
                    mail_reserved_at=self._clock(),
                )
                .on_conflict_do_nothing(index_elements=[accounts.c.email])
                .returning(accounts.c.account_id)
            )
            if connection.execute(statement).one_or_none() is None:
                raise EmailTakenError("an account with this address exists")

    def by_email(self, email: str) -> Account | None:
        with self._database.transaction() as connection:
            row = connection.execute(sa.select(*_ACCOUNT).where(accounts.c.email == email)).one_or_none()
        return _account(row)

    def reserve_mail(self, account_id: str) -> bool:
        with self._database.transaction() as connection:
            now = self._clock()
            free = sa.or_(accounts.c.mail_reserved_at.is_(None), accounts.c.mail_reserved_at <= now - self._interval)
            statement = sa.update(accounts).where(accounts.c.account_id == account_id, free)
            return connection.execute(statement.values(mail_reserved_at=now)).rowcount == 1

    def release_mail(self, account_id: str) -> None:
        statement = sa.update(accounts).where(accounts.c.account_id == account_id).values(mail_reserved_at=None)
        with self._database.transaction() as connection:
            connection.execute(statement)


class SqlVerificationCodes:
    """The :class:`~eventpact.application.ports.VerificationCodes` in a database: one row an account.

    Args:
        ttl: how long a code is valid, from when it was last issued.
        max_attempts: how often a code may be tried before it is void.
        clock: the database's where none is given: one machine issues a code and another redeems it, and a code must not
            be void on arrival because their clocks differ.
    """

    def __init__(
        self,
        database: Database,
        maker: CodeMaker,
        ttl: timedelta,
        max_attempts: int = 5,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._database = database
        self._maker = maker
        self._ttl = ttl
        self._max_attempts = max_attempts
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
                if row.redeemed_at is not None or row.attempts >= self._max_attempts:
                    return None
                connection.execute(sa.update(codes).where(mine).values(expires_at=fresh["expires_at"]))
            elif (row.requested_at, row.event_id.hex) < (requested_at, event_id.hex):
                connection.execute(sa.update(codes).where(mine).values(**fresh))
            else:
                return None
        return code

    def redeem(self, email: str, code: str) -> Account | None:
        with self._database.transaction() as connection:
            now = self._clock()
            # The account is locked first, as issuing a code does: in the other order the two would wait for each other.
            account = connection.execute(
                sa.select(*_ACCOUNT).where(accounts.c.email == email).with_for_update()
            ).one_or_none()
            account_id = "" if account is None else account.account_id
            # Counted before it is compared, in one statement, so that no burst of guesses gets more than it may.
            mine = sa.and_(codes.c.account_id == account_id, codes.c.redeemed_at.is_(None))
            row = connection.execute(
                sa.update(codes)
                .where(mine, codes.c.expires_at > now, codes.c.attempts < self._max_attempts)
                .values(attempts=codes.c.attempts + 1)
                .returning(codes.c.digest)
            ).one_or_none()
            given = self._maker.digest(account_id, code)
            # Compared even where there is nothing to compare with: an unknown address takes as long.
            right = hmac.compare_digest("0" * 64 if row is None else row.digest, given)
            if not right or account is None or row is None:
                return None
            used = connection.execute(
                sa.update(codes).where(mine, codes.c.digest == row.digest).values(redeemed_at=now)
            )
            if used.rowcount != 1:
                return None
            connection.execute(sa.update(accounts).where(accounts.c.account_id == account_id).values(verified=True))
        return Account(account_id=account_id, email=account.email, display_name=account.display_name, verified=True)
