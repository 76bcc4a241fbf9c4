"""Any pytest run that holds contract classes ends with their matrix, in which nothing passes that was not checked."""

from __future__ import annotations

import json
import re
import shlex
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from eventpact_contracts.laws import LAWS

pytest_plugins = ["pytester"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

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
    [law] = [law for law in LAWS if law.id == law_id]
    return f"test_law[{law.id}-{law.title.replace(' ', '_')}]"


class Run:
    """Runs pytest on a suite, in a process of its own, as somebody would."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.errors = ""
        self._pytester = pytester
        pytester.makeini("[pytest]\nfilterwarnings = error\n")

    def __call__(self, source: str, *arguments: str, seed: int | None = 1) -> tuple[int, str]:
        self._pytester.makepyfile(test_shop=source)
        options = ["-p", "no:asyncio", "-p", "no:cacheprovider", "--eventpact-examples=5"]
        options += [] if seed is None else [f"--eventpact-seed={seed}"]
        result = self._pytester.runpytest_subprocess(*options, *arguments)
        self.errors = "\n".join(result.errlines)
        return int(result.ret), "\n".join(result.outlines)


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "100")
    return Run(pytester)


def row(text: str, law_id: str) -> str:
    """The matrix's row of a law."""
    [line] = [line for line in text.splitlines() if re.match(rf"  {law_id} ", line)]
    return line


def test_a_run_of_one_law_shows_it_and_that_the_others_were_not_selected(run: Run) -> None:
    code, text = run(SUITE, "-k", name_of("R1"))
    assert code == 0
    assert HEADING.search(text)
    assert "✓ upheld" in row(text, "R1")
    assert all("- not selected" in row(text, law.id) for law in LAWS if law.id != "R1")
    assert "could not run" not in text
    assert f"1 of {len(LAWS)} laws checked, none violated" in text


ASKED = """
from eventpact_contracts import EventDispatcherContract

class TestShop(EventDispatcherContract):
    @property
    def guarantees(self):
        with open("asked", "a") as file:
            file.write("once")
        raise OSError("nobody knows")
"""


def test_a_class_that_cannot_be_checked_is_tried_once_and_not_for_each_law(run: Run, pytester: pytest.Pytester) -> None:
    code, text = run(ASKED, "-k", "test_law and R")
    assert code == 1
    assert text.count("E       OSError: nobody knows") >= 2
    assert (pytester.path / "asked").read_text() == "once"


def test_several_classes_are_columns(run: Run) -> None:
    code, text = run(SUITE + FORGETFUL, "-k", name_of("R1"))
    assert code == 1
    assert re.search(r"eventpact contract 1\.\d +TestShop +TestForgetful", text)
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
    assert [law["outcome"] for law in shop["laws"][:2]] == ["upheld", "not selected"]
    assert forgetful["laws"][0]["violation"]["trace"]["entries"]
    assert shop["laws"][0]["examples"] > 0
    assert "TestForgetful" in (pytester.path / "v.html").read_text()


@pytest.mark.parametrize(
    ("more", "arguments", "reason"),
    [
        ("\nclass TestOther(TestShop):\n    def test_law(self): pass\n", [], "TestOther overrides test_law"),
        ("\nclass TestOther(TestShop):\n    test_law = None\n", [], "TestOther overrides test_law"),
        ("\n@pytest.mark.skip(reason='some day')\nclass TestOther(TestShop): pass\n", [], "some day"),
        ("\n@pytest.mark.slow\nclass TestOther(TestShop): pass\n", ["-m", "not slow"], None),
    ],
)
def test_what_was_not_checked_could_not_run(run: Run, more: str, arguments: list[str], reason: str | None) -> None:
    test = name_of("R7")
    chosen = f"{test} or {name_of('A1')}"
    markers = ["-o", "markers=slow"]
    code, text = run(
        SUITE + more.format(test=test), "-k", chosen, *markers, *(part.format(test=test) for part in arguments)
    )
    if reason is None:
        assert code == 0
        assert "TestOther" not in text, "of which nothing was selected has no column"
    else:
        assert code == 1, "also where pytest itself is content with a test that was skipped"
        assert "✓ upheld" in row(text, "R7")
        assert "! could not run" in row(text, "R7")
        assert reason.format(test=test) in text


def test_a_law_of_handlers_that_is_overridden_could_not_run(run: Run) -> None:
    source = """
    from eventpact_contracts.handlers.rogues import CheckThenAct

    class TestHandler(CheckThenAct):
        def test_law(self): pass
    """
    code, text = run(textwrap.dedent(source))
    assert code == 1
    assert "! could not run" in row(text, "H2")
    assert "TestHandler overrides test_law" in text


def test_a_deselected_law_is_not_selected(run: Run) -> None:
    test = name_of("R7")
    code, text = run(SUITE, "-k", f"{test} or {name_of('A1')}", "--deselect", f"test_shop.py::TestShop::{test}")
    assert code == 0
    assert "- not selected" in row(text, "R7")
    assert "✓ upheld" in row(text, "A1")


def test_a_law_that_a_run_did_not_come_to_could_not_run(run: Run) -> None:
    code, text = run(SUITE + FORGETFUL, "-x", "-k", f"TestForgetful and ({name_of('R1')} or {name_of('A1')})")
    assert code == 1
    assert "✗ violated" in row(text, "R1")
    assert "! could not run" in row(text, "A1")
    assert "the run ended before it" in text


def test_a_test_chosen_by_name_leaves_the_others_unchecked(run: Run) -> None:
    code, text = run(SUITE, f"test_shop.py::TestShop::{name_of('A1')}")
    assert code == 0
    assert "✓ upheld" in row(text, "A1")
    assert "- not selected" in row(text, "R1")


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


def test_a_guarantee_of_a_wrong_type_is_told_where_it_is_written(run: Run) -> None:
    source = SUITE.replace("SyncEventDispatcher.guarantees", "replace(SyncEventDispatcher.guarantees, ordering='fifo')")
    code, text = run(f"from dataclasses import replace\n{source}")
    assert code == pytest.ExitCode.INTERRUPTED
    assert re.search(r"test_shop\.py:\d+: in TestShop", text)
    assert "TypeError: Guarantees: ordering is 'fifo'; it must be Ordering.NONE or Ordering.FIFO" in text
    assert "INTERNALERROR" not in text


@pytest.mark.parametrize("test", ["R1", "everything"])
def test_without_the_plugin_a_contract_could_not_run(pytester: pytest.Pytester, test: str) -> None:
    pytester.makepyfile(test_shop=SUITE)
    result = pytester.runpytest_subprocess("-p", "no:eventpact", "-p", "no:asyncio", "-k", test)
    assert result.ret == 1
    text = "\n".join(result.outlines)
    assert "the pytest plugin eventpact is not loaded; take -p no:eventpact away" in text
    assert "KeyError" not in text


HOOKS = {
    "handler": "    def handler(self): self.rows = []; return Handler(self.rows)",
    "event": "    def event(self): return AccountCreatedEvent(account_id='1', email='ada@example.com')",
    "state": "    def state(self): return list(self.rows)",
}


@pytest.mark.parametrize("forgotten", [*([name] for name in HOOKS), list(HOOKS)], ids=" and ".join)
def test_a_forgotten_hook_of_a_handler_is_no_pass(run: Run, forgotten: list[str]) -> None:
    body = "\n".join(["    settle_timeout = 1.0", *(text for name, text in HOOKS.items() if name not in forgotten)])
    source = f"""
from eventpact.domain.events import AccountCreatedEvent
from eventpact_contracts import HandlerContract

class Handler:
    def __init__(self, rows): self.rows = rows
    def handle(self, event): self.rows[:] = [event.event_id]

class TestOther(HandlerContract):
{body}
"""
    code, text = run(source)
    assert code == 1
    assert all("! could not run" in row(text, law) for law in ("H1", "H2", "H3"))
    assert f"TestOther does not say {' and '.join(forgotten)}; give it" in text
    assert all(f"def {name}(self):" in text for name in forgotten)


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
    modules = ("place", "plugin", "reports", "reports.files")
    light = ["eventpact_contracts", *(f"eventpact_contracts.{name}" for name in modules)]
    assert result.outlines == [str(light), "False"]


SOME = [name_of(law) for law in ("R1", "R7", "A1", "L2")]


@pytest.mark.parametrize("distribution", ["load", "loadscope", "loadgroup", "worksteal"])
def test_with_xdist_the_matrix_comes_once_and_whole(run: Run, pytester: pytest.Pytester, distribution: str) -> None:
    options = ["-n", "2", "--dist", distribution, "--eventpact-json=v.json", "--eventpact-junit=v.xml"]
    code, text = run(SUITE + FORGETFUL, *options, "-k", f"TestShop and ({' or '.join(SOME)})")
    assert code == 0, text
    assert len(HEADING.findall(text)) == text.count("wrote v.json") == 1
    assert all("✓ upheld" in row(text, law) for law in ("R1", "R7", "A1", "L2"))
    data = json.loads((pytester.path / "v.json").read_text())
    assert (data["exit_code"], data["seed"], len(data["dispatchers"])) == (0, 1, 1)
    assert Counter(law["outcome"] for law in data["dispatchers"][0]["laws"])["upheld"] == 4


def test_with_xdist_a_violation_is_shown_and_fails_the_run(run: Run, pytester: pytest.Pytester) -> None:
    code, text = run(
        SUITE + FORGETFUL, "-n", "2", "--eventpact-json=v.json", "-k", f"{name_of('R1')} or {name_of('A1')}"
    )
    assert code == 1
    assert re.search(r"R1 delivered +✓ upheld \(.*?\) +✗ violated", text)
    data = json.loads((pytester.path / "v.json").read_text())
    assert [verdict["exit_code"] for verdict in data["dispatchers"]] == [0, 1]
    assert data["dispatchers"][1]["laws"][0]["violation"]["trace"]["entries"]


def test_a_dispatcher_may_log_what_xdist_cannot_send(run: Run) -> None:
    logs = "        __import__('logging').getLogger('shop').warning('\\ud800')\n        yield Sync"
    code, text = run(SUITE.replace("        yield Sync", logs), "-n", "1", "-k", name_of("A1"))
    assert code == 0, text


def test_results_do_not_leak_into_the_files_of_other_plugins(run: Run, pytester: pytest.Pytester) -> None:
    run(SUITE, "-k", name_of("R1"), "--junitxml=junit.xml")
    assert "property" not in (pytester.path / "junit.xml").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--eventpact-json=no/such/x.json"], "cannot write no/such/x.json: there is no directory no/such"),
        (["--eventpact-html=."], "cannot write .: it is a directory"),
        (["--eventpact-junit=-"], "cannot write -: the standard output is for people; give a file"),
        (["--eventpact-json=x", "--eventpact-junit=x"], "cannot write x for both json and junit"),
    ],
)
@pytest.mark.parametrize("more", [[], ["-n", "2"]])
def test_a_bad_path_is_refused_before_the_run(run: Run, arguments: list[str], more: list[str], says: str) -> None:
    code, text = run(SUITE, *arguments, *more)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "test_shop" not in text, "nothing ran"
    [line] = [line for line in run.errors.splitlines() if line]
    assert says in line


