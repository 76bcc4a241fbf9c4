"""The check that the database takes writes, which a full disk or a read-only server refuses."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from eventpact.infrastructure.persistence.database import Database, UtcDateTime, metadata

__all__ = ["check_database"]

readiness = sa.Table(
    "readiness",
    metadata,
    sa.Column("check_id", sa.Integer, primary_key=True),
    sa.Column("checked_at", UtcDateTime, nullable=False),
)


def check_database(database: Database) -> None:
    """Commit one write. A transaction that is rolled back would not reach the disk.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database does not answer, refuses writes, or was never migrated.
    """
    database.ping()
    insert = (sqlite.insert if database.is_sqlite else postgresql.insert)(readiness)
    with database.transaction() as connection:
        written = insert.values(check_id=1, checked_at=database.now())
        connection.execute(
            written.on_conflict_do_update(index_elements=["check_id"], set_={"checked_at": written.excluded.checked_at})
        )
