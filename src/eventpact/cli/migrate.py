"""``eventpact migrate``: brings the database to the newest schema."""

from __future__ import annotations

import sys

from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from eventpact.infrastructure.persistence.database import Database
from eventpact.settings import Settings

__all__ = ["run"]


def run(_: object, settings: Settings) -> int:
    """Migrate. Returns the exit code."""
    try:
        database = Database(settings.database_url)
    except OSError as error:
        print(f"eventpact: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    try:
        database.migrate()
    except CommandError:
        print("eventpact: the database has the schema of a newer version; upgrade eventpact", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        print(f"eventpact: the database cannot be migrated: {type(error).__name__}; is it up?", file=sys.stderr)
        return 1
    finally:
        database.close()
    print("the database has the newest schema")
    return 0