def test_the_seed_of_hypothesis_is_honoured_and_printed(run: Run) -> None:
    code, text = run(SUITE, "-k", f"{name_of('R1')} or {name_of('R6')}", "--hypothesis-seed=7", seed=None)
    assert code == 0
    assert "(seed 7, 5 examples a law)" in text
    # That the same seed draws the same, test_harness.py shows.


def test_a_green_run_says_how_to_repeat_it(run: Run, pytester: pytest.Pytester) -> None:
    code, text = run(SUITE, "-k", name_of("R6"), seed=None)
    assert code == 0
    [again] = [line.removeprefix("To repeat this run: ") for line in text.splitlines() if "To repeat" in line]
    repeated = pytester.run(sys.executable, "-m", *shlex.split(again))
    assert f"To repeat this run: {again}" in repeated.outlines
    # How many examples there is time for, the machine says.
    assert "✓" in row("\n".join(repeated.outlines), "R6")


def test_tests_in_random_order_have_the_same_results(run: Run) -> None:
    pytest.importorskip("pytest_randomly")
    chosen = " or ".join(SOME)
    results = []
    for seed in ("1", "2"):
        code, text = run(SUITE, "-k", chosen, "-p", "randomly", "-p", f"no:x{seed}", f"--randomly-seed={seed}")
        assert code == 0
        results.append([row(text, law) for law in ("R1", "R7", "A1", "L2")])
    assert results[0] == results[1]


