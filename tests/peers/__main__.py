"""``python -m peers``, which is what ``tox -e peers`` runs: judge each library, and write the table anew."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from eventpact_contracts.checking.outcomes import CONTRACT_VERSION
from eventpact_contracts.laws import LAWS
from peers.by_hand import seen_by_hand
from peers.judge import JUDGED
from peers.libraries import LIBRARIES, Library
from peers.table import HERE, documented, markdown, page

RESULTS = HERE / "peers.json"


def main() -> int:
    """Judge the libraries that are named, by default all, and write JSON, Markdown and HTML."""
    parser = argparse.ArgumentParser(prog="python -m peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(each.name for each in LIBRARIES)}")
    parser.add_argument("--examples", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the table as a page, too")
    parser.add_argument("--render", action="store_true", help="judge nothing, and write the table of the last results")
    options = parser.parse_args()
    facts = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"libraries": []}
    if not options.render:
        rows = {row["library"]: row for row in facts["libraries"]}
        for library in LIBRARIES:
            if not options.names or library.name in options.names:
                print(library.name, flush=True)
                rows[library.name] = _judged(library, options.examples, options.seed)
        titles = {law.id: law.title for law in LAWS}
        facts = {
            "contract_version": CONTRACT_VERSION,
            "time": datetime.now(UTC).date().isoformat(),
            "python": platform.python_version(),
            "kit": version("eventpact"),
            "platform": platform.platform(),
            "examples": options.examples,
            "seed": options.seed,
            "titles": {law: titles[law] for law in JUDGED},
            "libraries": [rows[library.name] for library in LIBRARIES if library.name in rows],
        }
        RESULTS.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (HERE / "README.md").write_text(markdown(facts, documented()), "utf-8")
    if options.html:
        options.html.write_text(page(facts, documented()), "utf-8")
    return 0


def _judged(library: Library, examples: int, seed: int) -> dict[str, object]:
    """Judge one library in a process of its own, which its threads and globals end with."""
    command = [sys.executable, "-W", "ignore", "-m", "peers.judge", library.name]
    command += ["--examples", str(examples), "--seed", str(seed)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    adapter = importlib.import_module(library.target.partition(":")[0])
    more = {"adapter": adapter.__doc__, "module": library.module, "by_hand": seen_by_hand(library.module)}
    return {**json.loads(done.stdout), **more}


raise SystemExit(main())
