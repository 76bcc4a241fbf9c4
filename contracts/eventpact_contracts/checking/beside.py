"""Plays scenarios beside others: what was clean beside them needs no run of its own, and the rest is played alone.

Whatever is seen beside other scenarios convicts nobody, since they may have been the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from functools import partial
from typing import Final

from eventpact_contracts.checking.judging import Judging
from eventpact_contracts.driver.session import Run
from eventpact_contracts.driver.threads import THREAD_PREFIX, in_thread, restless
from eventpact_contracts.scenarios.scenario import Scenario
from eventpact_contracts.subjects.subject import Subject

__all__ = ["Beside", "unique"]

_MAX_UNCLEAN: Final = 8
"""After so many that were not clean the dispatcher is taken for a broken one, which is better looked at alone."""

_PAUSED_AT_A_TIME: Final = 4


class Beside:
    """Scenarios that are played beside one another.

    Attributes:
        waiting: whether some are still at it.
    """

    def __init__(self, judging: Judging, subject: Subject) -> None:
        self._judging, self._subject = judging, subject
        self._waiting: list[tuple[Scenario, Future[Run]]] = []

    @property
    def waiting(self) -> bool:
        return bool(self._waiting)

    @property
    def has_ended(self) -> bool:
        """Return whether all of them are over, so that nobody has to wait for them."""
        return all(running.done() for _, running in self._waiting)

    def begin(self, scenarios: Iterable[Scenario]) -> list[Scenario]:
        """Begin those that mostly wait, each with a dispatcher of its own, and return them."""
        waiting = unique(each for each in scenarios if each.mostly_waits and not each.leaks)
        if not self._may_play() or len(waiting) < 2:
            return []
        with restless():
            self._waiting = [(scenario, self._run(scenario)) for scenario in waiting]
        return waiting

    def end(self) -> list[Scenario]:
        """Wait for those, and return whichever was not clean."""
        waiting, self._waiting = self._waiting, []
        wait([running for _, running in waiting])
        return [scenario for scenario, running in waiting if not self._is_clean(scenario, running)]

    def in_groups(self, scenarios: Iterable[Scenario], is_over: Callable[[], bool]) -> list[Scenario]:
        """Play those some at a time in which a call pauses half-way; return those that were clean."""
        paused = unique(each for each in scenarios if each.pauses_a_call)
        if not self._may_play():
            return []
        clean: list[Scenario] = []
        for first in range(0, len(paused), _PAUSED_AT_A_TIME):
            if is_over():
                break
            running = [(scenario, self._run(scenario)) for scenario in paused[first : first + _PAUSED_AT_A_TIME]]
            clean += [scenario for scenario, each in running if self._is_clean(scenario, each)]
        return clean

    def in_lanes(self, scenarios: Sequence[Scenario], is_over: Callable[[], bool]) -> list[Scenario]:
        """Play the scenarios of a slow engine, so many at a time as it may have dispatchers; return the clean ones."""
        clean: list[Scenario] = []
        with ThreadPoolExecutor(self._subject.max_open, thread_name_prefix=THREAD_PREFIX) as pool:
            running = {pool.submit(self._judging.run, each, self._subject.settle_timeout): each for each in scenarios}
            for number, each in enumerate(as_completed(running), 1):
                if self._is_clean(running[each], each):
                    clean.append(running[each])
                if is_over() or number - len(clean) >= _MAX_UNCLEAN:
                    pool.shutdown(wait=False, cancel_futures=True)
                    break
        return clean

    def _may_play(self) -> bool:
        """Return whether several dispatchers may be open at a time, and are worth it."""
        return not self._subject.slow and not self._subject.hangs and self._subject.traits.quick

    def _run(self, scenario: Scenario) -> Future[Run]:
        return in_thread(partial(self._judging.run, scenario, self._subject.settle_timeout))

    def _is_clean(self, scenario: Scenario, running: Future[Run]) -> bool:
        return running.exception() is None and self._judging.take_clean(scenario, running.result())


def unique(scenarios: Iterable[Scenario]) -> list[Scenario]:
    """The scenarios, each once, in their order."""
    found: list[Scenario] = []
    for scenario in scenarios:
        if scenario not in found:
            found.append(scenario)
    return found
