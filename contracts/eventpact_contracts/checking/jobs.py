"""Parallel checks: the scenarios are divided among processes, and their findings are merged."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.util import Finalize
from typing import Any, Final

from eventpact.domain.dispatcher import Delivery
from eventpact_contracts.checking.outcomes import Evidence
from eventpact_contracts.checking.play import CRASHES, FIXED, families_of, play
from eventpact_contracts.driver.threads import end_in_time
from eventpact_contracts.laws import LAWS, Law
from eventpact_contracts.scenarios.families import FAMILIES
from eventpact_contracts.subjects.loading import find
from eventpact_contracts.subjects.subject import CouldNotRunError, Subject

__all__ = ["play_in_jobs", "usual_jobs"]

_SLOW_JOBS: Final = 3
"""Processes for a slow engine, whose scenarios mostly wait."""

_MEMORY_JOBS: Final = 2
"""Processes for a dispatcher in memory: the second one is worth the time that it takes to start, a third is not."""

_CRASHES_SECONDS: Final = 1.5
"""The weight of the part that is no family, beside theirs: it takes longer, and leaves the processor to others."""


def usual_jobs(subject: Subject, laws: Sequence[Law]) -> int:
    """Return how many processes to take for these laws where nobody says.

    Whoever delivers at least once keeps events somewhere: in a file, say, which two processes would share and each be
    delivered what the other one dispatched. Such a dispatcher has one process, unless its author allows for more.
    """
    if subject.max_open > 1:
        return _SLOW_JOBS
    is_kept = subject.outlives or subject.guarantees.delivery is not Delivery.AT_MOST_ONCE
    return 1 if is_kept or len(laws) < len(LAWS) else min(_MEMORY_JOBS, _cores())


def play_in_jobs(
    laws: Sequence[Law], target: str, given: Mapping[str, Any], *, examples: int, seed: int, jobs: int
) -> Evidence:
    """Play the scenarios that these laws need in so many processes, each with dispatchers of its own.

    Args:
        target: the target of the command line, for the other processes to find.
        given: the options that :func:`~eventpact_contracts.subjects.loading.find` takes.

    Raises:
        CouldNotRunError: a hook is missing, no dispatcher could be opened, or a process has ended before its time.
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
        try:
            first, *others = [each.result() for each in played]
        except BrokenProcessPool as error:
            said = "one of the processes that it was checked in has ended, by os._exit or by a signal; see --jobs 1"
            raise CouldNotRunError(said) from error
    evidence = first.merged(*others)
    evidence.seconds = time.monotonic() - started
    return evidence


def _cores() -> int:
    """Return how many cores this process may use."""
    usable = getattr(os, "sched_getaffinity", None)  # which macOS and Windows lack
    return len(usable(0)) if usable else os.cpu_count() or 1


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
