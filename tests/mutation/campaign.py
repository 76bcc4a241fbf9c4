"""Runs mutmut scope by scope, each in a folder of its own that a later run takes up again.

mutmut reads one configuration and one set of tests from the current folder, and wants all sources below ``src``. So a
stage is run in a copy of this repository that is laid out and configured for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from scopes import Scope, Stage
from score import KILLED

__all__ = ["ROOT", "differences", "run_scope"]

ROOT: Final = Path(__file__).resolve().parents[2]
_LONGEST: Final = 24 * 3600.0
_SOURCES: Final = {"src": "src", "contracts": "src", "tests": "tests"}


def run_scope(
    scope: Scope, work: Path, *, children: int, deadline: float, sample: int | None = None
) -> dict[str, dict[str, str]]:
    """The outcome of each mutant at each stage of ``scope``.

    Args:
        work: where the stages have their folders.
        children: how many mutants are tested at once.
        deadline: when to end, by ``time.monotonic``. What is left is ``not checked``, as is what is not in the sample.
        sample: how many mutants are taken, the same at each stage and in each run; all where it is None.
    """
    outcomes: dict[str, dict[str, str]] = {}
    for stage in scope.stages:
        if stage.needs and stage.needs not in os.environ:
            print(f"{scope.name}: the stage {stage.name} is NOT RUN, since {stage.needs} is not set")
            continue
        folder = work / f"{scope.name}-{stage.name}"
        changed = _lay_out(folder, scope, stage)
        _generate(folder)
        before = _outcomes(folder)
        drawn = set(sorted(before, key=_lot)[:sample])
        chosen = [name for name, outcome in before.items() if name in drawn or outcome != "not checked"]
        if stage.rest:
            chosen = [name for name in before if _is_alive(found[name] for found in outcomes.values())]
        # What a test has killed stays killed; the rest is tried again when tests have changed, a time-out too.
        done = {"killed"} if changed else {*before.values()} - {"not checked"}
        if todo := [name for name in chosen if before[name] not in done]:
            _mutmut(folder, ["run", "--max-children", str(children), *todo], deadline)
        outcomes[stage.name] = _outcomes(folder)
    return outcomes


def _is_alive(outcomes: Iterable[str]) -> bool:
    """Whether a mutant went through a stage, and none has killed it."""
    found = {*outcomes} - {"not checked"}
    return bool(found) and not found & KILLED


def _lot(mutant: str) -> str:
    return hashlib.sha256(mutant.encode()).hexdigest()


def _generate(folder: Path) -> None:
    """Write the mutants down without running any, which mutmut has no command for."""
    program = """
from mutmut.__main__ import copy_also_copy_files, copy_src_dir, create_mutants, setup_source_paths
from mutmut.mutation.trampoline import set_mutant_under_test
set_mutant_under_test("mutant_generation")
copy_src_dir()
copy_also_copy_files()
setup_source_paths()
create_mutants(1)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, env=_environment(folder), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"mutmut could not write its mutants in {folder}:\n{done.stdout[-2000:]}{done.stderr}")


def _mutmut(folder: Path, arguments: list[str], deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        return
    with (folder / "mutmut.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mutmut", *arguments],
            cwd=folder,
            env=_environment(folder),
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            status = process.wait(min(left, _LONGEST))
        except subprocess.TimeoutExpired:  # what was found is kept, and the next run goes on from there
            status = 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # it leaves the server that forks its children behind
            process.wait()
    if status != 0:
        last = (folder / "mutmut.log").read_text(encoding="utf-8", errors="replace")[-4000:]
        raise SystemExit(f"mutmut {' '.join(arguments)[:200]} failed in {folder}:\n{last}")


def _environment(folder: Path) -> dict[str, str]:
    # Processes that a test starts import the mutant, too.
    path = [folder / "mutants" / "src", folder / "tests" / "mutation", os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, map(str, path)))}


def _outcomes(folder: Path) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", "results", "--all", "true"],
        cwd=folder,
        env=_environment(folder),
        capture_output=True,
        text=True,
    )
    return dict(re.findall(r"^    (\S+): (.+)$", done.stdout, flags=re.M))


def differences(folder: Path, mutants: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The lines that each mutant takes out, and those that it puts in; ``mutmut show`` would start once for each."""
    program = """
import json, sys
from mutmut.mutation.diff_apply import find_mutant, get_diff_for_mutant
print(json.dumps({name: get_diff_for_mutant(name, path=find_mutant(name).path) for name in json.load(sys.stdin)}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=_environment(folder),
        input=json.dumps(list(mutants)),
        capture_output=True,
        text=True,
        check=True,
    )
    return {name: (_lines(text, "-"), _lines(text, "+")) for name, text in json.loads(done.stdout).items()}


def _lines(difference: str, sign: str) -> str:
    changed = [line for line in difference.splitlines() if line.startswith(sign) and not line.startswith(sign * 3)]
    return " ".join(" ".join(line[1:].split()) for line in changed)


def _lay_out(folder: Path, scope: Scope, stage: Stage) -> bool:
    """Bring the copy up to date; whether tests, or what is not mutated, changed since the last time."""
    (folder / "mutants" / "src").mkdir(
        parents=True, exist_ok=True
    )  # Python passes over a path that is missing when it starts
    wanted = {
        folder / target / path.relative_to(ROOT / source): path
        for source, target in _SOURCES.items()
        for path in sorted((ROOT / source).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    for path in [path for top in {*_SOURCES.values()} for path in (folder / top).rglob("*") if path.is_file()]:
        if path not in wanted:
            path.unlink()
    digest = hashlib.sha256()
    for target, path in wanted.items():
        content = path.read_bytes()
        relative = target.relative_to(folder)
        if not any(relative.match(pattern) for pattern in scope.modules):
            digest.update(str(relative).encode() + content)
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    configuration = _configuration(scope, stage)
    (folder / "pyproject.toml").write_text(configuration, encoding="utf-8")
    digest.update(configuration.encode())
    kept = folder / "digest"
    changed = kept.exists() and kept.read_text() != digest.hexdigest()
    kept.write_text(digest.hexdigest())
    if changed:  # which test reaches which function is taken down anew
        (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
        shutil.rmtree(folder / "mutants" / "tests", ignore_errors=True)
    return changed


def _configuration(scope: Scope, stage: Stage) -> str:
    arguments = ["-p", "isolation", "-p", "no:cacheprovider", "--hypothesis-seed=0", *stage.arguments]
    tests = [f"tests/{test}" for test in stage.tests]
    return f"""{(ROOT / "pyproject.toml").read_text(encoding="utf-8")}

[tool.mutmut]
source_paths = ["src"]
only_mutate = {json.dumps(scope.modules)}
pytest_add_cli_args = {json.dumps(arguments)}
pytest_add_cli_args_test_selection = {json.dumps(tests)}
process_isolation = "forkserver"  # a child must not inherit threads and brokers of the run before it
timeout_multiplier = 3.0
timeout_constant = {stage.patience / 3:.1f}
on_dependency_change = "ignore"  # the campaign watches what changes
use_git_change_detection = false
"""
