"""Laws H1 to H3 convict handlers that are not idempotent, each by the law that is about its defect, and no others."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from uuid import uuid4

import pytest
from hypothesis import strategies as st

from eventpact.domain.events import AccountCreatedEvent
from eventpact_contracts.checking.outcomes import LawResult, Outcome
from eventpact_contracts.cli import main
from eventpact_contracts.driver.trace import Kind
from eventpact_contracts.handlers.check import check_handler
from eventpact_contracts.handlers.contract import HandlerContract
from eventpact_contracts.handlers.laws import HANDLER_LAWS
from eventpact_contracts.handlers.rogues import HANDLER_ROGUES

EVENT = AccountCreatedEvent(account_id="1", email="ada@example.com")


def judged(subject: Any, seed: int = 0) -> dict[str, LawResult]:
    return {law.id: check_handler(law, subject, seed=seed) for law in HANDLER_LAWS}


def outcomes(subject: Any) -> dict[str, str]:
    return {law: result.outcome.value for law, result in judged(subject).items()}


@pytest.mark.parametrize("rogue", HANDLER_ROGUES, ids=lambda rogue: rogue.__name__)
def test_a_known_bad_handler_is_convicted_by_its_law_alone(rogue: Any) -> None:
    for seed in range(3):
        results = judged(rogue(), seed)
        convicting = {law for law, result in results.items() if result.outcome is Outcome.VIOLATED}
        assert rogue.convicted_by in convicting
        assert convicting <= {rogue.convicted_by, *rogue.also}
        own = results[rogue.convicted_by]
        assert rogue.message in own.detail
        assert own.violation is not None
        assert len(list(own.violation.trace.of(Kind.STARTED))) >= 2


def test_each_law_has_a_known_bad_handler() -> None:
    assert {rogue.convicted_by for rogue in HANDLER_ROGUES} == {law.id for law in HANDLER_LAWS}


class _Contract(HandlerContract):
    """A handler that is given by a function."""

    def __init__(self, handler: Any, state: Any, event: Any = EVENT) -> None:
        self._handler, self._state, self._event = handler, state, event

    def handler(self) -> Any:
        return self._handler()

    def event(self) -> Any:
        return self._event

    def state(self) -> Any:
        return self._state()


class Inserting:
    """Lets a unique key decide, in a transaction of its own."""

    def __init__(self, file: Path) -> None:
        self.file = file
        with self.connected() as connection:
            connection.executescript("DROP TABLE IF EXISTS account; CREATE TABLE account (id TEXT PRIMARY KEY)")

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.file, timeout=5)) as connection, connection:
            yield connection

    def rows(self) -> list[Any]:
        with self.connected() as connection:
            return connection.execute("SELECT id FROM account").fetchall()


class PlainHandler:
    def __init__(self, store: Inserting) -> None:
        self._store = store

    def handle(self, event: AccountCreatedEvent) -> None:
        with self._store.connected() as connection:
            connection.execute("INSERT OR IGNORE INTO account VALUES (?)", (event.account_id,))


class AsyncHandler(PlainHandler):
    async def handle(self, event: AccountCreatedEvent) -> None:  # type: ignore[override]  # both kinds are handlers
        await asyncio.to_thread(super().handle, event)
        await asyncio.sleep(0)


class ThirdKind(PlainHandler):
    def handle(self, event: AccountCreatedEvent) -> Any:
        return asyncio.to_thread(super().handle, event)


@pytest.mark.parametrize("kind", [PlainHandler, AsyncHandler, ThirdKind])
@pytest.mark.parametrize("hooks", ["plain", "async", "context", "async context"])
def test_an_idempotent_handler_keeps_all_laws_whatever_its_kind_and_its_hooks(
    tmp_path: Path, kind: Any, hooks: str
) -> None:
    left: list[str] = []

    class Contract(HandlerContract):
        def build(self) -> Any:
            self.store = Inserting(tmp_path / f"{uuid4().hex}.db")
            return kind(self.store)

        def handler(self) -> Any:
            @contextmanager
            def context() -> Iterator[Any]:
                yield self.build()
                left.append("context")

            @asynccontextmanager
            async def async_context() -> AsyncIterator[Any]:
                yield self.build()
                left.append("context")

            async def coroutine() -> Any:
                return self.build()

            return {
                "plain": self.build,
                "async": coroutine,
                "context": context,
                "async context": async_context,
            }[hooks]()

        def event(self) -> Any:
            async def coroutine() -> Any:
                return EVENT

            return coroutine() if hooks == "async" else EVENT

        def state(self) -> Any:
            async def coroutine() -> Any:
                return self.store.rows()

            return coroutine() if hooks == "async" else self.store.rows()

    results = judged(Contract())
    assert {law: (r.outcome, r.detail) for law, r in results.items()} == dict.fromkeys(
        ("H1", "H2", "H3"), (Outcome.UPHELD, "")
    )
    assert results["H3"].observations >= 4
    assert bool(left) == ("context" in hooks), "what was opened is closed"


def test_a_strategy_draws_events_and_the_one_that_breaks_a_law_is_found() -> None:
    class Particular:
        def __init__(self) -> None:
            self.rows: list[str] = []

        def handle(self, event: AccountCreatedEvent) -> None:
            if event.account_id not in self.rows or event.account_id.startswith("7"):
                self.rows.append(event.account_id)

    made: list[Particular] = []

    def handler() -> Particular:
        made.append(Particular())
        return made[-1]

    events = st.integers(0, 9).map(lambda n: AccountCreatedEvent(account_id=str(n), email="ada@example.com"))
    subject = _Contract(handler, lambda: list(made[-1].rows), events)
    assert judged(subject, seed=1)["H1"].outcome is Outcome.VIOLATED


def test_every_call_to_a_port_is_interrupted_before_and_after_it() -> None:
    class Port:
        def __init__(self) -> None:
            self.calls: list[str] = []

        def one(self) -> None:
            self.calls.append("one")

        async def two(self) -> None:
            self.calls.append("two")

    worlds: list[Port] = []

    class Handler:
        def __init__(self) -> None:
            self.port = Port()
            worlds.append(self.port)

        async def handle(self, event: AccountCreatedEvent) -> None:
            self.port.one()
            await self.port.two()

    subject = _Contract(Handler, lambda: None)
    [law] = [law for law in HANDLER_LAWS if law.id == "H3"]
    result = check_handler(law, subject)
    assert result.outcome is Outcome.UPHELD
    interrupted = {tuple(port.calls[:-2]) for port in worlds[2:]}
    assert interrupted == {(), ("one",), ("one", "two")}
    assert result.observations == 8, "two calls, before and after, by an interruption and by an error"


def test_a_lock_of_the_handler_is_no_port() -> None:
    class Handler:
        def __init__(self) -> None:
            self._lock = threading.Lock()
            self.rows: set[str] = set()

        def handle(self, event: AccountCreatedEvent) -> None:
            with self._lock:
                self.rows.add(event.account_id)

    made: list[Handler] = []

    def handler() -> Handler:
        made.append(Handler())
        return made[-1]

    assert set(outcomes(_Contract(handler, lambda: set(made[-1].rows))).values()) == {"upheld"}


class Calls:
    """Stands for a port that is called like a function: by itself, or as a bound method."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, *given: Any) -> Any:
        return self._function(*given)


