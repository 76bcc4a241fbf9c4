"""Cases timed side by side: interleaved in random order, compared round by round, told as ratios with their spread."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

Timer = Callable[[int], float]
"""Performs a case so many times, and returns the seconds that it took."""
AsyncTimer = Callable[[int], Awaitable[float]]


def timed(operation: Callable[[], object]) -> Timer:
    """A timer of an operation that is over when it returns."""

    def timer(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            operation()
        return time.perf_counter() - start

    return timer


def interleave(cases: Mapping[str, Timer], *, base: str, rounds: int, seconds: float = 0.05) -> dict[str, Any]:
    """Time all cases, each in every round, in an order drawn anew for each round.

    Args:
        base: the case that the others are compared with, in the same round.
        seconds: about how long one case takes in one round.
    """

    async def run() -> dict[str, Any]:
        return await interleave_async(
            {name: _as_async(timer) for name, timer in cases.items()}, base=base, rounds=rounds, seconds=seconds
        )

    return asyncio.run(run())


async def interleave_async(
    cases: Mapping[str, AsyncTimer], *, base: str, rounds: int, seconds: float = 0.05
) -> dict[str, Any]:
    """:func:`interleave` for cases that are awaited."""
    times = {name: await _calibrate(timer, seconds) for name, timer in cases.items()}
    rows: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    for number in range(rounds):
        random.Random(number).shuffle(order)
        for name in order:
            gc.collect()
            rows[name].append(await cases[name](times[name]) / times[name])
    return {"base": base, "rounds": rounds, "cases": {name: _summary(rows[name], rows[base]) for name in cases}}


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
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "packages": versions,
    }


def _as_async(timer: Timer) -> AsyncTimer:
    async def run(times: int) -> float:
        return timer(times)

    return run


async def _calibrate(timer: AsyncTimer, seconds: float) -> int:
    times = 1
    while (taken := await timer(times)) < seconds / 10 and times < 10_000_000:
        times *= 4
    return max(1, int(times * seconds / max(taken, 1e-9)))


def _summary(values: list[float], base: list[float]) -> dict[str, float]:
    ratios = sorted(value / reference for value, reference in zip(values, base, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {
        "nanoseconds": round(statistics.median(values) * 1e9, 1),
        "minimum_nanoseconds": round(min(values) * 1e9, 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_quartile_low": round(low, 3),
        "ratio_quartile_high": round(high, 3),
    }


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
        lines.append(f"{name:{width}}  {_nice(case['nanoseconds']):>12}  {case['ratio']:.2f} ({spread})")
    return "\n".join(lines)


def _nice(nanoseconds: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.2f} {unit}"
    return f"{nanoseconds:.0f} ns"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
