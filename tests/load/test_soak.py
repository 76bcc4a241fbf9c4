"""The soak finds growth, and only growth."""

from __future__ import annotations

import random

import pytest

from load.soak import growths

pytestmark = pytest.mark.slow

MINUTE = 60.0


def samples(measure: str, at: list[float], *, rest: float = 1.0) -> list[dict[str, float]]:
    """Ten minutes, a sample each two seconds."""
    return [{"second": 2.0 * n, "at rest": rest, measure: value} for n, value in enumerate(at)]


def test_a_leak_of_two_kilobytes_a_sign_up_is_found_in_ten_minutes() -> None:
    noise = random.Random(1)
    leak = [100 + n * 2 / 60 * 0.6 + noise.gauss(0, 0.3) for n in range(300)]
    growth = growths(samples("server memory, MB", leak), 10 * MINUTE)["server memory, MB"]
    assert not growth.is_bounded


def test_noise_and_a_warm_up_are_no_growth() -> None:
    noise = random.Random(1)
    warm = [min(100.0, 60 + n) + noise.gauss(0, 1) for n in range(300)]
    assert growths(samples("server memory, MB", warm), 10 * MINUTE)["server memory, MB"].is_bounded


def test_samples_during_a_fault_do_not_count() -> None:
    backlog = samples("outbox rows", [0.0] * 250 + [500.0] * 50)
    for sample in backlog[250:]:
        sample["at rest"] = 0.0
    assert growths(backlog, 10 * MINUTE)["outbox rows"].is_bounded
    for sample in backlog[250:]:
        sample["at rest"] = 1.0
    assert not growths(backlog, 10 * MINUTE)["outbox rows"].is_bounded
