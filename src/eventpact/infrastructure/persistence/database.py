"""The database: SQLite or PostgreSQL, by URL; its transactions, its schema, and whether it takes writes."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite

from eventpact.infrastructure.dispatching.threads import hold_in_forks, reset_in_children

STATEMENT_SECONDS: Final = 5.0
"""A server lets a statement run so long."""

_SILENCE: Final = STATEMENT_SECONDS + 1.0
"""A server that lives has answered by then, if only that it has given up."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection on which nobody waits for ever: a server may be frozen, or the network be cut without a word."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for the server, as every statement does.

        Raises:
            psycopg.OperationalError: the connection is broken, or the server was silent for too long.
        """
        try:
            return super().wait(gen, interval, _SILENCE if timeout is None else timeout)
        except psycopg.OperationalError:
            self.pgconn.finish()  # whatever it would still answer is not for the next statement
            raise


metadata = sa.MetaData()

_WAIT: Final = 1.5
"""Seconds that a thread waits for SQLite's one writer: less than the 2 that a dispatch may take."""

PATIENT: Final = 5.0
"""The same for an event that was accepted: nobody can be told to send it again, and it would fail or be lost."""


IDLE_TRANSACTION_SECONDS: Final = 10.0
"""The time for which PostgreSQL waits for the next statement of a transaction, whose locks others may want."""

_KEEPALIVES: Final = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
"""In seconds and milliseconds, for both ends: one that was cut off is found out while nobody waits for it."""


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware moment. SQLite keeps no zone, so UTC is put back there."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _: sa.Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _: sa.Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value


@dataclass(slots=True)
class _Transaction:
    connection: sa.Connection
    is_open: bool = True
    after_commit: list[Callable[[], object]] = field(default_factory=list)


