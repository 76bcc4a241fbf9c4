"""Any pytest run that holds contract classes ends with their matrix, in which nothing passes that was not checked."""

from __future__ import annotations

import json
import re
import sys

import pytest

from eventpact_contracts.laws import LAWS

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

SUITE = """
from contextlib import contextmanager
import pytest
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
from eventpact_contracts import EventDispatcherContract

class TestShop(EventDispatcherContract):
    guarantees = SyncEventDispatcher.guarantees

    @contextmanager
    def subject(self, handlers, on_failure):
        yield SyncEventDispatcher(handlers, on_failure=on_failure)
"""

FORGETFUL = """
class Forgetful(SyncEventDispatcher):
    def dispatch(self, event):
        if type(event) not in self._table:
            super().dispatch(event)

class TestForgetful(TestShop):
    settle_timeout = 0.5

    @contextmanager
    def subject(self, handlers, on_failure):
        yield Forgetful(handlers, on_failure=on_failure)
"""

HEADING = re.compile(r"=+ event dispatcher contract =+")


def name_of(law_id: str) -> str:
    """The name of the contract's test of a law."""
    from eventpact_contracts import EventDispatcherContract

    [name] = [name for name in dir(EventDispatcherContract) if re.match(rf"test_{law_id}(_|$)", name)]
    return name


class Run:
    """Runs pytest on a suite, in a process of its own, as somebody would."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        pytester.makeini("[pytest]\nfilterwarnings = error\n")

    def __call__(self, source: str, *arguments: str) -> tuple[int, str]:
        self._pytester.makepyfile(test_shop=source)
        options = ["-p", "no:asyncio", "-p", "no:cacheprovider", "--eventpact-examples=5", "--eventpact-seed=1"]
        result = self._pytester.runpytest_subprocess(*options, *arguments)
        return int(result.ret), "\n".join(result.outlines)


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    return Run(pytester)


def row(text: str, law_id: str) -> str:
    """The matrix's row of a law."""
    [line] = [line for line in text.splitlines() if re.match(rf"  {law_id} ", line)]
    return line


def test_a_run_of_one_law_shows_it_and_that_the_others_were_deselected(run: Run) -> None:
    code, text = run(SUITE, "-k", name_of("R1"))
    assert code == 0
    assert HEADING.search(text)
    assert "✓ upheld" in row(text, "R1")
    others = [law.id for law in LAWS if law.id != "R1"]
    assert all("! could not run" in row(text, law) for law in others)
    assert re.search(rf"{', '.join(others)} could not run\s+deselected", text)


def test_several_classes_are_columns(run: Run) -> None:
    code, text = run(SUITE + FORGETFUL, "-k", name_of("R1"))
    assert code == 1
    assert re.search(r"eventpact contract 1\.0 +TestShop +TestForgetful", text)
    assert re.search(r"R1 delivered +✓ upheld \(.*?\) +✗ violated", text)


def test_a_failure_teaches(run: Run) -> None:
    _, text = run(SUITE + FORGETFUL, "-k", f"TestForgetful and {name_of('R1')}")
    [law] = [law for law in LAWS if law.id == "R1"]
    assert "never received it" in text
    assert law.causes[0] in text
    assert "--eventpact-seed" in text


def test_the_verdicts_are_written_as_json_and_as_a_page(run: Run, pytester: pytest.Pytester) -> None:
    run(SUITE + FORGETFUL, "-k", name_of("R1"), "--eventpact-json=v.json", "--eventpact-html=v.html")
    data = json.loads((pytester.path / "v.json").read_text())
    shop, forgetful = data["dispatchers"]
    assert (shop["dispatcher"], forgetful["dispatcher"]) == ("test_shop.py::TestShop", "test_shop.py::TestForgetful")
    assert [law["outcome"] for law in shop["laws"][:2]] == ["upheld", "could not run"]
    assert forgetful["laws"][0]["violation"]["trace"]["entries"]
    assert shop["laws"][0]["examples"] == 5
    assert "TestForgetful" in (pytester.path / "v.html").read_text()


@pytest.mark.parametrize(
    ("more", "arguments", "reason"),
    [
        ("\nclass TestOther(TestShop):\n    def {test}(self): pass\n", [], "TestOther overrides {test}"),
        ("\nclass TestOther(TestShop):\n    {test} = None\n", [], "TestOther overrides {test}"),
        ("\n@pytest.mark.skip(reason='some day')\nclass TestOther(TestShop): pass\n", [], "some day"),
        ("\nclass TestOther(TestShop): pass\n", ["--deselect", "test_shop.py::TestOther::{test}"], "deselected"),
        ("\n@pytest.mark.slow\nclass TestOther(TestShop): pass\n", ["-m", "not slow"], None),
    ],
)
def test_what_was_not_checked_could_not_run(run: Run, more: str, arguments: list[str], reason: str | None) -> None:
    test = name_of("R7")
    chosen = f"{test} or {name_of('A1')}"
    markers = ["-o", "markers=slow"]
    _, text = run(
        SUITE + more.format(test=test), "-k", chosen, *markers, *(part.format(test=test) for part in arguments)
    )
    if reason is None:
        assert "TestOther" not in text, "of which nothing was selected has no column"
    else:
        assert re.search(r"✓ upheld .* ! could not run", row(text, "R7"))
        assert reason.format(test=test) in text


def test_a_test_chosen_by_name_leaves_the_others_unchecked(run: Run) -> None:
    code, text = run(SUITE, f"test_shop.py::TestShop::{name_of('A1')}")
    assert code == 0
    assert "✓ upheld" in row(text, "A1")
    assert "! could not run" in row(text, "R1")
    assert "not selected" in text


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("pass", "declares no guarantees"),
        ("guarantees = SyncEventDispatcher.guarantees", "def subject(self, handlers, on_failure):"),
    ],
)
def test_a_forgotten_hook_is_no_pass(run: Run, body: str, says: str) -> None:
    source = f"{SUITE}\nclass TestOther(EventDispatcherContract):\n    {body}\n"
    code, text = run(source, "-k", f"TestOther and {name_of('R1')}")
    assert code == 1
    assert "! could not run" in row(text, "R1")
    assert says in text


def test_a_run_without_contract_classes_is_left_alone(run: Run) -> None:
    code, text = run("def test_something(): pass\n")
    assert code == 0
    assert not HEADING.search(text)


def test_collecting_is_no_run(run: Run) -> None:
    _, text = run(SUITE, "--collect-only")
    assert not HEADING.search(text)


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_wrong_number_of_examples_is_bad_usage(run: Run, value: str) -> None:
    code, _ = run(SUITE, f"--eventpact-examples={value}")
    assert code == pytest.ExitCode.USAGE_ERROR


def test_loading_it_loads_nothing_of_the_kit(pytester: pytest.Pytester) -> None:
    script = (
        "import sys, eventpact_contracts.plugin; print(sorted(n for n in sys.modules if n.startswith('eventpact')))"
    )
    result = pytester.run(sys.executable, "-c", f"{script}; print('hypothesis' in sys.modules)")
    assert result.outlines == ["['eventpact_contracts', 'eventpact_contracts.plugin']", "False"]
