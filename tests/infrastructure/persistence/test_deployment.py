"""Facts of a deployment: written once, alike for every process that asks."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.persistence.opening import database_id, remember, secret_fingerprint


def test_a_database_has_an_id_that_migrating_again_does_not_change(database: Database) -> None:
    first = database_id(database)
    database.migrate()
    assert UUID(database_id(database)) == UUID(first)


def test_the_first_of_many_processes_that_state_a_fact_is_right(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        told = set(pool.map(lambda number: remember(database, "secret", f"fingerprint {number}"), range(8)))
    assert told == {remember(database, "secret", "another")}


def test_a_fingerprint_tells_secrets_apart_and_does_not_hold_them() -> None:
    one, other = secret_fingerprint(b"a" * 32), secret_fingerprint(b"b" * 32)
    assert one == secret_fingerprint(b"a" * 32) != other
    assert len(one) == 16


def test_the_newest_revision_can_be_undone_and_done_again(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    database.migrate()
    config = Config()
    config.set_main_option("script_location", "eventpact:infrastructure/persistence/migrations")
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0003")
    database.migrate()
    with database.transaction() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM deployment")).scalar_one() == 1
    database.close()
