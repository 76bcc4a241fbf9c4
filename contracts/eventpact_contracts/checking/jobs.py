"""Parallel checks: the scenarios are divided among processes, and their findings are merged."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.util import Finalize
from typing import Any, Final

from eventpact_contracts.checking.outcomes import Evidence
from eventpact_contracts.checking.play import CRASHES, FIXED, families_of, play
from eventpact_contracts.driver.threads import end_in_time
from eventpact_contracts.laws import LAWS, Law
from eventpact_contracts.scenarios.families import FAMILIES
from eventpact_contracts.subjects.loading import find

__all__ = ["play_in_jobs"]

_CRASHES_SECONDS: Final = 1.5
"""The weight of the part that is no family, beside theirs: it takes longer, and leaves the processor to others."""


def play_in_jobs(
    laws: Sequence[Law], target: str, given: Mapping[str, Any], *, examples: int, seed: int, jobs: int
) -> Evidence:
    """Play the scenarios that these laws need in so many processes, each with dispatchers of its own.

    Args:
        target: the target of the command line, for the other processes to find.
        given: the options that :func:`~eventpact_contracts.subjects.loading.find` takes.
    """
    started = time.monotonic()
    parts = _divided(families_of(laws), jobs)
    law_ids = [law.id for law in laws]
    # Spawned, because a process that is forked inherits threads and connections that are dead in it.
    with ProcessPoolExecutor(len(parts), mp_context=get_context("spawn"), initializer=_begin) as pool:
        played = [
            pool.submit(_play, law_ids, target, dict(given), examples, seed, part, (number, len(parts)))
            for number, part in enumerate(parts)
        ]
        first, *others = [each.result() for each in played]
    evidence = first.merged(*others)
    evidence.seconds = time.monotonic() - started
    return evidence


def _begin() -> None:
    """Have a process end although threads of a dispatcher are stuck in it."""
    Finalize(None, end_in_time, args=(0,), exitpriority=0)


def _divided(families: Sequence[str], jobs: int) -> list[list[str]]:
    """The families in at most so many parts that take about as long as one another; each has fixed scenarios, too."""
    names = [name for name in families if name != FIXED]
    seconds = {name: _CRASHES_SECONDS if name == CRASHES else FAMILIES[name].seconds for name in names}
    parts: list[list[str]] = [[] for _ in range(max(1, min(jobs, len(names))))]
    for name in sorted(names, key=lambda name: -seconds[name]):
        min(parts, key=lambda part: sum(seconds[other] for other in part)).append(name)
    return [[FIXED, *part] for part in parts]


def _play(
    law_ids: list[str],
    target: str,
    given: dict[str, Any],
    examples: int,
    seed: int,
    part: list[str],
    fixed_share: tuple[int, int],
) -> Evidence:
    laws = [law for law in LAWS if law.id in law_ids]
    return play(laws, find(target, **given), examples=examples, seed=seed, only=part, fixed_share=fixed_share)
