"""The data folder, the secret and the database: opened, or refused in one line that says what to do."""

import hmac
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from eventpact.environment import CannotStartError
from eventpact.infrastructure.files import draft_of, read_file, write_private
from eventpact.infrastructure.persistence.database import Database, alembic_config, metadata

deployment = sa.Table(
    "deployment",
    metadata,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


def database_id(database: Database) -> str:
    """Return the id that the database was given when it was migrated."""
    return _value(database, "database")


def remember(database: Database, name: str, value: str) -> str:
    """Store a fact unless the database has it already, and return the one that it has: the first writer wins."""
    database.write(database.insert(deployment).values(name=name, value=value).on_conflict_do_nothing())
    return _value(database, name)


def state(database: Database, name: str, value: str) -> None:
    """Store a fact in place of the one that the database has."""
    statement = database.insert(deployment).values(name=name, value=value)
    database.write(statement.on_conflict_do_update(index_elements=["name"], set_={"value": value}))


def secret_fingerprint(secret: bytes) -> str:
    """Name a secret without telling it: 64 bits of a keyed digest, which cannot be reversed."""
    return hmac.digest(secret, b"eventpact fingerprint", "sha256").hex()[:16]


def _value(database: Database, name: str) -> str:
    value: str = database.fetch(sa.select(deployment.c.value).where(deployment.c.name == name)).scalar_one()
    return value


_LEAST_SECRET_BYTES: Final = 32

_MISSING_TABLE: Final = re.compile(r"no such (table|column)|relation .* does not exist|column .* does not exist")
_PERMANENT: Final = re.compile(
    r"no such|does not exist|authentication failed|not a database|readonly|unable to open|permission denied"
)
_READ_ONLY: Final = re.compile(r"readonly|read-only|permission denied for")


def open_folder(folder: Path) -> None:
    """Make the data folder, which no repository takes; raise :class:`CannotStartError` if others can read it."""
    try:
        made = not folder.exists()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix" and folder.stat().st_mode & 0o077:
            raise CannotStartError(
                f"{folder} can be read by other users, and will hold a secret; run chmod 700 {folder}, or give another"
                " folder with --data-dir"
            )
        ignored = folder / ".gitignore"
        if (made or folder.name == ".eventpact") and not ignored.exists():
            ignored.write_text("*\n")
    except OSError as error:
        raise CannotStartError(f"{error.filename}: {error.strerror}; give another folder with --data-dir") from error


def open_secret(folder: Path) -> bytes:
    """Read the secret of the data folder; the first process makes it up.

    Raises:
        CannotStartError: it is too short.
        OSError: it cannot be read or written.
    """
    path = folder / "secret"
    if not path.exists():
        draft = draft_of(path)
        write_private(draft, secrets.token_hex(_LEAST_SECRET_BYTES).encode())
        try:
            os.link(draft, path)  # the first process wins, and nobody reads half a secret
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    secret = read_file(path).strip()
    if len(secret) < _LEAST_SECRET_BYTES:
        raise CannotStartError(
            f"the secret in {path} has {len(secret)} characters, and must have {_LEAST_SECRET_BYTES} or more; restore"
            " it, or set EVENTPACT_SECRET"
        )
    return secret


def database_file(url: str) -> Path | None:
    """Return the file of a SQLite URL."""
    parts = sa.make_url(url)
    return Path(parts.database or "") if parts.get_backend_name() == "sqlite" else None


def open_database(url: str, *, migrate: bool) -> Database:
    """Open the database, whose schema is the newest.

    Args:
        migrate: bring it to the newest schema first. A SQLite file that is missing is made, for nobody else to read.

    Raises:
        CannotStartError: it cannot be reached, or has another schema.
    """
    path = database_file(url)
    try:
        if path is not None and path.exists() and not path.is_file():
            raise CannotStartError(f"the database {path} is {'a folder' if path.is_dir() else 'no file'}; give a file")
        if path is not None and not path.exists():
            if not migrate:
                raise CannotStartError(f"the database {path} does not exist; run eventpact migrate")
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):  # another process was faster
                write_private(path, b"")
        database = Database(url)
    except OSError as error:
        raise CannotStartError(f"the database {path} cannot be opened: {error.strerror}") from error
    try:
        if migrate:
            database.migrate()
        _check_schema(database)
    except CommandError as error:
        raise CannotStartError("the database has the schema of a newer version; upgrade eventpact") from error
    except SQLAlchemyError as error:
        raise CannotStartError(explain(error, url)) from error
    finally:
        database.close()  # the connections alone, none of which a forked process may share
    return database


def agree(database: Database, secret: bytes, *, outbox: bool) -> Mapping[str, str]:
    """Return the facts that a server and its workers must share, once the database confirms the secret.

    Raises:
        CannotStartError: the database was first used with another secret.
    """
    own = secret_fingerprint(secret)
    first = remember(database, "secret", own)
    if first != own:
        raise CannotStartError(
            f"this secret ({own}) is not the one that the database was first used with ({first}), so that mailed codes"
            " would be wrong; give the server's EVENTPACT_SECRET or --data-dir, or accept a new secret for good with"
            " eventpact migrate --new-secret"
        )
    return {
        "outbox": "yes" if outbox else "no",
        "database": database_id(database),
        "secret": own,
        **_place(database),
    }


def _place(database: Database) -> Mapping[str, str]:
    """Tell the database from a copy of it, which has the same id: a file by its number, without that of its device.

    Numbers of devices, and PostgreSQL's of a whole cluster, may change while a database stays what it is (a restart of
    the machine, pg_upgrade). So a copy may go unnoticed, and no database is taken for one.
    """
    if database.is_sqlite:
        return {"file": str(os.stat(database.engine.url.database or "").st_ino)}
    oid = database.fetch(sa.text("SELECT oid FROM pg_database WHERE datname = current_database()")).scalar_one()
    return {"oid": str(oid)}


def explain(error: SQLAlchemyError, url: str = "") -> str:
    """Say in one line why the database refused, in the driver's words, and what to do.

    Args:
        url: the URL of the database, whose password is left out should the driver quote it.
    """
    reason = " ".join(str(getattr(error, "orig", None) or error).split())
    if _MISSING_TABLE.search(reason):
        return f"the database is not migrated ({reason}); run eventpact migrate"
    reason = reason.removeprefix("connection failed: ").partition(" Is the server running")[0]
    password = sa.make_url(url).password if url else None
    if password:
        reason = reason.replace(password, "***")
    if _READ_ONLY.search(reason):
        return f"the database must take writes, and refuses them: {reason}; check EVENTPACT_DATABASE"
    advice = "check EVENTPACT_DATABASE" if _PERMANENT.search(reason) else "is it up, and EVENTPACT_DATABASE right?"
    if re.search(r'database ".*" does not exist', reason):
        advice = "create it, and run eventpact migrate"
    if re.search("disk is full|No space left", reason):
        advice = "make room on its disk"
    return f"the database cannot be used: {reason}; {advice}"


def is_temporary(error: SQLAlchemyError) -> bool:
    """Say whether the same statement may succeed later, without anybody mending the database."""
    return not _PERMANENT.search(str(getattr(error, "orig", None) or error))


def _check_schema(database: Database) -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    with database.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current is None:
        raise CannotStartError("the database is not migrated; run eventpact migrate")
    if current == scripts.get_current_head():
        return
    scripts.get_revision(current)  # raises CommandError for one that this version does not know
    raise CannotStartError("the database has the schema of an older version; run eventpact migrate")
