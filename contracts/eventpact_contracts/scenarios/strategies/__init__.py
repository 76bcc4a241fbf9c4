"""The Hypothesis strategies that draw scripts: each reaches the state that a law is about."""

from __future__ import annotations

from eventpact_contracts.scenarios.fixed import musts
from eventpact_contracts.scenarios.strategies.closing import (
    cannot_accept,
    closed,
    closing,
    closing_twice,
    left_behind,
    racing,
    refused,
)
from eventpact_contracts.scenarios.strategies.concurrent import cascades, held, ordered, schedules, threads
from eventpact_contracts.scenarios.strategies.failing import failing, interrupted, raising_sink, retried
from eventpact_contracts.scenarios.strategies.routing import (
    both_kinds,
    family,
    impossible,
    junk,
    quiet,
    rich,
    unsubscribed,
)

__all__ = [
    "both_kinds",
    "cannot_accept",
    "cascades",
    "closed",
    "closing",
    "closing_twice",
    "failing",
    "family",
    "held",
    "impossible",
    "interrupted",
    "junk",
    "left_behind",
    "musts",
    "ordered",
    "quiet",
    "racing",
    "raising_sink",
    "refused",
    "retried",
    "rich",
    "schedules",
    "threads",
    "unsubscribed",
]