BAD_LISTS = {
    "{'R1': 'x', 'R77': 'x'}": ": there is no law R77; did you mean R7?",
    "{7: 'x'}": ": there is no law 7; ",
    "{'A1': ''}": ': A1 needs a reason; write {"A1": "the reason"}',
    "{'A1': '  '}": ': A1 needs a reason; write {"A1": "the reason"}',
    "{'A1': 7}": ': A1 needs a reason; write {"A1": "the reason"}',
    "['A1']": ' is [\'A1\']; write {"L1": "the reason"}',
    "None": ' is None; write {"L1": "the reason"}',
}


KNOWN = "    known_violations = {{'R1': 'issue 7: events get lost'{more}}}\n"


def test_exactly_the_known_violations_pass(run: Run, pytester: pytest.Pytester) -> None:
    code, text = run(SUITE + FORGETFUL + KNOWN.format(more=""), "-k", name_of("R1"), "--eventpact-json=v.json")
    assert code == 0
    assert re.search(r"R1 delivered +✓ upheld \(.*?\) +# known", text)
    assert "issue 7: events get lost" in text
    assert "1 of 28 laws checked, 1 known violation and no other" in text
    assert json.loads((pytester.path / "v.json").read_text())["exit_code"] == 0


def test_a_known_violation_that_was_mended_fails_until_it_is_taken_off_the_list(run: Run) -> None:
    code, text = run(SUITE + KNOWN.format(more=""), "-k", name_of("R1"))
    assert code == 1
    assert "take it off the list" in text
    assert "1 law listed as known, but not violated" in text


