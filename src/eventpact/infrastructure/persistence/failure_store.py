"""Deliveries that have failed, and messages that nobody could read: kept until they are delivered again or dropped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from eventpact.domain.dispatcher import FailedDelivery
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.dispatching.unreadable import UnreadableMessage
from eventpact.infrastructure.persistence.database import PATIENT, Database, UtcDateTime, metadata

__all__ = ["Failure", "FailureStore"]

_LONGEST_ERROR: Final = 2_000

failures = sa.Table(
    "failed_deliveries",
    metadata,
    sa.Column("failure_id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("event_id", sa.Text),
    sa.Column("handler", sa.Text),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("error_type", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("first_failed_at", UtcDateTime, nullable=False),
    sa.Column("last_failed_at", UtcDateTime, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("retried_at", UtcDateTime),
    sa.Column("fingerprint", sa.String(64), unique=True, index=True),
    sa.UniqueConstraint("event_id", "handler"),
)

_FAILURE: Final = [column for column in failures.c if column.name != "fingerprint"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One failed delivery, or one unreadable message, for which there is no ``handler``.

    Attributes:
        failure_id: the number by which a person names it.
        name: the event type's wire name, where it is known.
        handler: the key of the handler that failed.
        payload: the event's fields as JSON, or the message as it came. It may hold an address.
        error: what the handler raised, in its words, which may hold an address; why a message was not read.
        attempts: since it is kept; what was dispatched again and failed again is kept anew.
        revision: grows whenever it fails again.
        retried_at: when it was last handed over to be delivered again, where it has not failed since.
    """

    failure_id: int
    name: str | None
    event_id: str | None
    handler: str | None
    payload: str
    error_type: str
    error: str
    attempts: int
    first_failed_at: datetime
    last_failed_at: datetime
    revision: int
    retried_at: datetime | None


class FailureStore:
    """Keeps what has failed, in the application's database.

    Each method joins the transaction that its caller is in, and else has its own.

    Args:
        table: the application's, which gives handlers their keys.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: from each method, where the database cannot be reached, or refused.
    """

    def __init__(self, database: Database, table: SubscriptionTable) -> None:
        self.database = database
        self._table = table

    def keep(self, failed: FailedDelivery) -> None:
        """Keep a failed delivery; this is a failure sink. One that fails again while it is kept is still one."""
        now = _now()
        insert = sqlite.insert if self.database.is_sqlite else postgresql.insert
        statement = insert(failures).values(
            name=type(failed.event).__name__,
            event_id=str(failed.event.event_id),
            handler=self._key(failed),
            payload=json.dumps(failed.event.to_dict()),
            error_type=type(failed.exception).__name__,
            error=_text(str(failed.exception)),
            attempts=failed.attempts,
            first_failed_at=now,
            last_failed_at=now,
            revision=1,
        )
        again = {
            "error_type": statement.excluded.error_type,
            "error": statement.excluded.error,
            "attempts": failures.c.attempts + failed.attempts,
            "last_failed_at": now,
            "revision": failures.c.revision + 1,
        }
        with self.database.transaction(PATIENT) as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["event_id", "handler"], set_=again))

    def keep_unreadable(self, message: UnreadableMessage) -> None:
        """Keep a message that no handler can receive."""
        now = _now()
        statement = sa.insert(failures).values(
            name=None if message.name is None else _text(message.name),
            event_id=None if message.message_id is None else _text(message.message_id),
            payload=message.content.decode("utf-8", "backslashreplace").replace("\x00", "\\x00"),
            error_type="Unreadable",
            error=_text(message.reason),
            attempts=0,
            first_failed_at=now,
            last_failed_at=now,
            revision=1,
        )
        with self.database.transaction() as connection:
            connection.execute(statement)

    def all(self) -> list[Failure]:
        """Everything that is kept, oldest first."""
        return self._select(sa.select(*_FAILURE).order_by(failures.c.failure_id))

    def get(self, failure_id: int) -> Failure | None:
        """The failure of this number."""
        return next(iter(self._select(sa.select(*_FAILURE).where(failures.c.failure_id == failure_id))), None)

    def remove(self, failure: Failure) -> bool:
        """Forget a failure; not if it has failed again since it was read."""
        this = sa.and_(failures.c.failure_id == failure.failure_id, failures.c.revision == failure.revision)
        with self.database.transaction() as connection:
            return connection.execute(sa.delete(failures).where(this)).rowcount == 1

    def count(self) -> int:
        """How much is kept."""
        with self.database.transaction() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(failures)).scalar_one()

    def _select(self, statement: sa.Select[Any]) -> list[Failure]:
        with self.database.transaction() as connection:
            rows: Sequence[Any] = connection.execute(statement).mappings().all()
        return [Failure(**row) for row in rows]

    def _key(self, failed: FailedDelivery) -> str | None:
        for subscription in self._table.route(failed.event):
            if subscription.handler is failed.handler:
                return subscription.key
        return None


def _text(text: str) -> str:
    """What a text column of any database takes: no NUL, no half of a surrogate pair."""
    printable = text[:_LONGEST_ERROR].replace("\x00", "\\x00")
    return printable.encode("utf-8", "backslashreplace").decode()


def _now() -> datetime:
    return datetime.now(UTC)
