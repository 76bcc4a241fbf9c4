"""Drawing by Hypothesis: repeatable, without a database, a deadline or words of its own; and an end to it."""

from __future__ import annotations

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity

__all__ = ["EnoughDrawn", "quiet_settings"]


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
