"""Fuzz the real server, with every dispatcher: ``python -m fuzz --help`` (tox -e fuzz)."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from eventpact.demo.processes import Server, Worker
from fuzz.counts import Counts, count, table

HERE: Final = Path(__file__).resolve().parent

# Schemathesis draws --max-examples for each of three operations, and as many stateful scenarios of about five steps;
# with fewer requests than were asked for, the run fails.
_REQUESTS_AN_EXAMPLE: Final = 5

_UNLIMITED: Final = {
    "EVENTPACT_RATE_LIMIT": "1000000/minute",  # else nearly every answer were 429, which the second run is about
    "EVENTPACT_RESEND_INTERVAL": "0",  # so that every mail that must come is known
    "EVENTPACT_ANSWER_STEP": "0",
}
_LIMITED: Final = {"EVENTPACT_RATE_LIMIT": "20/minute", "EVENTPACT_RESEND_INTERVAL": "0"}


def main() -> int:
    """Returns 0 if every check of every request passed, and there were as many requests as asked for."""
    options = _options()
    options.reports.mkdir(parents=True, exist_ok=True)
    print(f"reports are in {options.reports}", flush=True)
    columns: dict[str, Counts] = {}
    faults: list[str] = []
    for dispatcher in options.dispatcher or ["sync", "asyncio", "celery"]:
        again = f"tox -e fuzz -- --dispatcher {dispatcher} --requests {options.requests} --seed {options.seed}"
        for name, environment, more in (
            (dispatcher, _UNLIMITED, ["--max-examples", str(-(-options.requests // _REQUESTS_AN_EXAMPLE))]),
            (f"{dispatcher}, limited", _LIMITED, ["--max-examples", "50", "--include-operation-id", "createAccount"]),
        ):
            print(f"\n=== {name}: the same again with: {again}\n", flush=True)
            reports = options.reports / name.replace(", ", "-")
            code = _fuzz(dispatcher, environment, reports, ["--seed", str(options.seed), *more])
            columns[name] = counts = count(reports / "events.ndjson")
            wanted = options.requests if environment is _UNLIMITED else 1
            faults += [f"{name}: {fault}" for fault in _faults(code, counts, wanted, environment is _LIMITED)]
    print(table(columns))
    for fault in faults:
        print(f"FAILED {fault}")
    return 1 if faults else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--dispatcher", action="append", choices=("sync", "asyncio", "celery"), help="default: all")
    parser.add_argument("--requests", type=int, default=20_000, help="at least so many a dispatcher (20000)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="default: a new one")
    parser.add_argument("--reports", type=Path, default=Path("fuzz-reports"), help="where JUnit, HTML and NDJSON go")
    return parser.parse_args()


def _faults(code: int, counts: Counts, wanted: int, limited: bool) -> list[str]:
    faults = [f"Schemathesis ended with {code}"] if code else []
    if counts.failures:
        faults.append(f"{counts.failures.total()} checks failed")
    if counts.requests < wanted:
        faults.append(f"only {counts.requests} of {wanted} requests")
    if limited and not counts.statuses["POST /accounts", 429]:
        faults.append("the limit was never reached")
    if not limited and not counts.statuses["POST /accounts/verify", 200]:
        faults.append("no code was ever redeemed")
    return faults


def _fuzz(dispatcher: str, environment: dict[str, str], reports: Path, more: list[str]) -> int:
    """Run Schemathesis's own command against a server of its own. Returns its exit code."""
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="eventpact-fuzz-") as folder, ExitStack() as stack:
        mine = {"EVENTPACT_DATA_DIR": folder} | environment
        server = stack.enter_context(Server(reports, mine, dispatcher))
        if dispatcher == "celery":
            stack.enter_context(Worker(reports, mine))
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"]
        command += [f"http://127.0.0.1:{server.port}/openapi.json", "--checks", "all", "--workers", "1", *more]
        command += ["--continue-on-failure", "--report", "junit,html,ndjson"]
        command += ["--report-junit-path", "junit.xml", "--report-html-path", "html"]
        command += ["--report-ndjson-path", "events.ndjson"]
        hooks = {"SCHEMATHESIS_HOOKS": "fuzz.hooks", "EVENTPACT_FUZZ_MAIL": str(Path(folder) / "mail")}
        path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
        return subprocess.run(command, cwd=reports, env=os.environ | hooks | {"PYTHONPATH": path}).returncode


if __name__ == "__main__":
    raise SystemExit(main())
