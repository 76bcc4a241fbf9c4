"""A server and a worker that disagree: on the outbox, the database, the secret, the version of the code.

Each time the worker is started again with another setting, people sign up, and then the worker agrees again. A worker
must refuse to start, or set each message aside where it is found again; nothing may vanish without a word.
"""

from __future__ import annotations

import time
from typing import Final

from eventpact.infrastructure.persistence.database import Database
from faults.accounts import Evidence
from faults.columns import Column
from faults.fault import fault, needs_worker
from faults.world import World

__all__: list[str] = []

_PEOPLE: Final = 4
_AWARE_SECONDS: Final = 20.0
"""A worker that disagrees has so long to say so."""


def _needs_both(column: Column) -> str:
    return needs_worker(column) or ("" if column.outbox else "there is no outbox")


def _disagree(world: World, **settings: str) -> float:
    """Start the worker with other settings, have people sign up, and start it with those of the server."""
    worker = world.worker
    agreed = dict(worker.environment)
    worker.stop()
    worker.environment |= settings
    code = worker.try_to_start()
    refused = code is not None
    world.expect(code != 0, "the worker refused to start with exit code 0")
    people = set(world.sign_up(_PEOPLE))

    def is_settled() -> bool:
        return not (world.accepted() & people) - {address for address, _ in world.mail.mails} - world.kept()

    if not refused:
        settled = world.comes_about(is_settled, _AWARE_SECONDS) or not worker.is_running()
        world.expect(settled or "differ" in worker.log(), "the worker that disagrees neither delivers nor says so")
    if worker.is_running():
        worker.stop()
    elif not refused:
        world.expect(worker.exit_code(1), "the worker that disagrees ended with exit code 0")
    worker.environment.clear()
    worker.environment |= agreed
    worker.start()
    return time.monotonic()


@fault("pair-worker-without-outbox", not_for=_needs_both, loud=True)
def worker_without_outbox(world: World) -> float:
    """The server has the outbox, and the worker has not."""
    return _disagree(world, EVENTPACT_OUTBOX="false")


@fault(
    "pair-server-without-outbox",
    not_for=lambda column: needs_worker(column) or ("the server has the outbox" if column.outbox else ""),
    loud=True,
)
def server_without_outbox(world: World) -> float:
    """The worker has the outbox, and the server has not."""
    return _disagree(world, EVENTPACT_OUTBOX="true")


@fault("pair-other-database", not_for=needs_worker, loud=True)
def other_database(world: World) -> float:
    """The worker is on another database than the server, which is migrated as well."""
    url = f"sqlite:///{world.folder / 'other.db'}"
    database = Database(url)
    database.migrate()
    database.close()
    world.stores.append(Evidence(url))
    return _disagree(world, EVENTPACT_DATABASE=url)


@fault("pair-other-secret", not_for=needs_worker, loud=True)
def other_secret(world: World) -> float:
    """The worker has another secret than the server, so that each of its codes would be wrong."""
    return _disagree(world, EVENTPACT_SECRET="f" * 32)


@fault("pair-older-worker", not_for=needs_worker, loud=True)
def older_worker(world: World) -> float:
    """The server is one version ahead: its event has a field more. The worker follows only afterwards."""
    world.server.stop()
    world.server.environment["FAULTS_CODE"] = "newer"
    world.server.start()
    people = set(world.sign_up(_PEOPLE))
    world.comes_about(lambda: world.accepted() & people <= world.kept(), _AWARE_SECONDS)
    rows = world.evidence.unreadable()
    world.expect(rows <= _PEOPLE, f"{rows} failures are stored of {_PEOPLE} events that the worker cannot read")
    world.worker.stop()
    world.worker.environment["FAULTS_CODE"] = "newer"
    world.worker.start()
    updated_at = time.monotonic()
    if world.column.outbox:  # which publishes again
        is_mailed = lambda: people <= {address for address, _ in world.mail.mails}  # noqa: E731
        patience = world.options.patience
        world.expect(world.comes_about(is_mailed, patience), "an event is not delivered to the worker that can read it")
        world.expect(world.comes_about(lambda: not world.evidence.unreadable(), 5), "a failure outlives its delivery")
    return updated_at
