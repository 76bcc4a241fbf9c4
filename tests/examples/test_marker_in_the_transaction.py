"""The recipe of a marker in the handler's own transaction keeps the laws of handlers."""

import inspect
import re
import sqlite3
import textwrap
from contextlib import closing
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from examples.marker_in_the_transaction import GoodsSold, StockHandler
from hypothesis import strategies as st

from eventpact_contracts import HandlerContract
from eventpact_contracts.checking.outcomes import Outcome
from eventpact_contracts.handlers.check import check_handler
from eventpact_contracts.handlers.laws import HANDLER_LAWS


def test_the_recipe_in_the_reference_is_the_handler_that_is_tested() -> None:
    reference = Path(__file__).parents[2].joinpath("contracts", "README.md").read_text("utf-8")
    [recipe] = re.findall(r"```python\ndef handle\(self, event\):\n(.*?)```", reference, re.DOTALL)
    assert textwrap.indent(recipe, "    ") in inspect.getsource(StockHandler)


class StockContract(HandlerContract):
    folder: Path
    kind: type[StockHandler] = StockHandler

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def handler(self) -> StockHandler:
        self.file = str(self.folder / f"{uuid4().hex}.db")
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute("CREATE TABLE handled (event_id TEXT PRIMARY KEY)")
            connection.execute("CREATE TABLE stock (article TEXT PRIMARY KEY, pieces INTEGER)")
            connection.execute("INSERT INTO stock VALUES ('pen', 1000)")
        return self.kind(partial(sqlite3.connect, self.file, timeout=5))

    def event(self) -> st.SearchStrategy[GoodsSold]:
        return st.builds(GoodsSold, article=st.just("pen"), pieces=st.integers(1, 9))

    def state(self) -> int:
        with closing(sqlite3.connect(self.file)) as connection:
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
