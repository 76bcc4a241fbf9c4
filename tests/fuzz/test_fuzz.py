"""A short fuzz of the API, in this process, with every dispatcher; ``tox -e fuzz`` is the long one."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig
from support.application import settings_for
from support.celery_kit import worker_of

from eventpact.bootstrap import build_worker
from eventpact.infrastructure.http.main import create_app
from eventpact.settings import Settings
from fuzz import hooks
from fuzz.people import People

# Mails have random ids, and are made in another thread while Hypothesis watches over the generator of this process.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

HERE = Path(__file__).resolve().parent
SETTINGS = settings(
    deadline=None,
    derandomize=True,
    max_examples=30,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
    database=None,
    stateful_step_count=8,
)
SCHEMA = schemathesis.openapi.from_dict(
    create_app(Settings(_env_file=None)).openapi(),  # type: ignore[call-arg]
    config=SchemathesisConfig.from_path(HERE / "schemathesis.toml"),
)


class Api:
    """An application that is running, and who signed up there."""

    def __init__(self, app: Any, people: People) -> None:
        self.people = people
        self._app = app

    def forget(self) -> None:
        """Delete every account, when its mails have come."""
        self.people.forget()
        with self._app.state.application.database.transaction() as connection:
            connection.exec_driver_sql("DELETE FROM accounts")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http", "it is running already"
        await self._app(scope, receive, send)


@contextmanager
def running(settings: Settings) -> Iterator[Any]:
    """The application on an event loop of its own, in another thread."""
    app = create_app(settings)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(20)

    context = app.router.lifespan_context(app)
    try:
        run(context.__aenter__())
        yield app
        run(context.__aexit__(None, None, None))
        run(loop.shutdown_default_executor())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module", params=["sync", "asyncio", "celery"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("fuzz")
    more: dict[str, Any] = {"dispatcher": request.param, "resend_interval": 0, "rate_limit": "1000000/minute"}
    with ExitStack() as stack:
        if request.param == "celery":
            more |= {"broker": request.getfixturevalue("valkey"), "celery_queue": "fuzz"}
            celery, dispatcher, parts = build_worker(settings_for(folder, **more))
            stack.callback(parts.database.close)
            stack.callback(lambda: asyncio.run(dispatcher.aclose()))
            stack.enter_context(worker_of(celery))
        app = stack.enter_context(running(settings_for(folder, **more)))
        yield Api(app, hooks.reads_mail_in(folder / "mail"))


@SCHEMA.parametrize()
@SETTINGS
def test_every_operation_keeps_to_the_schema(case: schemathesis.Case, api: Api) -> None:
    case.call_and_validate(app=api)


def test_so_does_every_sequence_and_codes_are_redeemed_on_the_way(api: Api) -> None:
    class Sequences(SCHEMA.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            api.forget()  # Hypothesis wants each sequence to begin alike

        def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, Any]:
            return {"app": api}

    before = api.people.redeemed
    Sequences.run(settings=SETTINGS)
    assert api.people.redeemed > before


def test_every_check_there_is_is_on() -> None:
    config = SCHEMA.config.checks
    assert {"redeems_the_live_code_and_no_other", "errors_are_problems_that_repeat_nothing"} <= set(
        CHECKS.get_all_names()
    )
    assert all(config.get_by_name(name=name).enabled for name in CHECKS.get_all_names())
