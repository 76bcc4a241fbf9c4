"""Facts that all processes on one database must agree on: its id, the fingerprint of their secret."""

from __future__ import annotations

import hmac
from typing import Final

import sqlalchemy as sa

from eventpact.infrastructure.persistence.database import Database, metadata

__all__ = ["database_id", "remember", "secret_fingerprint", "state"]

_DATABASE: Final = "database"

deployment = sa.Table(
    "deployment",
    metadata,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


def database_id(database: Database) -> str:
    """Return the id that the database was given when it was migrated.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached, or was never migrated.
    """
    with database.transaction() as connection:
        return _value(connection, _DATABASE)


def remember(database: Database, name: str, value: str) -> str:
    """Store a fact unless the database has it already, and return the one that it has: the first writer wins.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached, or refused.
    """
    statement = database.insert(deployment).values(name=name, value=value).on_conflict_do_nothing()
    with database.transaction() as connection:
        connection.execute(statement)
        return _value(connection, name)


def state(database: Database, name: str, value: str) -> None:
    """Store a fact in place of the one that the database has.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached, or refused.
    """
    statement = database.insert(deployment).values(name=name, value=value)
    with database.transaction() as connection:
        connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": value}))


def secret_fingerprint(secret: bytes) -> str:
    """Name a secret without telling it: 64 bits of a keyed digest, which cannot be reversed."""
    return hmac.digest(secret, b"eventpact fingerprint", "sha256").hex()[:16]


def _value(connection: sa.Connection, name: str) -> str:
    value: str = connection.execute(sa.select(deployment.c.value).where(deployment.c.name == name)).scalar_one()
    return value
