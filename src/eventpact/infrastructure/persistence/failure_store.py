"""The store of failed deliveries and unreadable messages, which keeps each until it is delivered or dropped."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from eventpact.domain.dispatcher import FailedDelivery
from eventpact.infrastructure.dispatching.failures import UnreadableMessage
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.persistence.database import PATIENT, Database, UtcDateTime, metadata

_MAX_ERROR_CHARACTERS: Final = 2_000
_NUMBER_BITS: Final = 31

UNREADABLE: Final = "Unreadable"
"""The ``error_type`` of a message that could not be read, and is returned once it can be."""

DISAGREEMENT: Final = "Disagreement"
"""The ``error_type`` of a message whose sender has other settings. Only a person can tell where it belongs."""

HANDLER_SEPARATOR: Final = ", "
"""Stands between the handlers that an unreadable message was for."""

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

_IS_HERE: Final = failures.c.retried_at.is_(None)
_FAILURE: Final = [column for column in failures.c if column.name != "fingerprint"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One failed delivery, or one unreadable message.

    Attributes:
        failure_id: the number by which a person names it.
        name: the event type's wire name, where it is known.
        handler: the key of the handler that failed, or those that an unreadable message was for, if it names any.
        payload: the event's fields as JSON, or the message as it came. It may hold an address.
        error: the text of the exception, which may hold an address, or why a message was not read.
        attempts: all that were made, those of retries included.
        revision: grows whenever it fails again or is handed over.
        retried_at: when it was handed over to be delivered again, if it has not failed since.
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
    """A table of failures in the application's database.

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
        """Store a failed delivery; this is a failure sink. One that fails again, retried or not, is still one."""
        with self.database.transaction(PATIENT):
            self._keep(
                ["event_id", "handler"],
                ["error_type", "error"],
                name=type(failed.event).__name__,
                event_id=str(failed.event.event_id),
                handler=self._table.key_of(failed.event, failed.handler),
                payload=json.dumps(failed.event.to_dict()),
                error_type=type(failed.exception).__name__,
                error=_error_text(failed.exception),
                attempts=failed.attempts,
            )

    def keep_unreadable(self, message: UnreadableMessage) -> None:
        """Store a message that no handler can receive. The same message again is the same failure."""
        content = message.content.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")
        handler = HANDLER_SEPARATOR.join(message.handlers) or None
        parts = (message.name, message.message_id, handler, content)
        index, changed = ["event_id", "handler"], ["error"]
        if handler is None:  # so it is no delivery that was attempted, and the last reader knows best
            index, changed = ["fingerprint"], ["error_type", "error"]
        self._keep(
            index,
            changed,
            name=None if message.name is None else _text(message.name),
            event_id=None if message.message_id is None else _text(message.message_id),
            handler=handler,
            payload=content,
            error_type=DISAGREEMENT if message.disagrees else UNREADABLE,
            error=_text(message.reason),
            attempts=0,
            fingerprint=hashlib.sha256(json.dumps(parts).encode()).hexdigest(),
        )

    def _keep(self, index: list[str], changed: list[str], **values: Any) -> None:
        """Insert a failure or, where it is here by this index, add its attempts and take over what is changed."""
        now = self.database.clock()
        new = self.database.insert(failures).values(first_failed_at=now, last_failed_at=now, revision=1, **values)
        again = {name: new.excluded[name] for name in changed} | {
            "attempts": failures.c.attempts + new.excluded.attempts,
            "last_failed_at": now,
            "revision": failures.c.revision + 1,
            "retried_at": None,
        }
        self.database.write(new.on_conflict_do_update(index_elements=index, set_=again))

    def all(self) -> list[Failure]:
        """Return the failures that nobody has handed over again, oldest first."""
        return self._select(sa.select(*_FAILURE).where(_IS_HERE).order_by(failures.c.failure_id))

    def unreadable(self, limit: int, after: int = 0) -> list[Failure]:
        """Return messages that could not be read, oldest first, from those with a higher number than ``after``.

        Those whose sender disagrees are none of them, however well they can be read.
        """
        these = sa.and_(_IS_HERE, failures.c.error_type == UNREADABLE, failures.c.failure_id > after)
        return self._select(sa.select(*_FAILURE).where(these).order_by(failures.c.failure_id).limit(limit))

    def get(self, failure_id: int) -> Failure | None:
        """The failure of this number."""
        if failure_id.bit_length() > _NUMBER_BITS:  # neither database would take it in a statement
            return None
        return next(iter(self._select(sa.select(*_FAILURE).where(failures.c.failure_id == failure_id))), None)

    def remove(self, failure: Failure) -> bool:
        """Remove a failure; not if it has failed again, or was handed over, since it was read."""
        return self.database.write(sa.delete(failures).where(_unchanged(failure))) == 1

    def mark_retried(self, failure: Failure, handler: str | None) -> bool:
        """Record that a failure was handed over again; not if it was changed since it was read.

        It is not listed or counted any more, but its history goes on if it fails again.

        Args:
            handler: the key of its handler as it is now.
        """
        handed_over = {
            "retried_at": self.database.clock(),
            "handler": handler,
            "revision": failures.c.revision + 1,
        }
        return self.database.write(sa.update(failures).where(_unchanged(failure)).values(**handed_over)) == 1

    def count(self) -> int:
        """Count the failures that nobody has handed over again."""
        count: int = self.database.fetch(sa.select(sa.func.count()).where(_IS_HERE)).scalar_one()
        return count

    def prune(self, older_than: timedelta) -> int:
        """Remove the failures that last failed longer ago; return how many. Their events are lost."""
        old = failures.c.last_failed_at < self.database.clock() - older_than
        return self.database.write(sa.delete(failures).where(old))

    def _select(self, statement: sa.Select[Any]) -> list[Failure]:
        return [Failure(**row) for row in self.database.fetch(statement).mappings()]


def _unchanged(failure: Failure) -> sa.ColumnElement[bool]:
    return sa.and_(failures.c.failure_id == failure.failure_id, failures.c.revision == failure.revision)


def _error_text(exception: BaseException) -> str:
    try:
        return _text(str(exception))
    except BaseException as error:  # noqa: BLE001 - an exception may be as broken as the code that raised it
        return f"(its text cannot be had: str() raised {type(error).__name__})"


def _text(text: str) -> str:
    """Make text that any database takes: no NUL, no half of a surrogate pair."""
    printable = text[:_MAX_ERROR_CHARACTERS].replace("\x00", "\\x00")
    return printable.encode("utf-8", "backslashreplace").decode()