@pytest.mark.parametrize(
    "kind",
    ["nested def", "async def", "lambda", "partial", "bound method", "builtin", "object", "mock", "cached"],
)
def test_a_port_may_be_anything_that_can_be_called(kind: str) -> None:
    worlds: list[set[str]] = []

    def handler() -> Any:
        rows: set[str] = set()
        worlds.append(rows)

        def nested(row: str) -> None:
            rows.add(row)

        async def coroutine(row: str) -> None:
            rows.add(row)

        port = {
            "nested def": nested,
            "async def": coroutine,
            "lambda": lambda row: rows.add(row),
            "partial": partial(nested),
            "bound method": Calls(nested).__call__,
            "builtin": rows.add,
            "object": Calls(nested),
            "mock": MagicMock(side_effect=nested),
            "cached": lru_cache(nested),
        }[kind]
        return PortHandler(port)

    results = judged(_Contract(handler, lambda: set(worlds[-1])))
    assert {law: (r.outcome, r.detail) for law, r in results.items()} == dict.fromkeys(
        ("H1", "H2", "H3"), (Outcome.UPHELD, "")
    )
    assert results["H3"].observations >= 4, "before and after the call, by an interruption and by an error"


class PortHandler:
    def __init__(self, port: Any) -> None:
        self._port = port

    async def handle(self, event: AccountCreatedEvent) -> None:
        made = self._port(event.account_id)
        if made is not None and not isinstance(made, MagicMock):
            await made


