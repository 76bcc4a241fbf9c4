"""Contract classes are collected where their brokers are named; skipped, they could not run, which is a failure."""

from __future__ import annotations

import os

BROKERS = ("EVENTPACT_TEST_RABBITMQ", "EVENTPACT_TEST_REDIS")

collect_ignore = [] if all(map(os.environ.get, BROKERS)) else ["test_contract_brokers.py"]
