"""Fuzz the real server, with every dispatcher: ``python -m fuzz --help`` (tox -e fuzz)."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from support.processes import ChildServer, ChildWorker

from fuzz.counts import Counts, count, table

HERE: Final = Path(__file__).resolve().parent
DISPATCHERS: Final = ("sync", "asyncio", "celery")

_UNLIMITED: Final = {
    "EVENTPACT_RATE_LIMIT": "1000000/minute",  # else nearly every answer were 429, which the second run is about
    "EVENTPACT_RESEND_INTERVAL": "0",  # so that every mail that must come is known
    "EVENTPACT_ANSWER_STEP": "0",
}
_LIMITED: Final = {"EVENTPACT_RATE_LIMIT": "20/minute", "EVENTPACT_RESEND_INTERVAL": "0"}


def main() -> int:
    """Returns 0 if every check of every request passed, and there were as many requests as asked for."""
    options = _options()
    print(f"reports are in {options.reports}", flush=True)
    columns: dict[str, Counts] = {}
    faults: list[str] = []
    with ThreadPoolExecutor(options.jobs) as executor:
        for done, found in executor.map(lambda name: _column(name, options), options.dispatcher or DISPATCHERS):
            columns |= done
            faults += found
    print(table(columns))
    if options.json is not None:
        document = {"seed": options.seed, "faults": faults, "columns": {k: each.plain() for k, each in columns.items()}}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    for fault in faults:
        print(f"FAILED {fault}")
    return 1 if faults else 0


def _column(dispatcher: str, options: argparse.Namespace) -> tuple[dict[str, Counts], list[str]]:
    """Fuzz one dispatcher, without a rate limit and with one. Returns the counts, and the faults in words."""
    counts, limited, faults = Counts(), Counts(), list[str]()
    for seed in itertools.count(options.seed):  # each round with a server and a seed of its own
        more = ["--max-examples", str(options.examples)]
        faults += _round(dispatcher, _UNLIMITED, options, seed, counts, more)
        if counts.requests >= options.requests or faults:
            break
    if not counts.statuses["POST /accounts/verify", 200]:
        faults.append(f"{dispatcher}: no code was ever redeemed")
    more = ["--max-examples", "50", "--include-operation-id", "createAccount"]
    faults += _round(dispatcher, _LIMITED, options, options.seed, limited, more)
    if not limited.statuses["POST /accounts", 429]:
        faults.append(f"{dispatcher}: the limit was never reached")
    return {dispatcher: counts, f"{dispatcher}, limited": limited}, faults


def _round(
    dispatcher: str,
    environment: dict[str, str],
    options: argparse.Namespace,
    seed: int,
    counts: Counts,
    more: list[str],
) -> list[str]:
    """One run of Schemathesis, added to ``counts``. Returns what was wrong."""
    limited = environment is _LIMITED
    name = f"{dispatcher}-limited-{seed}" if limited else f"{dispatcher}-{seed}"
    again = f"tox -e fuzz -- --dispatcher {dispatcher} --examples {options.examples} --requests 1 --seed {seed}"
    print(f"\n=== {name}: the same again with: {again}\n", flush=True)
    quiet = options.jobs > 1
    code = _fuzz(dispatcher, environment, options.reports / name, ["--seed", str(seed), *more], quiet=quiet)
    failed = counts.failures.total()
    count(counts, options.reports / name / "events.ndjson")
    failed = counts.failures.total() - failed
    return [f"{name}: {failed} checks failed, Schemathesis ended with {code}: {again}"] if code or failed else []


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--dispatcher", action="append", choices=DISPATCHERS, help="default: all")
    parser.add_argument("--requests", type=int, default=20_000, help="at least so many a dispatcher (20000)")
    parser.add_argument("--examples", type=int, default=800, help="of each operation in a round (800)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="default: a new one")
    parser.add_argument(
        "--jobs", type=int, default=1, help="dispatchers at a time (1); with more, output goes to output.txt in reports"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts")
    parser.add_argument("--reports", type=Path, default=Path("fuzz-reports"), help="where JUnit, HTML and NDJSON go")
    return parser.parse_args()


def _fuzz(dispatcher: str, environment: dict[str, str], reports: Path, more: list[str], *, quiet: bool) -> int:
    """Run Schemathesis's own command against a server of its own. Returns its exit code."""
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="eventpact-fuzz-") as folder, ExitStack() as stack:
        mine = {"EVENTPACT_DATA_DIR": folder} | environment
        server = stack.enter_context(ChildServer(reports, mine, dispatcher))
        if dispatcher == "celery":
            stack.enter_context(ChildWorker(reports, mine))
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"]
        command += [f"http://127.0.0.1:{server.port}/openapi.json", "--checks", "all", "--workers", "1", *more]
        command += ["--continue-on-failure", "--report", "junit,html,ndjson"]
        command += ["--report-junit-path", "junit.xml", "--report-html-path", "html"]
        command += ["--report-ndjson-path", "events.ndjson"]
        hooks = {"SCHEMATHESIS_HOOKS": "fuzz.hooks", "EVENTPACT_FUZZ_MAIL": str(Path(folder) / "mail")}
        path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
        output = stack.enter_context((reports / "output.txt").open("wb")) if quiet else None
        environment = os.environ | hooks | {"PYTHONPATH": path}
        return subprocess.run(command, cwd=reports, env=environment, stdout=output, stderr=output).returncode


if __name__ == "__main__":
    raise SystemExit(main())
