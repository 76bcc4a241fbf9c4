"""From ``dispatch`` to the handler: latency of one event at a time, and events a second of many at once.

Celery has real worker processes, each with one child, on queues of their own; they run all the time, so that the cases
can be interleaved.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import worked
from processes import SECONDS, python
from publishing import QUEUE, sweep
from timing import percentiles, quartiles, shuffled

from eventpact.domain.dispatcher import EventDispatcher
from eventpact.domain.events import AccountCreatedEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.celery.app import make_celery
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
from eventpact.settings import Settings

WORKERS = (1, 2)
BUDGET = 60.0
"""Seconds that the rounds may take together."""
Moments = dict[str, float]
Case = Callable[[list[AccountCreatedEvent]], tuple[Moments, Moments]]
"""Dispatches the events in a row; when each was dispatched, and when handled, by its ``account_id``."""


class Handled:
    """Where the handlers in other processes tell that they were called."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "handled"
        os.mkfifo(self.path)
        self._pipe = os.open(self.path, os.O_RDWR)  # a reader alone would wait for a writer
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, 1 << 20)  # none of them must ever wait for us
        self._rest = b""

    def wait(self, count: int) -> Moments:
        """Wait for so many events."""
        moments: Moments = {}
        while len(moments) < count:
            if not select.select([self._pipe], [], [], SECONDS)[0]:
                raise RuntimeError(f"{len(moments)} of {count} events were handled, and no other for {SECONDS:.0f} s")
            *lines, self._rest = (self._rest + os.read(self._pipe, 1 << 16)).split(b"\n")
            for name, moment in (line.split() for line in lines):
                moments[name.decode()] = float(moment)
        return moments

    def close(self) -> None:
        os.close(self._pipe)


class Notes:
    """The handler in this process."""

    def __init__(self) -> None:
        self.moments: Moments = {}

    async def handle(self, event: AccountCreatedEvent) -> None:
        self.moments[event.account_id] = time.monotonic()


def _dispatch(dispatcher: EventDispatcher, events: list[AccountCreatedEvent]) -> Moments:
    moments = {}
    for event in events:
        moments[event.account_id] = time.monotonic()
        dispatcher.dispatch(event)
    return moments


@contextmanager
def _in_process(build: Callable[[Mapping[Any, Any]], EventDispatcher]) -> Generator[Case]:
    notes = Notes()

    async def make() -> EventDispatcher:
        return build({AccountCreatedEvent: notes})

    async def perform(events: list[AccountCreatedEvent]) -> tuple[Moments, Moments]:
        notes.moments = {}
        dispatched = _dispatch(dispatcher, events)
        while len(notes.moments) < len(events):
            await asyncio.sleep(0)
        return dispatched, notes.moments

    with asyncio.Runner() as runner:
        dispatcher = runner.run(make())
        yield lambda events: runner.run(perform(events))
        runner.run(dispatcher.aclose())


@contextmanager
def _celery(url: str, queue: str, handled: Handled) -> Generator[Case]:
    app = make_celery(Settings(dispatcher="celery", broker=url, celery_queue=queue), role="web")
    dispatcher = CeleryEventDispatcher(app, {AccountCreatedEvent: Notes()})
    yield lambda events: (_dispatch(dispatcher, events), handled.wait(len(events)))
    asyncio.run(dispatcher.aclose())


@contextmanager
def _worker(url: str, queue: str, handled: Handled, log: Path) -> Generator[Callable[[], None]]:
    """A worker process; what waits until it is ready."""
    environment = {worked.BROKER: url, worked.QUEUE: queue, worked.PIPE: str(handled.path)}
    command = ["-m", "celery", "-A", "worked", "worker", "--concurrency", "1", "--loglevel", "INFO"]
    command += ["--without-gossip", "--without-mingle", "--hostname", f"{log.stem}@%h"]
    with python(command, environment, log) as until:
        yield lambda: until(lambda: b" ready." in log.read_bytes())


def _events(count: int) -> list[AccountCreatedEvent]:
    return [AccountCreatedEvent(account_id=str(number), email="test@example.com") for number in range(count)]


def end_to_end(urls: Mapping[str, str], rounds: int, one_by_one: int, at_once: int) -> dict[str, Any]:
    """Every round, each case has so many events one by one, and so many at once.

    Args:
        urls: the brokers, by name.
    """
    with tempfile.TemporaryDirectory(prefix="eventpact-bench-") as name, ExitStack() as stack:
        handled = Handled(Path(name))
        stack.callback(handled.close)
        workers = []
        for broker, url in urls.items():
            stack.callback(sweep, url)
            for count in WORKERS:
                for number in range(count):
                    log = Path(name) / f"{broker}{count}-{number}.log"
                    workers.append(stack.enter_context(_worker(url, f"{QUEUE}-worked{count}", handled, log)))
        for ready in workers:
            ready()
        cases: dict[str, Case] = {
            "sync": stack.enter_context(_in_process(SyncEventDispatcher)),
            "asyncio": stack.enter_context(_in_process(AsyncioEventDispatcher)),
        }
        for broker, url in urls.items():
            for count in WORKERS:
                case = stack.enter_context(_celery(url, f"{QUEUE}-worked{count}", handled))
                cases[f"celery on {broker}, {count} worker{'s' * (count > 1)}"] = case
        return {"at_once": at_once, "cases": _interleave(cases, rounds, one_by_one, at_once)}


def _interleave(cases: Mapping[str, Case], rounds: int, one_by_one: int, at_once: int) -> dict[str, Any]:
    latencies: dict[str, list[float]] = {name: [] for name in cases}
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        case(_events(20))  # connections are made, code is loaded
    for order in shuffled(cases, rounds, BUDGET):
        for name in order:
            for event in _events(one_by_one):
                dispatched, handled = cases[name]([event])
                latencies[name].append(handled[event.account_id] - dispatched[event.account_id])
            dispatched, handled = cases[name](_events(at_once))
            rates[name].append(at_once / (max(handled.values()) - min(dispatched.values())))
    return {
        name: {
            "rounds": len(rates[name]),
            "latency_ms": {"events": len(latencies[name]), **percentiles(latencies[name])},
            "events_a_second": dict(zip(("low", "median", "high"), map(round, quartiles(rates[name])), strict=True)),
        }
        for name in cases
    }
