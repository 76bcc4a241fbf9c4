"""Shrinking a scenario: simpler ones are tried until none of them breaks the law any more, or time is up.

Hypothesis shrinks what it has drawn. Here a scenario may be a fixed one, and one run may break several laws, each with
an example of its own; so the scenario itself is made smaller, which its being plain data makes easy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Final, TypeVar

from eventpact_contracts.scenarios.scenario import Caller, EventPlan, HandlerPlan, Scenario
from eventpact_contracts.scenarios.schedule import Schedule

__all__ = ["replayed", "shrunk"]

_REPLAYS: Final = 5
_REPLAY_SECONDS: Final = 0.5
"""Spent on running one counterexample again."""

_MAX_TRIES = 40

R = TypeVar("R")
T = TypeVar("T")


def shrunk(scenario: Scenario, breaks: Callable[[Scenario], bool], seconds: float) -> Scenario:
    """The smallest scenario found within ``seconds`` for which ``breaks`` holds."""
    deadline, left = time.monotonic() + seconds, _MAX_TRIES
    improved = True
    while improved:
        improved = False
        for simpler in _simpler(scenario):
            if time.monotonic() > deadline or left == 0:
                return scenario
            if simpler.size >= scenario.size:
                continue
            left -= 1
            if breaks(simpler):
                scenario, improved = simpler, True
                break
    return scenario


def replayed(breaks: Callable[[Scenario], bool], scenario: Scenario) -> tuple[int, int]:
    """Run a scenario again: return how often ``breaks`` held, and the number of runs."""
    deadline, seen, runs = time.monotonic() + _REPLAY_SECONDS, 0, 0
    while runs < _REPLAYS and (not runs or time.monotonic() < deadline):
        runs += 1
        seen += breaks(scenario)
    return seen, runs


def _simpler(scenario: Scenario) -> Iterator[Scenario]:
    """Simpler scenarios, the boldest first."""
    count = len(scenario.events)
    if count > 1:
        half = count // 2
        yield _without(scenario, set(range(half)))
        yield _without(scenario, set(range(half, count)))
        for number in range(count):
            yield _without(scenario, {number})
    for number in range(len(scenario.callers)):
        if len(scenario.callers) > 1:
            yield replace(scenario, callers=(*scenario.callers[:number], *scenario.callers[number + 1 :]))
    for place, caller in enumerate(scenario.callers):
        for step in range(len(caller.steps)):
            steps = (*caller.steps[:step], *caller.steps[step + 1 :])
            yield replace(scenario, callers=_put(scenario.callers, place, replace(caller, steps=steps)))
    for place, plan in enumerate(scenario.events):
        for simple in _simpler_plans(plan):
            yield replace(scenario, events=_put(scenario.events, place, simple))
    if scenario.schedule is not None:
        held = dict(scenario.schedule.preemptions)
        for decision in held:
            rest = {key: value for key, value in held.items() if key != decision}
            yield replace(scenario, schedule=Schedule(rest))
    for name in ("inside_loop", "interleaved", "leaks", "forgotten"):
        if getattr(scenario, name):
            yield _with(scenario, name, False)


def _simpler_plans(plan: EventPlan) -> Iterator[EventPlan]:
    if plan.values:
        yield replace(plan, values={})
    if plan.chain:
        yield replace(plan, chain=plan.chain // 2)
        yield replace(plan, chain=plan.chain - 1)
    for role, handler in plan.handlers.items():
        yield replace(plan, handlers={key: value for key, value in plan.handlers.items() if key != role})
        for field in fields(HandlerPlan):
            if getattr(handler, field.name) != field.default:
                simple = _with(handler, field.name, field.default)
                yield replace(plan, handlers={**plan.handlers, role: simple})


def _with(record: R, name: str, value: object) -> R:
    changed: R = replace(record, **{name: value})  # type: ignore[type-var]  # each is a dataclass
    return changed


def _put(items: tuple[T, ...], place: int, item: T) -> tuple[T, ...]:
    return (*items[:place], item, *items[place + 1 :])


def _without(scenario: Scenario, gone: set[int]) -> Scenario:
    """The scenario without some of its events, and without the steps that are about them."""
    kept = [number for number in range(len(scenario.events)) if number not in gone]
    places = {number: place for place, number in enumerate(kept)}
    callers = []
    for caller in scenario.callers:
        steps = []
        for step in caller.steps:
            event = getattr(step, "event", None)
            if event is None:
                steps.append(step)
            elif event in places:
                steps.append(_with(step, "event", places[event]))
        callers.append(Caller(tuple(steps), thread=caller.thread))
    return replace(
        scenario,
        events=tuple(scenario.events[number] for number in kept),
        callers=tuple(callers),
        releases=tuple(places[number] for number in scenario.releases if number in places),
    )