class TestCouldNotRun:
    def test_a_handler_in_which_nothing_can_be_interrupted(self) -> None:
        class Handler:
            def handle(self, event: AccountCreatedEvent) -> None: ...

        result = judged(_Contract(Handler, lambda: None))["H3"]
        assert result.outcome is Outcome.COULD_NOT_RUN
        assert "there is nothing to interrupt" in result.detail

    def test_a_handler_that_raises_without_any_interruption(self) -> None:
        class Handler:
            def handle(self, event: AccountCreatedEvent) -> None:
                raise LookupError("no such account")

        results = judged(_Contract(Handler, lambda: None))
        assert {result.outcome for result in results.values()} == {Outcome.COULD_NOT_RUN}
        assert "the handler raised LookupError: no such account" in results["H1"].detail

    def test_a_state_that_is_new_in_each_world(self) -> None:
        class Handler:
            def __init__(self) -> None:
                self.rows: dict[str, str] = {}

            def handle(self, event: AccountCreatedEvent) -> None:
                self.rows.setdefault(event.account_id, uuid4().hex)

        made: list[Handler] = []

        def handler() -> Handler:
            made.append(Handler())
            return made[-1]

        results = judged(_Contract(handler, lambda: dict(made[-1].rows)))
        assert results["H1"].outcome is Outcome.UPHELD
        assert "state() differs between two fresh handlers" in results["H2"].detail

    def test_a_hook_that_raises(self) -> None:
        def broken() -> Any:
            raise OSError("no database")

        result = judged(_Contract(broken, lambda: None))["H1"]
        assert (result.outcome, "raised OSError: no database" in result.detail) == (Outcome.COULD_NOT_RUN, True)

    @pytest.mark.parametrize(
        ("hook", "value", "says"),
        [
            ("state", None, "state is None; write def state(self)"),
            ("event", EVENT, "write def event(self)"),
            ("handler", PortHandler, "takes (port); write def handler(self)"),
            ("settle_timeout", "soon", "settle_timeout is 'soon'; give it seconds"),
            ("needs_loop", "yes", "needs_loop is 'yes'; give it True or False"),
        ],
    )
    def test_a_hook_that_makes_no_sense(self, hook: str, value: object, says: str) -> None:
        contract = type("Contract", (_Contract,), {hook: value})(dict, lambda: None)
        for result in judged(contract).values():
            assert result.outcome is Outcome.COULD_NOT_RUN
            assert says in result.detail

    def test_something_that_is_no_handler(self) -> None:
        result = judged(_Contract(dict, lambda: None))["H1"]
        assert "return an object with handle(event)" in result.detail


def test_two_calls_that_block_one_another_are_a_violation() -> None:
    class Handler:
        def __init__(self) -> None:
            self._meeting = threading.Barrier(2)
            self._calls = count(1)
            self.rows: set[str] = set()

        def handle(self, event: AccountCreatedEvent) -> None:
            if next(self._calls) > 1:
                self._meeting.wait(60)  # for a third call, which never comes
            self.rows.add(event.account_id)

    class Contract(_Contract):
        settle_timeout = 0.3

    [law] = [law for law in HANDLER_LAWS if law.id == "H2"]
    result = check_handler(law, Contract(Handler, lambda: None))
    assert result.outcome is Outcome.VIOLATED
    assert "it did not end within 0.3 s" in result.detail


def test_a_handler_can_be_verified_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eventpact_contracts.handlers.rogues:EarlyRow", "--quiet"]) == 1
    said = capsys.readouterr().out
    assert "H1 twice is once" in said
    assert "1 law violated" in said
    assert "declares" not in said, "a handler declares no guarantees"
    assert "To see it again:\n    eventpact verify eventpact_contracts.handlers.rogues:EarlyRow --law H3" in said


class TestForgetful(HandlerContract):
    """It says nothing of what it is about."""

    __test__ = False


class TestPicky(HandlerContract):
    """It cannot be had without more ado."""

    __test__ = False

    def __init__(self, engine: Any) -> None: ...


@pytest.mark.parametrize(
    ("contract", "says"), [(TestForgetful, "does not say handler and event and state"), (TestPicky, "raised TypeError")]
)
def test_a_contract_class_of_a_handler_that_could_not_run_has_its_laws(
    capsys: pytest.CaptureFixture[str], contract: type[HandlerContract], says: str
) -> None:
    assert main([f"{__name__}:{contract.__name__}", "--quiet"]) == 2
    said = capsys.readouterr().out
    assert re.findall(r"^  ([A-Z]\d) .*! could not run", said, re.MULTILINE) == ["H1", "H2", "H3"]
    assert says in said
