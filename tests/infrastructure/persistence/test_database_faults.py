"""A database that cannot be written is found out, and a host that was cut off holds up nobody."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.outbox_kit import Background, Counted, Recorder, url_of
from support.waiting import until

from eventpact.infrastructure.outbox.settlements import Heartbeats
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.persistence.database import (
    IDLE_TRANSACTION_SECONDS,
    Database,
    check_database,
    readiness,
)
from eventpact.infrastructure.persistence.opening import explain

_CUT_OFF = """
import sys, time
from eventpact.infrastructure.outbox.settlements import Heartbeats
from eventpact.infrastructure.persistence.database import Database

database = Database(sys.argv[1])
with database.transaction():
    assert Heartbeats(database).beat("cut-off")
    print("beating", flush=True)
    time.sleep(600)
"""

_FULL = """
import resource, signal, sys
import sqlalchemy as sa
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.persistence.database import check_database

database = Database(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))  # bytes: no file takes any more
try:
    check_database(database)
except sa.exc.OperationalError as error:
    print(error.orig)
"""


@pytest.mark.parametrize("database", [pytest.param("postgresql", marks=pytest.mark.services)], indirect=True)
def test_a_host_cut_off_in_a_heartbeat_holds_up_nobody(database: Database, background: Background) -> None:
    handler, heartbeats = Recorder(), Heartbeats(database)
    for relay_id in ("cut-off", "killed"):
        heartbeats.register(relay_id)
        OutboxStore(database).append(Counted(number=len(relay_id)), ["support.outbox_kit.Recorder"], relay_id)
    cut_off = subprocess.Popen(
        [sys.executable, "-c", _CUT_OFF, url_of(database)], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert cut_off.stdout is not None
        assert cut_off.stdout.readline() == "beating\n"
        cut_off.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        background.outbox({Counted: handler}, database, lease=timedelta(seconds=1))
        until(lambda: handler.numbers == [len("killed")], 10)  # whose row nobody holds
        until(lambda: sorted(handler.numbers) == sorted([len("killed"), len("cut-off")]), 2 * IDLE_TRANSACTION_SECONDS)
        assert time.monotonic() - started < 2 * IDLE_TRANSACTION_SECONDS
    finally:
        cut_off.kill()
        cut_off.communicate()


def test_a_database_that_takes_no_writes_is_not_ready(database: Database) -> None:
    check_database(database)
    read_only = "PRAGMA query_only=1" if database.is_sqlite else "SET TRANSACTION READ ONLY"
    sa.event.listen(database.engine, "begin", lambda connection: connection.exec_driver_sql(read_only))
    with pytest.raises(sa.exc.SQLAlchemyError):
        check_database(database)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_database_on_a_full_disk_is_not_ready(database: Database) -> None:
    check_database(database)
    done = subprocess.run(
        [sys.executable, "-c", _FULL, url_of(database)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "disk" in done.stdout


def forked_writer(database: Database) -> int:
    """Fork a child that writes to the database, and return its number."""
    child = os.fork()
    if not child:
        code = 1
        try:
            check_database(database)
            code = 0
        finally:
            os._exit(code)
    return child


def ended_well(child: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_has_connections_of_its_own(database: Database) -> None:
    check_database(database)
    assert ended_well(forked_writer(database))
    check_database(database)


def test_a_child_that_is_forked_inside_a_transaction_writes_nothing_over_the_connection_of_its_parent(
    database: Database,
) -> None:
    check_database(database)
    with database.transaction() as connection:
        child = os.fork()
        if not child:
            refused = database.is_sqlite  # which has one writer, and that is the parent
            try:
                with database.transaction(0.1) as own:
                    refused = own is connection
            except sa.exc.SQLAlchemyError:
                refused = not database.is_sqlite
            finally:
                os._exit(refused)
        assert ended_well(child)


def test_a_child_that_is_forked_while_a_thread_writes_can_write(database: Database) -> None:
    """SQLite's locks were copied with the thread's write: the child found the file locked for ever, or hung."""
    writing, forked = threading.Event(), threading.Event()

    def write() -> None:
        with database.transaction() as connection:
            connection.execute(sa.insert(readiness).values(check_id=2, checked_at=database.now()))
            writing.set()
            forked.wait(0.2)  # the fork waits for the write to end, or else comes into the middle of it

    thread = threading.Thread(target=write)
    thread.start()
    assert writing.wait(10)
    child = forked_writer(database)
    forked.set()
    thread.join()
    assert ended_well(child)
    check_database(database)


def test_a_full_database_is_said_to_need_room_and_not_to_be_down(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'full.db'}")
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
        with pytest.raises(sa.exc.OperationalError) as caught:
            connection.exec_driver_sql("CREATE TABLE accounts (account_id TEXT)")
    database.close()
    assert explain(caught.value).endswith("database or disk is full; make room on its disk")
