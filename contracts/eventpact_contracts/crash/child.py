"""Child processes, which are killed: ``python -m eventpact_contracts.crash.child``; see :mod:`.crashes`.

Every process appends to a journal of its own, a line at a time, so that a kill cuts off one line at most. A handler
writes down that it was called, then waits until the suite lets it go on; so the suite kills when it wants to.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from eventpact.domain.dispatcher import DispatchError, FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact_contracts.driver.recorder import fingerprint, names_of
from eventpact_contracts.driver.trace import Entry, Kind
from eventpact_contracts.scenarios.events import ROLES, Marker, Paid, Placed, Priced, is_async
from eventpact_contracts.subjects.loading import made

__all__ = ["KINDS", "Journal", "imported", "main"]

_TICK_SECONDS: Final = 0.005

KINDS: Final = {kind.__name__: kind for kind in (Placed, Priced, Paid, Marker)}
"""The event types of these processes, by name."""


MOMENTS: Final = (None, datetime(2001, 2, 3, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC))
"""When events occurred: now, long ago, far from now. A restart takes them up all the same."""


class Journal:
    """An append-only file, one entry a line; each line is written in one piece."""

    def __init__(self, folder: Path, process: str) -> None:
        self._file = os.open(folder / f"{process}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, kind: Kind, **what: Any) -> None:
        # The clock is the machine's, so that entries of several processes can be put in order.
        entry = Entry(kind=kind, time=time.clock_gettime(time.CLOCK_MONOTONIC), **what)
        os.write(self._file, f"{entry.to_json()}\n".encode("ascii"))


@dataclass(eq=False)
class _Handler:
    """A plain handler that is killed now and then."""

    name: str
    folder: Path
    journal: Journal
    attempts: dict[str, int] = field(default_factory=dict)

    dispatcher: Any = None
    """Takes the child of an event, if it has one."""

    def handle(self, event: DomainEvent) -> None:
        self.start(event)
        self.fail_once(event)
        gate = self.gate(event)
        while gate.exists():
            time.sleep(_TICK_SECONDS)  # between two looks; the suite opens every gate in the end
        self.succeed(event)

    def start(self, event: DomainEvent) -> None:
        known = str(event.event_id)
        self.attempts[known] = self.attempts.get(known, 0) + 1
        self.journal.write(Kind.STARTED, **self._about(event), token=fingerprint(event))
        child = self.folder / f"child-{known}"
        if child.exists() and self.name == f"{type(event).__name__}.{ROLES[type(event)][0]}":
            _dispatch(
                self.dispatcher, _event(json.loads(child.read_text())), self.journal, caller=self.name, cause=known
            )

    def fail_once(self, event: DomainEvent) -> None:
        """Fail, where the suite says so, in the first attempt of all."""
        try:
            (self.folder / f"fails-{event.event_id}-{self.name}").unlink()
        except FileNotFoundError:
            return
        self.journal.write(Kind.FAILED, **self._about(event), exception=("ValueError",), note="the first attempt")
        raise ValueError("the first attempt")

    def succeed(self, event: DomainEvent) -> None:
        self.journal.write(Kind.SUCCEEDED, **self._about(event))

    def gate(self, event: DomainEvent) -> Path:
        """A file that is there while this handler of an event is to wait."""
        return self.folder / f"gate-{event.event_id}-{self.name}"

    def _about(self, event: DomainEvent) -> dict[str, Any]:
        known = str(event.event_id)
        number = self.attempts[known]
        return {
            "caller": f"process {os.getpid()}",
            "event": known,
            "event_type": type(event).__name__,
            "handler": self.name,
            "attempt": number,
        }


@dataclass(eq=False)
class _AsyncHandler(_Handler):
    """The same, as an ``async def``."""

    async def handle(self, event: DomainEvent) -> None:  # type: ignore[override]  # async, where the base is plain
        self.start(event)
        self.fail_once(event)
        gate = self.gate(event)
        while gate.exists():  # noqa: ASYNC110 - another process opens it
            await asyncio.sleep(_TICK_SECONDS)
        self.succeed(event)


def _handlers(folder: Path, journal: Journal, *, async_handlers: bool) -> dict[type[DomainEvent], Any]:
    return {
        kind: [
            (_AsyncHandler if async_handlers and is_async(name) else _Handler)(name, folder, journal)
            for name in (f"{kind.__name__}.{role}" for role in roles)
        ]
        for kind, roles in ((kind, ROLES[kind]) for kind in KINDS.values())
    }


def _sink(journal: Journal) -> Callable[[FailedDelivery], None]:
    def report(failed: FailedDelivery) -> None:
        journal.write(
            Kind.REPORTED,
            event=str(failed.event.event_id),
            handler=getattr(failed.handler, "name", ""),
            attempt=failed.attempts,
            exception=names_of(failed.exception),
            note=str(failed.exception),
        )

    return report


def imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in attribute.split("."):
        found = getattr(found, name)
    return found


def _in_thread(call: Callable[..., object], *arguments: Any) -> None:
    threading.Thread(target=call, args=arguments, daemon=True).start()


def _dispatch_all(
    dispatcher: Any, folder: Path, journal: Journal, name: str, start: Callable[..., object] = _in_thread
) -> None:
    """Dispatch the events that the suite orders, a line of the file ``orders`` each, until it kills this process."""
    with (folder / f"orders-{name}").open() as orders:
        while True:
            line = orders.readline()
            if not line:
                time.sleep(_TICK_SECONDS)  # between two looks; the suite kills this process in the end
                continue
            order = json.loads(line)
            start(_dispatch, dispatcher, _event(order), journal)


def _event(order: dict[str, str]) -> DomainEvent:
    kind, event_id = KINDS[order["kind"]], UUID(order["id"])
    moment = MOMENTS[event_id.int % len(MOMENTS)]
    return kind(event_id=event_id) if moment is None else kind(event_id=event_id, occurred_at=moment)


def _dispatch(dispatcher: Any, event: DomainEvent, journal: Journal, caller: str = "", cause: str = "") -> None:
    about = {
        "caller": caller or f"process {os.getpid()}",
        "cause": cause,
        "event": str(event.event_id),
        "event_type": type(event).__name__,
    }
    journal.write(Kind.DISPATCHED, **about, token=fingerprint(event))
    try:
        dispatcher.dispatch(event)
    except DispatchError as error:
        journal.write(Kind.REFUSED, **about, exception=names_of(error), note=str(error))
    except BaseException as error:  # noqa: BLE001 - written down, for the laws to judge
        journal.write(Kind.RAISED, **about, exception=names_of(error), note=str(error))
    else:
        journal.write(Kind.ACCEPTED, **about)


def _end_with_the_suite() -> None:
    """Wait until the suite is gone, whose end of the pipe closes then."""
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGKILL)


def main(argv: Sequence[str]) -> None:
    """Run a process of the suite: ``dispatch`` or ``work``."""
    what, name, place, target, where, kinds = argv
    threading.Thread(target=_end_with_the_suite, daemon=True).start()
    folder = Path(place)
    journal = Journal(folder, name)
    factory = imported(target)
    handlers, on_failure = _handlers(folder, journal, async_handlers=kinds != "plain"), _sink(journal)

    @contextmanager
    def ready() -> Generator[Any]:
        with made(factory, handlers, on_failure) as dispatcher:
            for several in handlers.values():
                for handler in several:
                    handler.dispatcher = dispatcher
            (folder / f"ready-{name}").touch()
            yield dispatcher

    async def serve_in_loop() -> None:
        with ready() as dispatcher:
            start = asyncio.get_running_loop().call_soon_threadsafe if where == "on the loop" else _in_thread
            await asyncio.to_thread(_dispatch_all, dispatcher, folder, journal, name, start)

    if what == "work":
        (folder / f"ready-{name}").touch()
        factory.worker(handlers, on_failure=on_failure)
    elif where != "outside":
        asyncio.run(serve_in_loop())
    else:
        with ready() as dispatcher:
            _dispatch_all(dispatcher, folder, journal, name)


if __name__ == "__main__":
    main(sys.argv[1:])
