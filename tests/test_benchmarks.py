"""The benchmarks run, and compare what they say they compare. What they find is not asserted."""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def timing() -> ModuleType:
    import timing

    return timing


def test_a_ratio_is_that_of_the_same_round(timing: ModuleType) -> None:
    """A machine that slows down tenfold in one round changes no ratio."""
    found = timing.ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0])
    assert found == {"ratio": 2.0, "ratio_quartile_low": 2.0, "ratio_quartile_high": 2.0}


def test_each_case_is_timed_once_a_round_and_by_what_it_takes(timing: ModuleType) -> None:
    performed = {"one": 0, "three": 0}

    def case(name: str, cost: float) -> object:
        def timer(times: int) -> float:
            performed[name] += 1
            return times * cost

        return timer

    found = timing.interleave(
        {"one": case("one", 1.0), "three": case("three", 3.0)}, base="one", rounds=5, seconds=10.0
    )
    assert found["cases"]["three"]["ratio"] == 3.0
    assert found["cases"]["three"]["by_round"] == [3e9] * 5
    assert performed == {"one": 8, "three": 8}  # three times to find out how often


def test_percentiles_are_of_what_was_measured(timing: ModuleType) -> None:
    hundred = [number / 1000 for number in range(101)]
    assert timing.percentiles(hundred) == {"median": 50.0, "p95": 95.0, "p99": 99.0}
    assert timing.percentiles([0.001]) == {"median": 1.0, "p95": 1.0, "p99": 1.0}


def test_an_aim_that_is_missed_says_so() -> None:
    import readme
    import tables

    results = {name: readme.load(name) for name in readme.RESULTS}
    case = results["in_process"]["blocking"]["cases"]["eventpact sync"]
    for ratio, said in {4.0: "met", 4.01: "**missed**"}.items():
        case["ratio"] = ratio
        (row,) = (line for line in tables.aims(results).splitlines() if "a bare method call" in line)
        assert row.split(" | ")[-1] == f"{said} |"


def test_events_are_timed_from_dispatch_to_handler() -> None:
    import end_to_end

    found = end_to_end.end_to_end({}, rounds=1, one_by_one=3, at_once=20)["cases"]
    assert found.keys() == {"sync", "asyncio"}
    for case in found.values():
        assert case["latency_ms"]["events"] == 3
        assert 0 < case["latency_ms"]["median"] <= case["latency_ms"]["p99"]
        assert case["events_a_second"]["median"] > 0


@pytest.mark.slow
def test_answers_are_timed_of_real_servers_beside_background_tasks() -> None:
    """With a mail server that takes its time only sync makes its caller wait."""
    import api

    began = time.monotonic()
    found = api.api(None, rounds=1, requests=2, seconds=0.5, delays=(200,))["delays_ms"][200]
    spent = (time.monotonic() - began) * 1000
    assert found.keys() == {"BackgroundTasks", "sync", "asyncio", "asyncio, outbox"}
    for case in found.values():
        assert 0 < case["response_ms"]["median"] < spent
    assert found["sync"]["response_ms"]["median"] >= 200
