"""Good dispatchers over mechanisms other than ours: no law convicts one of them, whatever is drawn.

One of each kind of mechanism in CI, all in the night; ``EVENTPACT_TEST_GOOD_SEEDS=50`` asks for so many seeds of each.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest
from support.seeds import SEED

from eventpact.domain.dispatcher import EventDispatcher, FailureSink, Handlers
from eventpact_contracts.checking.check import check_laws
from eventpact_contracts.checking.outcomes import Outcome
from eventpact_contracts.laws import LAWS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SEEDS = range(SEED, SEED + int(os.environ.get("EVENTPACT_TEST_GOOD_SEEDS", "1")))

GOOD = {
    "AnyioStreamDispatcher": "anyio_stream",
    "AsyncioQueueDispatcher": "asyncio_queue",
    "BlinkerDispatcher": "blinker_signals",
    "BoundedDispatcher": "refuses_when_full",
    "ChainDispatcher": "task_chains",
    "DelayedRetryDispatcher": "waiting_retries",
    "DoubtfulDispatcher": "often_in_doubt",
    "DramatiqDispatcher": "dramatiq_stub",
    "MailboxDispatcher": "mailboxes",
    "PluggyDispatcher": "pluggy_hooks",
    "PriorityDispatcher": "priorities",
    "SingleThreadDispatcher": "single_thread",
    "SqliteSpoolDispatcher": "sqlite_spool",
    "TaskGroupDispatcher": "task_group",
    "ThreadPoolDispatcher": "thread_pool",
    "TimerDispatcher": "call_later",
}
"""Each class, with the module of ``kit.good`` that has it."""


KINDS = ("AsyncioQueueDispatcher", "SqliteSpoolDispatcher", "TaskGroupDispatcher", "ThreadPoolDispatcher")
"""Workers on a loop, a file, tasks and threads."""


class Good:
    """The hooks of a good dispatcher."""

    def __init__(self, name: str) -> None:
        needed = {"blinker_signals": "blinker", "dramatiq_stub": "dramatiq"}
        if module := needed.get(GOOD[name]):
            pytest.importorskip(module)
        self.dispatcher: Any = getattr(import_module(f"kit.good.{GOOD[name]}"), name)
        for hook in ("guarantees", "needs_loop", "async_handlers", "engine_outlives_dispatcher"):
            setattr(self, hook, getattr(self.dispatcher, hook))

    @contextmanager
    def subject(self, handlers: Handlers, on_failure: FailureSink) -> Generator[EventDispatcher]:
        dispatcher = self.dispatcher(handlers, on_failure=on_failure)
        try:
            yield dispatcher
        finally:
            if asyncio._get_running_loop() is None:
                asyncio.run(dispatcher.aclose(1.0))  # where a scenario stopped half-way


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in KINDS else pytest.mark.night) for name in GOOD]
)
def test_no_law_convicts_a_good_dispatcher(name: str, seed: int) -> None:
    laws = [law for law in LAWS if not law.processes]
    results = check_laws(laws, Good(name), examples=30, seed=seed)
    if not Good(name).async_handlers:
        assert {each.law_id for each in results if each.outcome is Outcome.NOT_APPLICABLE} == {"R5"}
    bad = [result for result in results if result.outcome in (Outcome.VIOLATED, Outcome.COULD_NOT_RUN)]
    assert [f"{each.law_id}: {each.detail}\n{each.violation and each.violation.trace}" for each in bad] == []


@pytest.mark.slow
def test_a_process_that_is_killed_gets_no_handlers_that_are_declared_absent() -> None:
    good = Good("PluggyDispatcher")
    good.target = "kit.good.pluggy_hooks:PluggyDispatcher"
    [result] = check_laws([law for law in LAWS if law.processes], good, examples=10, seed=1)
    assert result.outcome is Outcome.ABSENT, result.detail