class Database:
    """A pool of connections to one database, shared by all that keep something in it.

    Args:
        url: as SQLAlchemy takes it: ``sqlite:///…`` or ``postgresql+psycopg://…``.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: from each method, where the database cannot be reached, or refused.
    """

    def __init__(self, url: str) -> None:
        self._url = sa.make_url(url)
        self.is_sqlite: bool = self._url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            if self._url.database:
                Path(self._url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.engine: sa.Engine = sa.create_engine(
                self._url, connect_args={"timeout": _WAIT}, pool_size=20, pool_timeout=2
            )
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", self._begin_immediate)
        else:
            self.engine = sa.create_engine(
                self._url,
                pool_size=20,
                pool_timeout=2,
                pool_pre_ping=True,
                connect_args={"connect_timeout": 2, **_KEEPALIVES},
            )
            event.listen(self.engine, "do_connect", _connect_bounded)
            event.listen(self.engine, "connect", _prepare_postgresql)
        self._current: ContextVar[_Transaction | None] = ContextVar("eventpact_transaction", default=None)
        self._deadline: ContextVar[float | None] = ContextVar("eventpact_deadline", default=None)
        self._prepare_turns()
        reset_in_children(self)

    @contextmanager
    def transaction(self, wait: float = _WAIT) -> Generator[sa.Connection]:
        """A connection inside a transaction: the caller's if it is in one already, else one that ends with this.

        Args:
            wait: seconds to wait for SQLite's one writer.
        """
        current = self._current.get()
        if current is not None and current.is_open:
            yield current.connection
            return
        with self._turn(wait), self.engine.begin() as connection:
            transaction = _Transaction(connection)
            token = self._current.set(transaction)
            try:
                yield connection
            finally:
                transaction.is_open = False  # a task that was started in here has a copy of the context
                self._current.reset(token)
        for callback in transaction.after_commit:
            callback()

    def fetch(self, statement: sa.Executable) -> sa.Result[Any]:
        """Return all that a query finds, asked in the caller's transaction or in one of its own."""
        with self.transaction() as connection:
            return connection.execute(statement).freeze()()

    def write(self, statement: sa.UpdateBase, wait: float = _WAIT) -> int:
        """Execute a statement, in the caller's transaction or in one of its own, and return how many rows it wrote."""
        with self.transaction(wait) as connection:
            return connection.execute(statement).rowcount

    @contextmanager
    def _turn(self, wait: float) -> Generator[None]:
        """In SQLite, one thread of this process after another.

        Its own way is to look again and again, in which many threads that write keep a few from ever getting a turn.
        """
        if not self.is_sqlite:
            yield
            return
        deadline = time.monotonic() + wait
        if not self._writer.acquire(timeout=wait):
            raise sa.exc.TimeoutError(f"other threads have been writing for {wait:g} s")
        try:
            token = self._deadline.set(deadline)
            try:
                yield
            finally:
                self._deadline.reset(token)
        finally:
            self._writer.release()

    def _prepare_turns(self) -> None:
        # SQLite's locks are in the process too: a child that is forked while a thread writes finds the file locked for
        # ever, or waits for ever in the first call.
        self._writer = threading.RLock()
        if self.is_sqlite:
            hold_in_forks(self._writer)

    def _begin_immediate(self, connection: sa.Connection) -> None:
        # Another process may hold the file for the rest of the wait.
        deadline = self._deadline.get() or time.monotonic() + _WAIT
        connection.exec_driver_sql(f"PRAGMA busy_timeout={max(0, int((deadline - time.monotonic()) * 1000))}")
        # A transaction that reads first and writes later would fail at once, not wait, when another wrote meanwhile.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """Begin an INSERT that can handle conflicts, as both databases spell it."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def after_commit(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, which must not raise, once the transaction is committed; not if it is rolled back.

        Outside of a transaction it is called at once.
        """
        current = self._current.get()
        if current is None or not current.is_open:
            callback()
        else:
            current.after_commit.append(callback)

    def clock(self) -> Any:
        """Return the database's time for use in a statement: an expression, or the value itself.

        SQLite runs on the machine of its file, and so by the clock of this one.
        """
        return datetime.now(UTC) if self.is_sqlite else sa.func.clock_timestamp(type_=sa.DateTime(timezone=True))

    def now(self) -> datetime:
        """Return the time by the one clock that all processes share: the database's."""
        with self.transaction() as connection:
            if self.is_sqlite:  # asked all the same, because a process can have its clock frozen
                text = connection.execute(sa.select(sa.func.strftime("%Y-%m-%dT%H:%M:%f", "now"))).scalar_one()
                return datetime.fromisoformat(text).replace(tzinfo=UTC)
            moment: datetime = connection.execute(sa.select(self.clock())).scalar_one()
        return moment.astimezone(UTC)

    def migrate(self) -> None:
        """Bring the schema to the newest revision."""
        config = alembic_config()
        with self.engine.begin() as connection:
            if not self.is_sqlite:
                # Several servers may start at once; the lock goes with the transaction.
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(7236018253512)"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def reset_after_fork(self) -> None:
        """Leave the connections of the parent process alone, in a forked child, and a transaction that it is in."""
        if (current := self._current.get()) is not None:
            current.is_open = False
        self.engine.dispose(close=False)
        self._prepare_turns()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def alembic_config() -> Config:
    """Return Alembic's configuration, which names the folder of the migrations."""
    config = Config()
    config.set_main_option("script_location", "eventpact:infrastructure/persistence/migrations")
    return config


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver would begin late, and deferred
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _connect_bounded(_: object, __: object, arguments: list[Any], options: dict[str, Any]) -> Any:
    return BoundedConnection.connect(*arguments, **options)


def _prepare_postgresql(connection: Any, _: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET statement_timeout = {STATEMENT_SECONDS * 1000:.0f}")
        cursor.execute("SET lock_timeout = 2000")
        # The server ends transactions of a host that was cut off; their locks would hold up all others for hours.
        cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_TRANSACTION_SECONDS * 1000:.0f}")
        for name, value in _KEEPALIVES.items():
            cursor.execute(f"SET tcp_{name.removeprefix('tcp_')} = {value}")
    connection.commit()


readiness = sa.Table(
    "readiness",
    metadata,
    sa.Column("check_id", sa.Integer, primary_key=True),
    sa.Column("checked_at", UtcDateTime, nullable=False),
)


def check_database(database: Database) -> None:
    """Look for the schema, and commit one write. A transaction that is rolled back would not reach the disk.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database does not answer, refuses writes, or was never migrated.
    """
    database.fetch(sa.text("SELECT 1 FROM accounts LIMIT 1"))
    written = database.insert(readiness).values(check_id=1, checked_at=database.now())
    again = {"checked_at": written.excluded.checked_at}
    database.write(written.on_conflict_do_update(index_elements=["check_id"], set_=again))


def kind_of(error: Exception) -> str:
    """Name the error, without its text, which may hold a row, an address of the network or a password.

    SQLite names its errors by codes such as ``SQLITE_FULL``, PostgreSQL's driver by classes such as ``DiskFull``.
    """
    cause: BaseException | None = error.orig if isinstance(error, sa.exc.DBAPIError) else error.__cause__
    return str(getattr(cause, "sqlite_errorname", None) or type(cause or error).__name__)
