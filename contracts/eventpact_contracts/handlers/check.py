"""Check laws H1 to H3 over a handler."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final

import hypothesis
from hypothesis import given
from hypothesis.strategies import SearchStrategy

from eventpact_contracts.checking.outcomes import LawResult, Outcome, Violation
from eventpact_contracts.handlers.laws import HandlerLaw
from eventpact_contracts.handlers.ports import Attempt
from eventpact_contracts.handlers.world import Interruption, PortError, StuckError, World, interrupted_at, joined_at
from eventpact_contracts.scenarios.drawing import quiet_settings
from eventpact_contracts.subjects.subject import (
    SETTLE_SECONDS,
    CouldNotRunError,
    check_method,
    flag_of,
    name_of,
    seconds_of,
)

__all__ = ["check_handler"]

_EVENTS: Final = 5
"""Events that are drawn where ``event()`` is a strategy, at most."""

_EXHAUSTIVE_POINTS: Final = 40
"""A handler with more points is interrupted at as many that are drawn."""

_SECONDS: Final = 20.0
"""After this long no further scenario is begun."""


class _Convicted(Exception):  # noqa: N818 - not an error of the suite
    def __init__(self, violation: Violation) -> None:
        super().__init__(violation.message)
        self.violation = violation


@dataclass
class _Checking:
    """One law over one handler."""

    law: HandlerLaw
    subject: Any
    random: Random
    deadline: float
    examples: int = 0

    def event(self, event: Any) -> None:
        """Check the law with one event.

        Raises:
            _Convicted: the handler breaks it.
            CouldNotRunError: it cannot be judged with this event.
        """
        {"H1": self._twice, "H2": self._together, "H3": self._interrupted}[self.law.id](event)

    def _twice(self, event: Any) -> None:
        with World(self.subject, event) as world:
            self._handled_once(world)
            once = world.state()
            world.handle()
            self._compare(world, once, "after it was handled twice")

    def _together(self, event: Any) -> None:
        once, points = self._once(event)
        self._play(event, once, "after two calls handled it together", lambda world: world.handle_together())
        for place in self._places(points):
            how = f"after another call handled it while the first was {_place(points[place])}"
            self._play(event, once, how, partial(_joined, place))

    def _interrupted(self, event: Any) -> None:
        once, points = self._once(event)
        if not points:
            raise CouldNotRunError(
                "there is nothing to interrupt: the handler awaits nothing and calls no port, which is an attribute of"
                " the handler that is no plain data"
            )
        for place in self._places(points):
            for error in (Interruption, PortError) if not points[place].startswith("at await") else (Interruption,):
                how = f"after it was interrupted {points[place]}, and handled again"
                self._play(event, once, how, partial(_again, place, error))

    def _once(self, event: Any) -> tuple[Any, list[str]]:
        """The state that handling the event once leaves, and the points that the call passed."""
        states = []
        for _ in range(2):
            attempt = Attempt()
            with World(self.subject, event) as world:
                self._handled_once(world, attempt)
                states.append(world.state())
        if states[0] != states[1]:
            raise CouldNotRunError(
                f"state() differs between two fresh handlers of one event: {_shown(states[0])} and {_shown(states[1])}."
                " Let it leave out times and identifiers that are made anew, or see law H1"
            )
        return states[0], attempt.points

    def _handled_once(self, world: World, attempt: Attempt | None = None) -> None:
        if error := world.handle(attempt):
            raise CouldNotRunError(f"the handler raised {type(error).__name__}: {error}") from error

    def _play(self, event: Any, once: Any, how: str, scenario: Callable[[World], object]) -> None:
        if time.monotonic() > self.deadline:
            return
        with World(self.subject, event) as world:
            try:
                scenario(world)
            except StuckError as error:
                raise _Convicted(Violation(self.law.id, f"{how}: {error}", world.trace())) from error
            if world.failures and self.law.id == "H2":
                world.handle()  # as a dispatcher does that delivers at least once
            self._compare(world, once, how)

    def _compare(self, world: World, once: Any, how: str) -> None:
        self.examples += 1
        if (state := world.state()) != once:
            message = f"{how}, the state is {_shown(state)}, and handling it once leaves {_shown(once)}"
            raise _Convicted(Violation(self.law.id, message, world.trace()))

    def _places(self, points: list[str]) -> Iterator[int]:
        places = list(range(len(points)))
        if len(places) > _EXHAUSTIVE_POINTS:
            places = sorted(self.random.sample(places, _EXHAUSTIVE_POINTS))
        yield from places


def _joined(place: int, world: World) -> None:
    world.handle(joined_at(world, place))


def _again(place: int, error: type[BaseException], world: World) -> None:
    world.handle(interrupted_at(place, error))
    if world.handle() is not None:
        world.handle()


def _place(point: str) -> str:
    return point.replace("at await", "in await", 1)


def _shown(state: object) -> str:
    text = repr(state)
    return text if len(text) <= 200 else f"{text[:199]}…"


def check_handler(law: HandlerLaw, subject: Any, *, examples: int = 100, seed: int = 0) -> LawResult:
    """Check one law over the handler of a contract class's instance."""
    started = time.monotonic()
    checking = _Checking(law, subject, Random(seed), started + _SECONDS)  # noqa: S311 - no secret
    outcome, detail, violation = Outcome.UPHELD, "", None
    try:
        _check_hooks(subject)
        _for_each_event(checking, min(examples, _EVENTS), seed)
    except _Convicted as convicted:
        outcome, violation = Outcome.VIOLATED, convicted.violation
        detail = violation.message
    except (CouldNotRunError, StuckError) as error:
        outcome, detail = Outcome.COULD_NOT_RUN, str(error)
    except Exception as error:  # noqa: BLE001 - a hook is a stranger's code
        outcome, detail = Outcome.COULD_NOT_RUN, f"{name_of(subject)} raised {type(error).__name__}: {error}"
    return LawResult(
        law_id=law.id,
        title=law.title,
        outcome=outcome,
        examples=checking.examples,
        observations=checking.examples,
        detail=detail,
        seconds=time.monotonic() - started,
        violation=violation,
    )


def _check_hooks(subject: Any) -> None:
    for name in ("handler", "event", "state"):
        check_method(subject, name)
    flag_of(subject, "needs_loop")
    seconds_of(subject, "settle_timeout", SETTLE_SECONDS)


def _for_each_event(checking: _Checking, count: int, seed: int) -> None:
    event = checking.subject.event()
    if inspect.iscoroutine(event):
        event = asyncio.run(event)
    if not isinstance(event, SearchStrategy):
        checking.event(event)
        return

    @hypothesis.seed(seed)
    @quiet_settings(count)
    @given(event)
    def play(drawn: Any) -> None:
        checking.event(drawn)

    play()