@pytest.mark.parametrize(("known", "says"), [*BAD_LISTS.items()])
def test_a_list_of_known_violations_in_a_class_that_cannot_be_used_is_refused(run: Run, known: str, says: str) -> None:
    code, text = run(f"{SUITE}\n    known_violations = {known}\n", "-k", name_of("R1"))
    assert code == pytest.ExitCode.INTERRUPTED
    assert f"TypeError: TestShop.known_violations{says}" in text


def test_a_list_of_known_violations_that_a_fixture_gives_is_read_as_that_of_a_class(run: Run) -> None:
    fixture = "    @pytest.fixture(autouse=True)\n    def known(self): self.known_violations = ['R1']\n"
    code, text = run(f"{SUITE}\n{fixture}", "-k", name_of("R1"))
    assert code == 1
    assert "! could not run" in row(text, "R1")
    assert 'TestShop.known_violations is [\'R1\']; write {"L1": "the reason"}' in text


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_violations_that_a_file_lists_pass_also_those_of_one_class(
    run: Run, pytester: pytest.Pytester, arguments: list[str]
) -> None:
    (pytester.path / "known.toml").write_text('["test_shop.py::TestForgetful"]\nR1 = "issue 7: events get lost"\n')
    code, text = run(SUITE + FORGETFUL, "-k", name_of("R1"), "--eventpact-known=known.toml", *arguments)
    assert code == 0
    assert re.search(r"R1 delivered +✓ upheld \(.*?\) +# known", text)
    assert "issue 7: events get lost" in text


def test_a_list_of_known_violations_that_cannot_be_used_is_refused(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "known.toml").write_text('R77 = "x"\n')
    code, _ = run(SUITE, "-k", name_of("R1"), "--eventpact-known=known.toml")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "there is no law R77; did you mean R7?" in run.errors


FIXTURES = """
import threading, time
from contextlib import contextmanager
import pytest
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
from eventpact_contracts import EventDispatcherContract

class Deaf(SyncEventDispatcher):
    def dispatch(self, event):
        if type(event) not in self._table:
            super().dispatch(event)

KINDS = {"good": SyncEventDispatcher, "loop": AsyncioEventDispatcher, "deaf": Deaf}

class TestEngines(EventDispatcherContract):
    settle_timeout = 0.5

    @pytest.fixture(params=list(KINDS), autouse=True)
    def engine(self, request):
        self.kind = KINDS[request.param]
        self.guarantees = self.kind.guarantees
        self.needs_loop = request.param == "loop"
        self.alive = True
        yield
        self.alive = False
        assert not self.open, "a dispatcher outlived the fixture that it was made of"

    @contextmanager
    def subject(self, handlers, on_failure):
        assert self.alive
        time.sleep(0 if self.needs_loop else 0.08)  # as a connection to an engine takes
        self.open = getattr(self, "open", 0) + 1
        yield self.kind(handlers, on_failure=on_failure)
        self.open -= 1

    open = 0
"""


def test_the_example_of_several_engines_in_the_reference_gives_each_a_column(run: Run) -> None:
    reference = Path(__file__).parents[2].joinpath("contracts", "README.md").read_text("utf-8")
    [example] = re.findall(r"```python\n(class TestEngines.*?)```", reference, re.DOTALL)
    engines = """
class PoolDispatcher(SyncEventDispatcher): pass
class QueueDispatcher(SyncEventDispatcher): pass
"""
    code, text = run(f"{SUITE}\n{engines}\n{example}", "-k", "TestEngines and R1")
    assert code == 0
    assert re.search(r"R1 delivered +✓ upheld .* +✓ upheld", text)


@pytest.mark.parametrize("distribution", [[], ["-n", "2"]], ids=["one process", "xdist"])
def test_each_parameter_of_a_fixture_is_a_subject_of_its_own(run: Run, distribution: list[str]) -> None:
    code, text = run(FIXTURES, *distribution, "-k", "R1 or G1 or A1")
    assert code == 1
    assert re.search(r"R1 delivered +✓ .* +✓ .* +✗", text)
    assert re.search(r"A1 only events +✓ .* +✓ .* +✓", text)
    assert re.search(r"blocks caller +yes +no +yes", text)
    assert re.search(r"G1 blocks_caller +✓ .* +○", text)
    assert "outlived" not in text


def test_tests_of_a_class_that_are_spread_over_processes_open_its_engine_in_one(
    run: Run, pytester: pytest.Pytester
) -> None:
    source = SUITE.replace(
        "        yield Sync",
        "        import os, pathlib\n        pathlib.Path(f'opened-in-{os.getpid()}').touch()\n        yield Sync",
    )
    code, _ = run(source, "-n", "2", "--dist", "load", "-k", "R1 or R7 or A1 or L2 or I1 or A3")
    assert code == 0
    assert len(list(pytester.path.glob("opened-in-*"))) == 1
