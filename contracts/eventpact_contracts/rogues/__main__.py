"""``python -m eventpact_contracts.rogues``: check the known-bad gallery, and print laws by rogues."""

from __future__ import annotations

import argparse
import sys
import time

from eventpact_contracts.rogues import ROGUES
from eventpact_contracts.rogues.matrix import rendered, tried, without_rogue

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """0 where each rogue is convicted by its law and by no unrelated one, else 1."""
    names = [rogue.name for rogue in ROGUES]
    parser = argparse.ArgumentParser(prog="python -m eventpact_contracts.rogues", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="ROGUE", help="which (default: all)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="check with the seeds 1 to N (default 1)")
    parser.add_argument("--first-seed", type=int, default=1, metavar="N", help="start with another seed than 1")
    parser.add_argument("--own", action="store_true", help="only the law that must convict each, not the others")
    options = parser.parse_args(argv)
    started = time.monotonic()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if unknown := {*options.names} - {*names}:
        parser.error(f"there is no rogue {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    wanted = [rogue for rogue in ROGUES if not options.names or rogue.name in options.names]
    trials = []
    for seed in seeds:
        for number, rogue in enumerate(wanted, start=1):
            print(f"\r\x1b[Kseed {seed}, {number} of {len(wanted)}: {rogue}", end="", file=sys.stderr, flush=True)
            trials.append(tried(rogue, seed, others=0 if options.own else None))
    print("\r\x1b[K", end="", file=sys.stderr)
    print(rendered(trials))
    found = [f"no rogue is there for {law}" for law in without_rogue()]
    found += [said for trial in trials for said in (trial.escaped, *trial.unrelated) if said]
    print(*found, sep="\n", end="\n" if found else "")
    print(
        f"\n{len(wanted)} rogues, seeds {seeds[0]} to {seeds[-1]}: {len(found)} not as they should be"
        f" ({time.monotonic() - started:.0f} s)"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
