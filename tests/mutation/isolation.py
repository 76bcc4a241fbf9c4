"""A plugin for the pytest of a mutant: the cheapest tests first, nothing inherited, no search for a shorter example."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.internal.conjecture.engine import ConjectureRunner


def pytest_configure() -> None:
    """A mutant is dead at the first counterexample; to shrink and explain it takes a hundred times as long."""
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutant", phases=phases, report_multiple_bugs=False, database=None, deadline=None)
    settings.load_profile("mutant")
    ConjectureRunner.shrink_interesting_examples = lambda self: None  # type: ignore[method-assign]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order is that of the durations which mutmut has taken down; most mutants die early."""
    try:
        took = json.loads(Path("mutmut-stats.json").read_text(encoding="utf-8"))["duration_by_test"]
    except FileNotFoundError:  # the run that takes them down
        return
    items.sort(key=lambda item: took.get(item.nodeid, 0.0))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Codecs are made once a class: those that the original made would be used in the place of the mutant's."""
    from eventpact.domain import wire

    wire._FIELDS.clear()
    getattr(wire.codec_for, "cache_clear", lambda: None)()
