"""Drawing by Hypothesis: repeatable, without a database, a deadline or words of its own; and an end to it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, given
from hypothesis.strategies import SearchStrategy

__all__ = ["EnoughDrawn", "draw", "quiet_settings"]

T = TypeVar("T")


class EnoughDrawn(BaseException):
    """Stop, wherever Hypothesis is. No ``Exception``, because those are counterexamples to it."""


def quiet_settings(max_examples: int, *, shrink: bool = True, steps: int = 50) -> hypothesis.settings:
    """Settings for a number of examples; ``steps`` are those of a state machine, at most."""
    return hypothesis.settings(
        max_examples=max_examples,
        stateful_step_count=steps,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
    )


def draw(
    strategy: SearchStrategy[T], take: Callable[[T], object], *, seed: int, examples: int, most: int | None
) -> None:
    """Draw so many examples, the same ones each time, until one who takes them has enough, or ``most`` are drawn.

    Raises:
        HypothesisException: Hypothesis could not draw them.
    """
    drawn = 0

    @hypothesis.seed(seed)
    @quiet_settings(examples, shrink=False)
    @given(strategy)
    def each(example: T) -> None:
        nonlocal drawn
        if drawn == most:
            raise EnoughDrawn
        drawn += 1
        take(example)

    with suppress(EnoughDrawn):
        each()
