"""Does the time of an answer tell whether an address is known? ``python -m load.known`` shows the distributions.

Known and unknown addresses take turns at random, one request at a time. The rank-sum test (Mann and Whitney) and the
Kolmogorov-Smirnov statistic say how far the two distributions are apart; they are shown, and nothing is asserted: a
clock on a machine that others use, too, is no judge.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import random
import statistics
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from support.processes import ChildServer

from load.tables import table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m load.known", description=__doc__)
    parser.add_argument("--samples", type=int, default=100, help="of each kind (100)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--dispatcher", default="asyncio", choices=("sync", "asyncio"))
    options = parser.parse_args()
    rows: list[list[str]] = []
    for step in ("0", "0.1"):
        with tempfile.TemporaryDirectory(prefix="eventpact-known-") as folder:
            environment = {
                "EVENTPACT_DATA_DIR": folder,
                "EVENTPACT_RATE_LIMIT": "1000000/minute",
                "EVENTPACT_ANSWER_STEP": step,
            }
            with ChildServer(Path(folder), environment, options.dispatcher) as server:
                rows += _measure(server.port, step, options.samples, random.Random(options.seed))
    print(f"{options.dispatcher}, {options.samples} of each, seed {options.seed}")
    print(
        table(
            ("", "step s", "", "quartile ms", "median ms", "quartile ms", "95% ms", "rank-sum p", "KS D", "KS p"), rows
        )
    )
    return 0


def _measure(port: int, step: str, samples: int, order: random.Random) -> list[list[str]]:
    fresh = (f"unknown{number}@example.com" for number in count())
    ask = _Client(port)
    known = [f"known{number}@example.com" for number in range(20)]
    for address in known:
        ask("/accounts", {"email": address, "display_name": "Ada"})
    rows = []
    for name, path, more in (
        ("sign up", "/accounts", {"display_name": "Ada"}),
        ("another code", "/accounts/verification-codes", {}),
        ("verify, wrong code", "/accounts/verify", {"code": "22222222"}),
    ):
        kinds = [True, False] * samples
        order.shuffle(kinds)
        times: dict[bool, list[float]] = {True: [], False: []}
        for is_known in kinds:
            address = order.choice(known) if is_known else next(fresh)
            times[is_known].append(ask(path, {"email": address, **more}))
        print(f"step {step}: {name} measured", file=sys.stderr, flush=True)
        apart = [
            f"{rank_sum(times[True], times[False]):.3f}",
            *(f"{x:.3f}" for x in kolmogorov(times[True], times[False])),
        ]
        rows.append([name, step, "known", *_quantiles(times[True]), *apart])
        rows.append(["", "", "unknown", *_quantiles(times[False]), "", "", ""])
    return rows


class _Client:
    """One connection, which is kept. Returns how many seconds an answer took."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def __call__(self, path: str, body: dict[str, str]) -> float:
        content = json.dumps(body)
        began = time.perf_counter()
        self._connection.request("POST", path, content, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        answer.read()
        took = time.perf_counter() - began
        assert answer.status in {202, 400}, answer.status
        return took


def _quantiles(seconds: Sequence[float]) -> list[str]:
    parts = statistics.quantiles(seconds, n=20)
    return [f"{parts[place] * 1000:.2f}" for place in (4, 9, 14, 18)]


def rank_sum(one: Sequence[float], other: Sequence[float]) -> float:
    """The probability, were both alike, that one is so much faster than the other (normal approximation)."""
    ranks = {value: rank for rank, value in enumerate(sorted((*one, *other)), 1)}
    n, m = len(one), len(other)
    u = sum(ranks[value] for value in one) - n * (n + 1) / 2
    z = (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    return math.erfc(abs(z) / math.sqrt(2))


def kolmogorov(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """The largest distance of the two distributions, and its probability, were both alike (asymptotic)."""
    one, other = sorted(one), sorted(other)
    distance = max(
        abs(bisect_right(one, value) / len(one) - bisect_right(other, value) / len(other)) for value in (*one, *other)
    )
    scaled = distance * math.sqrt(len(one) * len(other) / (len(one) + len(other)))
    if scaled < 0.2:  # the series converges too slowly there, to a number that is 1 to the digits shown
        return distance, 1.0
    return distance, min(1.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101)))


if __name__ == "__main__":
    raise SystemExit(main())
