"""Plays fixed scenarios and families of drawn ones over a subject, as many as its time allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from itertools import chain, zip_longest
from typing import Any, Final
from zlib import crc32

from hypothesis.errors import HypothesisException

from eventpact_contracts.checking.beside import Beside, unique
from eventpact_contracts.checking.judging import Judging
from eventpact_contracts.checking.outcomes import Evidence, LawCheck
from eventpact_contracts.checking.warm_up import find_home, warm_up
from eventpact_contracts.laws import Law
from eventpact_contracts.scenarios.drawing import EnoughDrawn, draw
from eventpact_contracts.scenarios.families import FAMILIES, Family
from eventpact_contracts.scenarios.scenario import Scenario
from eventpact_contracts.subjects.subject import CouldNotRunError, Subject

__all__ = ["CRASHES", "FIXED", "families_of", "play"]

FIXED: Final = "fixed scenarios"
CRASHES: Final = "crashes"
_LEAKS: Final = "leaks"

_MIN_EXAMPLES: Final = 10
_MIN_SLOW_EXAMPLES: Final = 5
"""So many examples of a family there are at least, however long they take; fewer where an event takes milliseconds."""

_PLAYED_SHARE: Final = 0.7
"""The part of the time after which no family is begun: a last scenario that hangs, and shrinking, need the rest."""

_SHRUNK_SHARE: Final = 0.85
"""The part of the time after which no counterexample is made smaller."""

_FIXED_SHARE: Final = 0.6
"""The part of the time that fixed scenarios may take."""

_OVERTIME_SHARE: Final = 0.25
"""The part of the time that laws may take besides of which nothing was seen yet; twice that with an engine outside."""

_MAX_LEISURE: Final = 4.0
"""By this factor at most the families of a few laws have more time than they have beside all others."""

_MAX_VAIN_RUNS: Final = 4
"""A family in which so many runs waited in vain has shown all that it can."""

Progress = Callable[[str, int, int], object]


def families_of(laws: Iterable[Law]) -> tuple[str, ...]:
    """The names of everything that has to be played for these laws."""
    laws = tuple(laws)
    named = {name for law in laws for name in law.families}
    crashes = [CRASHES] if any(law.processes for law in laws) else []
    return (FIXED, *(name for name in FAMILIES if name in named), *crashes)


def play(
    laws: Sequence[Law],
    hooks: Any,
    *,
    examples: int = 100,
    seed: int = 0,
    seconds: float = 60.0,
    only: Iterable[str] | None = None,
    fixed_share: tuple[int, int] = (0, 1),
    progress: Progress | None = None,
) -> Evidence:
    """Play the scenarios of these laws, or only parts of them, and return the findings.

    Whatever is opened is closed before it returns. No part is begun after ``seconds``, doubled for an engine
    in other processes.

    Args:
        only: the names of the parts.
        fixed_share: which share of the fixed scenarios, of how many.

    Raises:
        CouldNotRunError: a hook is missing, or no dispatcher could be opened.
    """
    subject = Subject.of(hooks)
    with ExitStack() as stack:
        subject.keeper = stack
        return _Player(laws, subject, examples, seed, seconds, fixed_share).play(only, progress)


class _Player:
    def __init__(
        self,
        laws: Sequence[Law],
        subject: Subject,
        examples: int,
        seed: int,
        seconds: float,
        fixed_share: tuple[int, int],
    ) -> None:
        self._fixed_share = fixed_share
        self._laws = [law for law in laws if not law.processes]
        self._crashes = [law for law in laws if law.processes]
        self._subject = subject
        self._examples, self._seed = examples, seed
        self._started = time.monotonic()
        self._deadline = self._started + _PLAYED_SHARE * seconds
        self._evidence = Evidence({law.id: LawCheck() for law in laws})
        self._judging = Judging(self._laws, subject, self._evidence)
        self._leisure = 1.0
        self._beside = Beside(self._judging, subject)
        self._alone: list[Scenario] = []
        self._done: list[Scenario] = []

    def play(self, only: Iterable[str] | None, progress: Progress | None) -> Evidence:
        names = families_of((*self._laws, *self._crashes))
        self._leisure = min(_MAX_LEISURE, len(FAMILIES) / max(1, sum(name in FAMILIES for name in names)))
        names = tuple(name for name in names if only is None or name in set(only))
        self._evidence.in_loop = find_home(self._subject)
        if self._laws:
            warm_up(self._subject, self._judging, self._laws)
        if self._is_elsewhere():
            self._deadline += self._deadline - self._started
        if self._subject.max_open > 1 and not self._subject.traits.quick:
            self._play_in_lanes(names, progress)
        for number, name in enumerate(names):
            if progress is not None:
                progress(name, number, len(names))
            if name == CRASHES:
                continue
            # Late is better than unseen: of a family whose turn comes after the deadline, one example is played.
            if self._is_over():
                self._stop()
                break
            if name == FIXED:
                self._play_fixed()
                continue
            if name == _LEAKS or self._beside.has_ended:  # the fixed ones come first, lest time is up before
                self._end_waiting()
            self._play_family(FAMILIES[name], sum(each in FAMILIES for each in names[number:]))
        self._end_waiting()
        self._judging.shrink(self._started + (self._deadline - self._started) * _SHRUNK_SHARE / _PLAYED_SHARE)
        if CRASHES in names:
            self._subject.keeper.close()
            self._play_crashes()
        self._judging.note_counterexamples()
        self._evidence.seconds = time.monotonic() - self._started
        return self._evidence

    def _is_over(self) -> bool:
        """Return whether time is up, and a little more where nothing was found."""
        share = 2 * _OVERTIME_SHARE if self._is_elsewhere() else _OVERTIME_SHARE
        overtime = 0.0 if self._judging.found else share * (self._deadline - self._started)
        return time.monotonic() > self._deadline + overtime

    def _is_elsewhere(self) -> bool:
        """Return whether its engine is in other processes, for which it waits, too."""
        return self._subject.max_open > 1 or self._subject.outlives

    def _stop(self) -> None:
        seconds = time.monotonic() - self._started
        said = f"the run was stopped after {seconds:.0f} s"
        if self._evidence.waited > seconds / 3:
            said += (
                f", {self._evidence.waited:.0f} s of which it waited in vain for what was accepted; if it only needs"
                " longer, raise settle_timeout, and if it never comes, lower it"
            )
        self._evidence.stopped = said

    def _play_in_lanes(self, names: Sequence[str], progress: Progress | None) -> None:
        """Play what a slow engine may be given at the same time; the rest, and what was not clean, is played later."""
        if progress is not None:
            progress("side by side", 0, len(names))
        every = [scenario for _, scenario in self._fixed_in_turn()] if FIXED in names else []
        for name in names:
            if name in FAMILIES:
                self._draw(FAMILIES[name], every.append, most=_MIN_SLOW_EXAMPLES)
        beside = [scenario for scenario in unique(every) if scenario.bears_others]
        # Those that close want a dispatcher of their own, for which the lasting ones have to make room.
        beside.sort(key=lambda scenario: scenario.close)
        self._done = self._beside.in_lanes(beside, self._is_over)
        self._subject.keeper.close()

    def _fixed_in_turn(self) -> list[tuple[Law, Scenario]]:
        """The fixed scenarios: of each law the first, then the second, so that none is without if time is up."""
        every = [[(law, scenario) for scenario in law.fixed(self._subject.traits)] for law in self._laws]
        found: list[tuple[Law, Scenario]] = []
        for law, scenario in filter(None, chain.from_iterable(zip_longest(*every))):
            if all(scenario != known for _, known in found):
                found.append((law, scenario))
        first, step = self._fixed_share
        return found[first::step]

    def _play_fixed(self) -> None:
        deadline = self._started + _FIXED_SHARE * (self._deadline - self._started)
        in_turn = self._fixed_in_turn()
        every = [scenario for _, scenario in in_turn]
        done = self._done + self._beside.begin(every)
        done += self._beside.in_groups(every, lambda: time.monotonic() > deadline or self._judging.knows_all())
        for law, scenario in in_turn:
            started = time.monotonic()
            if self._is_over():
                self._stop()
                return
            if started > deadline and self._judging.check_of(law).observations:
                continue  # what is left of the time is for laws that nothing was seen of yet
            if scenario not in done and not self._judging.knows_all():
                done.append(scenario)
                if self._beside.waiting and (scenario.leaks or scenario.loop_gone):
                    self._alone.append(scenario)  # what others have open would be taken for its leaks
                else:
                    self._judging.try_scenario(scenario)
            self._judging.check_of(law).seconds += time.monotonic() - started

    def _end_waiting(self) -> None:
        """Play again, alone, whichever was not clean beside others, and what could not be played beside them."""
        self._alone += self._beside.end()
        while self._alone and not self._judging.knows_all():
            if self._is_over():
                self._stop()
                return
            self._judging.try_scenario(self._alone.pop(0))

    def _play_family(self, family: Family, remaining: int) -> None:
        fewest = _MIN_EXAMPLES if self._subject.traits.quick else _MIN_SLOW_EXAMPLES
        started, played, vain = time.monotonic(), 0, self._judging.vain_runs
        enough = started + max(0.05, family.seconds * self._leisure * self._examples / 100)
        if self._done:
            enough = started  # its share was played beside others
        # On a busy machine, or with a slow dispatcher, every family has its turn before time is up.
        too_much = started + max(0.3, (self._deadline - started) / remaining)

        def each(scenario: Scenario) -> None:
            nonlocal played
            now = time.monotonic()
            has_learned_all = self._judging.knows_all() or self._judging.vain_runs - vain >= _MAX_VAIN_RUNS
            is_late = now > min(too_much, self._deadline) and played
            if has_learned_all or is_late or (now > enough and played >= fewest):
                raise EnoughDrawn
            played += 1
            if scenario not in self._done:
                self._judging.try_scenario(scenario)

        self._draw(family, each)
        concerned = [law for law in self._laws if family.name in law.families]
        for law in concerned:
            self._judging.check_of(law).seconds += (time.monotonic() - started) / len(concerned)

    def _draw(self, family: Family, take: Callable[[Scenario], object], most: int | None = None) -> None:
        """Draw scenarios, the same ones each time, until there are as many as the family is due, or ``most``.

        Raises:
            CouldNotRunError: Hypothesis could not draw them.
        """
        seed, examples = self._seed + crc32(family.name.encode()), max(3, round(self._examples * family.share))
        try:
            draw(family.scenarios(self._subject.traits), take, seed=seed, examples=examples, most=most)
        except HypothesisException as error:
            raise CouldNotRunError(f"Hypothesis could not draw scenarios: {error}") from error

    def _play_crashes(self) -> None:
        from eventpact_contracts.crash.crashes import check_crashes  # its processes need none of the rest

        for law in self._crashes:
            started = time.monotonic()
            try:
                self._evidence.laws[law.id] = check_crashes(
                    law, self._subject, examples=self._examples, seed=self._seed
                )
            except CouldNotRunError as error:
                self._judging.check_of(law).failure = str(error)
            self._judging.check_of(law).seconds = time.monotonic() - started
