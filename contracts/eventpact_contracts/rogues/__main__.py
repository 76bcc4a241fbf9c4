"""``python -m eventpact_contracts.rogues``: check the known-bad gallery, and print which law convicts which rogue."""

from __future__ import annotations

import argparse
import logging
import random
import re
import sys
import time
import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from eventpact_contracts.checking.check import check_laws
from eventpact_contracts.checking.outcomes import LawResult, Outcome
from eventpact_contracts.driver.recorder import logging_to
from eventpact_contracts.laws import LAWS, Law
from eventpact_contracts.rogues import ROGUES
from eventpact_contracts.rogues.rogue import Rogue

__all__ = ["Trial", "main", "rendered", "tried", "without_rogue"]

_EXAMPLES: Final = 50
"""The number of examples that a family of scenarios gets, at most."""


@dataclass(frozen=True)
class Trial:
    """One rogue before all laws, with one seed."""

    rogue: Rogue
    seed: int
    results: tuple[LawResult, ...]

    @property
    def escaped(self) -> str | None:
        """Return how the law that must convict it did not."""
        rogue = self.rogue
        [own] = [result for result in self.results if result.law_id == rogue.convicted_by]
        if own.outcome is not rogue.expected:
            return f"{rogue} (seed {self.seed}): {own.law_id} says {own.outcome.value}: {own.detail or 'nothing'}"
        if not re.search(rogue.message, own.detail):
            return f"{rogue} (seed {self.seed}): {own.law_id} does not say {rogue.message!r}, but: {own.detail}"
        return None

    @property
    def unrelated(self) -> list[str]:
        """The laws that convict it, and have nothing to do with it."""
        allowed = {self.rogue.convicted_by, *self.rogue.also}
        return [
            f"{self.rogue} (seed {self.seed}): {result.law_id} convicts it too: {result.detail}"
            for result in self.results
            if result.outcome is Outcome.VIOLATED and result.law_id not in allowed
        ]


def tried(rogue: Rogue, seed: int, *, others: int | None = None) -> Trial:
    """Check the law that must convict ``rogue``, and the others: all of them, or as many as are drawn by the seed."""
    own = next(law for law in LAWS if law.id == rogue.convicted_by)
    beside = [law for law in LAWS if law is not own and (rogue.target or not law.processes)]
    if others is not None:
        beside = random.Random(f"{rogue} {seed}").sample(beside, min(others, len(beside)))  # noqa: S311 - no secret
    with _quiet():
        results = check_laws([own, *beside], rogue, examples=_EXAMPLES, seed=seed)
    return Trial(rogue, seed, tuple(results))


def without_rogue(rogues: Iterable[Rogue] = ROGUES) -> list[str]:
    """The laws that no rogue is there for."""
    convicting = {rogue.convicted_by for rogue in rogues}
    return [law.id for law in LAWS if law.id not in convicting]


def rendered(trials: Sequence[Trial], laws: Sequence[Law] = LAWS) -> str:
    """The matrix, to be read: rogues down, laws across."""
    width = max(len(trial.rogue.name) for trial in trials)
    lines = [f"{'':{width}}  {' '.join(law.id for law in laws)}"]
    for rogue in dict.fromkeys(trial.rogue.name for trial in trials):
        several = [trial for trial in trials if trial.rogue.name == rogue]
        lines.append(f"{rogue:{width}}  {' '.join(_cell(several, law.id) for law in laws)}".rstrip())
    return "\n".join(
        [*lines, "", "X convicts, as it must   + may, and does   ! does, and must not   ? must, and does not"]
    )


def _cell(trials: Sequence[Trial], law: str) -> str:
    rogue = trials[0].rogue
    outcomes = {result.outcome for trial in trials for result in trial.results if result.law_id == law}
    if law == rogue.convicted_by:
        return "? " if any(trial.escaped for trial in trials) else "X "
    if Outcome.VIOLATED in outcomes:
        return "+ " if law in rogue.also else "! "
    return ". " if outcomes else "  "


@contextmanager
def _quiet() -> Generator[None]:
    """Rogues leave things unawaited, unclosed and unsaid; that is for the laws to see, and for nobody else."""
    with (
        logging_to(logging.NullHandler(), "eventpact", "asyncio"),
        warnings.catch_warnings(action="ignore"),
    ):
        yield


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
