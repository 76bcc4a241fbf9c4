"""The recipe of a marker in the handler's own transaction keeps the laws of handlers."""

import inspect
import re
import sqlite3
import textwrap
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from examples.marker_in_the_transaction import GoodsSold, StockHandler
from hypothesis import strategies as st

from eventpact_contracts import HandlerContract
from eventpact_contracts.checking.outcomes import Outcome
from eventpact_contracts.handlers.check import check_handler
from eventpact_contracts.handlers.laws import HANDLER_LAWS

REFERENCE = Path(__file__).parents[2].joinpath("contracts", "README.md").read_text("utf-8")


def test_the_recipe_in_the_reference_is_the_handler_that_is_tested() -> None:
    [recipe] = re.findall(r"```python\ndef handle\(self, event\):\n(.*?)```", REFERENCE, re.DOTALL)
    assert textwrap.indent(recipe, "    ") in inspect.getsource(StockHandler)


def test_the_contract_in_the_reference_upholds_every_law(tmp_path: Path) -> None:
    example = re.findall(r"```python\n(from contextlib import closing\n.*?)```", REFERENCE, re.DOTALL)[0]
    known: dict[str, Any] = {
        "__name__": __name__,
        "StockHandler": StockHandler,
        "GoodsSold": GoodsSold,
        "new_database": partial(new_database, tmp_path),
    }
    exec(example, known)
    results = [check_handler(law, known["TestStockHandler"]()) for law in HANDLER_LAWS]
    assert [(result.outcome, result.detail) for result in results] == [(Outcome.UPHELD, "")] * 3


def new_database(folder: Path) -> Callable[[], sqlite3.Connection]:
    file = folder / f"{uuid4().hex}.db"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(file, timeout=5)

    with closing(connect()) as connection, connection:
        connection.execute("CREATE TABLE handled (event_id TEXT PRIMARY KEY)")
        connection.execute("CREATE TABLE stock (article TEXT PRIMARY KEY, pieces INTEGER)")
        connection.execute("INSERT INTO stock VALUES ('pen', 1000)")
    return connect


class StockContract(HandlerContract):
    folder: Path
    kind: type[StockHandler] = StockHandler

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def handler(self) -> StockHandler:
        self.connect = new_database(self.folder)
        return self.kind(self.connect)

    def event(self) -> st.SearchStrategy[GoodsSold]:
        return st.builds(GoodsSold, article=st.just("pen"), pieces=st.integers(1, 9))

    def state(self) -> int:
        with closing(self.connect()) as connection:
            [(pieces,)] = connection.execute("SELECT pieces FROM stock").fetchall()
        return int(pieces)


@pytest.mark.slow
class TestStockHandler(StockContract):
    pass


class WithoutMarker(StockHandler):
    def handle(self, event: GoodsSold) -> None:
        with closing(self._connect()) as connection, connection:
            connection.execute("UPDATE stock SET pieces = pieces - ? WHERE article = ?", (event.pieces, event.article))


def test_without_the_marker_the_laws_are_violated(tmp_path: Path) -> None:
    contract = type("Contract", (StockContract,), {"kind": WithoutMarker})()
    contract.folder = tmp_path
    for law in HANDLER_LAWS:
        assert check_handler(law, contract).outcome is Outcome.VIOLATED
