"""What is mutated, and which tests are to notice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["SCOPES", "Scope", "Stage"]

_INFRASTRUCTURE: Final = "src/eventpact/infrastructure"


@dataclass(frozen=True)
class Stage:
    """One run of mutmut.

    Attributes:
        name: tells the stage from the others of its scope.
        tests: the test modules that decide, from ``tests/``.
        arguments: more arguments for pytest.
        patience: seconds that a mutant may take beyond three times what the tests take without it.
        needs: the variable that names the service which the tests need; without it the stage is not run.
        rest: only mutants that were tested before, and live, go through it.
    """

    name: str
    tests: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    patience: int = 30
    needs: str = ""
    rest: bool = False


@dataclass(frozen=True)
class Scope:
    """Modules, and the stages that their mutants go through.

    A mutant is killed by the whole suite if any stage kills it, and by the contract alone if the stage ``contract``
    does: nothing but the contract class of that dispatcher is run there.
    """

    name: str
    title: str
    modules: tuple[str, ...]
    stages: tuple[Stage, ...]


# Two hundred events from sixteen threads are refused where a machine is busy enough, whatever the mutant.
_PATIENT: Final = ("-k", "not test_events_of_many_threads")


def _contract(dispatcher: str, *, examples: int, patience: int) -> Stage:
    # Few examples of a fixed seed: what only luck would find is not counted.
    arguments = (
        "-k",
        f"Test{dispatcher.title()}",
        f"--eventpact-examples={examples}",
        "--eventpact-seed=1",
        f"--timeout={patience}",
    )
    return Stage("contract", ("contract/test_dispatchers.py",), arguments, patience=patience)


_ON_RABBITMQ: Final = Stage("rabbitmq", ("services/test_rabbitmq.py",), needs="EVENTPACT_TEST_RABBITMQ", rest=True)

SCOPES: Final = (
    Scope(
        "core",
        "`domain`, `application`",
        ("src/eventpact/domain/*.py", "src/eventpact/application/*.py"),
        (
            Stage(
                "units",
                (
                    "domain/test_events.py",
                    "domain/test_account.py",
                    "application/test_create_account_command.py",
                    "application/test_handlers.py",
                ),
            ),
        ),
    ),
    Scope(
        "judges",
        "the judges of the laws",
        ("src/eventpact_contracts/laws/*.py",),
        (Stage("units", ("kit/test_judges.py",)),),
    ),
    Scope(
        "shared",
        "`subscriptions`, `loop_thread`",
        (f"{_INFRASTRUCTURE}/dispatching/subscriptions.py", f"{_INFRASTRUCTURE}/dispatching/loop_thread.py"),
        (
            Stage(
                "units",
                (
                    "infrastructure/dispatching/test_subscriptions.py",
                    "infrastructure/dispatching/test_loop_thread.py",
                    "infrastructure/test_sync_dispatcher.py",
                    "infrastructure/test_asyncio_dispatcher.py",
                ),
            ),
        ),
    ),
    Scope(
        "sync",
        "`SyncEventDispatcher`",
        (f"{_INFRASTRUCTURE}/sync_dispatcher.py",),
        (
            Stage("units", ("infrastructure/test_sync_dispatcher.py",)),
            _contract("sync", examples=10, patience=60),
        ),
    ),
    Scope(
        "asyncio",
        "`AsyncioEventDispatcher`",
        (f"{_INFRASTRUCTURE}/asyncio_dispatcher.py",),
        (
            Stage("units", ("infrastructure/test_asyncio_dispatcher.py",)),
            _contract("asyncio", examples=10, patience=60),
        ),
    ),
    Scope(
        "celery",
        "`CeleryEventDispatcher`, its task",
        (f"{_INFRASTRUCTURE}/celery_dispatcher.py", f"{_INFRASTRUCTURE}/celery/task.py"),
        (
            Stage(
                "units",
                (
                    "infrastructure/test_celery_dispatcher.py",
                    "infrastructure/celery/test_celery_app.py",
                    "infrastructure/celery/test_celery_unreadable.py",
                ),
                _PATIENT,
            ),
            _ON_RABBITMQ,
            _contract("celery", examples=5, patience=90),
        ),
    ),
    Scope(
        "publisher",
        "its publisher",
        (f"{_INFRASTRUCTURE}/celery/publisher.py",),
        (
            Stage(
                "units",
                ("infrastructure/celery/test_celery_publishing.py", "infrastructure/test_celery_dispatcher.py"),
                _PATIENT,
            ),
            _ON_RABBITMQ,
        ),
    ),
)
