"""Cases timed side by side: interleaved in random order, compared round by round, told as ratios with their spread."""

from __future__ import annotations

import gc
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

Timer = Callable[[int], float]
"""Performs a case so many times, and returns the seconds that it took."""


def timed(operation: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> Timer:
    """A timer of an operation that is over when it returns."""

    def timer(times: int) -> float:
        start = clock()
        for _ in range(times):
            operation()
        return clock() - start

    return timer


LEAST = 3
"""Rounds that there are however long they take."""


def shuffled(names: Iterable[str], rounds: int, budget: float) -> Iterator[list[str]]:
    """The names, in an order drawn anew for each round; no further round once ``budget`` seconds are spent."""
    began, order = time.monotonic(), list(names)
    for number in range(rounds):
        if number >= LEAST and time.monotonic() - began > budget:
            return
        random.Random(number).shuffle(order)
        yield order


def interleave(
    cases: Mapping[str, Timer], *, base: str, rounds: int, seconds: float, budget: float = 30.0
) -> dict[str, Any]:
    """Time all cases, each in every round.

    Args:
        base: the case that the others are compared with, in the same round.
        seconds: about how long one case takes in one round.
        budget: seconds that the rounds may take together.
    """
    times = {name: _calibrate(timer, seconds) for name, timer in cases.items()}
    rows: dict[str, list[float]] = {name: [] for name in cases}
    processor: dict[str, list[float]] = {name: [] for name in cases}
    for order in shuffled(cases, rounds, budget):
        for name in order:
            gc.collect()
            began = time.process_time()
            rows[name].append(cases[name](times[name]) / times[name])
            processor[name].append((time.process_time() - began) / times[name])
    found = {name: _summary(rows[name], rows[base]) | _processor_of(processor[name]) for name in cases}
    return {"base": base, "rounds": len(rows[base]), "cases": found}


def machine(*packages: str) -> dict[str, Any]:
    """What the figures were made on and with."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "packages": versions,
    }


def _calibrate(timer: Timer, seconds: float) -> int:
    times = 1
    while (taken := timer(times)) < seconds / 10 and times < 10_000_000:
        times *= 4
    # Not by a moment in which the machine was busy, or there would be too few to make a mean of.
    taken = min(taken, timer(times), timer(times))
    return max(1, int(times * seconds / max(taken, 1e-9)))


def _summary(values: list[float], base: list[float]) -> dict[str, Any]:
    return {
        "nanoseconds": round(statistics.median(values) * 1e9, 1),
        "minimum_nanoseconds": round(min(values) * 1e9, 1),
        **ratio(values, base),
        "by_round": [round(value * 1e9, 1) for value in values],
    }


def _processor_of(values: list[float]) -> dict[str, Any]:
    """What of that was work of this process, not waiting."""
    nanoseconds = [round(value * 1e9, 1) for value in values]
    return {"processor_nanoseconds": statistics.median(nanoseconds), "processor_by_round": nanoseconds}


def ratio(values: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """What the values are of those of the same rounds: the median of the quotients, and their quartiles."""
    low, middle, high = quartiles([value / reference for value, reference in zip(values, base, strict=True)])
    return {"ratio": round(middle, 3), "ratio_quartile_low": round(low, 3), "ratio_quartile_high": round(high, 3)}


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile."""
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile of response times, in milliseconds."""
    ordered = sorted(seconds)
    at = {"median": 0.5, "p95": 0.95, "p99": 0.99}
    return {name: round(ordered[round(share * (len(ordered) - 1))] * 1e3, 3) for name, share in at.items()}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"


def table(result: Mapping[str, Any]) -> str:
    """The result as text: one row a case, fastest first."""
    rows = sorted(result["cases"].items(), key=lambda row: row[1]["ratio"])
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':{width}}  {'median':>12}  ratio to {result['base']} (quartiles)"]
    for name, case in rows:
        spread = f"{case['ratio_quartile_low']:.2f}-{case['ratio_quartile_high']:.2f}"
        lines.append(f"{name:{width}}  {nice(case['nanoseconds']):>12}  {case['ratio']:.2f} ({spread})")
    return "\n".join(lines)


def nice(nanoseconds: float) -> str:
    """A time as people say it."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.2f} {unit}"
    return f"{nanoseconds:.0f} ns"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
