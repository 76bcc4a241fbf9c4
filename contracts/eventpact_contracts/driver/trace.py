"""The trace of one run, in CONTRACT.md's words, as data: the only thing that a law is judged by.

A trace does not say how it was recorded: a blocking call, a task and a worker process leave the same one. It crosses
processes as JSON lines, one entry a line, appended to a journal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from eventpact.domain.dispatcher import Guarantees

__all__ = ["SINK", "Entry", "Kind", "Trace", "read_journal"]

SINK: Final = "the failure sink"
"""Its name where it is held, as a handler may be."""


class Kind(Enum):
    """The kinds of entries. The first eleven are CONTRACT.md's; the suite adds the others."""

    DISPATCHED = "dispatched"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    STARTED = "attempt started"
    SUCCEEDED = "attempt succeeded"
    FAILED = "attempt failed"
    REPORTED = "failure reported"
    CLOSING = "closing"
    CLOSED = "closed"
    CRASHED = "crashed"
    RESTARTED = "restarted"

    RAISED = "raised"
    """A call of ``dispatch`` or ``aclose`` raised something other than a ``DispatchError``."""
    BEGUN = "closing has begun"
    """``aclose`` has run its first step: from here on ``dispatch`` must refuse."""
    BUILT = "built"
    """An impossible registration was taken."""
    REJECTED = "not built"
    """An impossible registration was refused; ``exception`` says how."""
    LOGGED = "logged"
    """A record of level WARNING or higher."""
    HELD = "held"
    """A handler, or the failure sink, waits until the suite lets it go on, or for a while."""
    RELEASED = "released"
    """The suite let a held handler go on."""
    IDLE = "idle"
    """Everything that was accepted is settled, and a marker that was dispatched last has come through."""
    OVERDUE = "waited in vain"
    """The suite waited as long as it was told to, in vain."""
    PUT_AWAY = "put away"
    """The suite closed the dispatcher when everything was settled, and that went wrong: ``events`` were returned all
    the same, or ``note`` tells how it ended.
    """
    CANCELLED = "cancelled"
    """The suite cancelled ``aclose``, after which events are refused nevertheless."""
    LEFT = "left behind"
    """Something of the dispatcher's outlived it; ``note`` names it."""


class Entry(NamedTuple):
    """One thing that happened.

    Attributes:
        kind: the kind of entry.
        time: seconds, on a clock that only goes forward.
        caller: a thread or task of the scenario, or the handler that dispatched in turn.
        event: the ``event_id``, or a label of an object that is no event.
        event_type: the name of its class.
        cause: the event whose handler dispatched this one, if one did.
        handler: the handler, as ``EventType.role``. BUILT, REJECTED: the fault of the registration.
        token: the fingerprint of the event, type and values: two are equal where the events are. REJECTED: names of
            which the message must have one, separated by `` or ``.
        attempt: STARTED, SUCCEEDED, FAILED: the number of the attempt. REPORTED: how many attempts there were.
        exception: the names of the exception's class and of all its bases, most special first.
        interruption: FAILED, RAISED: whether the exception is no ``Exception``.
        imposed: FAILED: whether the attempt was ended from outside, and not by the handler itself.
        note: the exception's message; a value that should not have been returned; a thing that was left behind.
        events: CLOSED, PUT_AWAY: the undelivered, as they were returned.
        timeout: CLOSING: the argument of ``aclose``. OVERDUE: how long the suite waited.
        bound: REFUSED: the seconds that ``dispatch`` had. CLOSED: how late the machine itself was.
    """

    kind: Kind
    time: float = 0.0
    caller: str = ""
    event: str = ""
    event_type: str = ""
    cause: str = ""
    handler: str = ""
    token: str = ""
    attempt: int = 0
    exception: tuple[str, ...] = ()
    interruption: bool = False
    imposed: bool = False
    note: str = ""
    events: tuple[str, ...] = ()
    timeout: float | None = None
    bound: float | None = None

    def to_json(self) -> str:
        """One line, without the fields that have their defaults."""
        usual = self._field_defaults
        said = {name: value for name, value in self._asdict().items() if value != usual.get(name)}
        return json.dumps({**said, "kind": self.kind.name}, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Entry:
        data: dict[str, Any] = json.loads(line)
        for name in ("exception", "events"):
            data[name] = tuple(data.get(name, ()))
        return cls(**{**data, "kind": Kind[data["kind"]]})

    @property
    def delivery(self) -> tuple[str, str]:
        return self.event, self.handler


@dataclass(frozen=True)
class Trace:
    """One run: the registration and the declarations of the dispatcher, and everything that happened, in order.

    Attributes:
        entries: everything that happened.
        subscriptions: ``(event type, handler)`` for each handler that the dispatcher was built with.
        guarantees: its declaration.
        virtual: whether times are of a virtual clock, which stands still while code runs.
        schedule: the order in which ready tasks ran, to be read, where the suite chose it.
        outlives: whether the engine outlives the dispatcher, and may settle events that it has taken over later.
        on_loop: whether the dispatcher needs a running event loop.
        hindrance: the reason for which it may have had to refuse, other than closing.
        sink_raises: whether the failure sink raised.
    """

    entries: tuple[Entry, ...] = ()
    subscriptions: tuple[tuple[str, str], ...] = ()
    guarantees: Guarantees | None = None
    virtual: bool = False
    schedule: str = ""
    outlives: bool = False
    on_loop: bool = False
    hindrance: str = ""
    sink_raises: bool = False

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def of(self, *kinds: Kind) -> Iterator[Entry]:
        """The entries of these kinds, in order."""
        if len(kinds) == 1:
            return iter(self._by_kind.get(kinds[0], ()))
        return (entry for entry in self.entries if entry.kind in kinds)

    @cached_property
    def _by_kind(self) -> dict[Kind, list[Entry]]:
        found: dict[Kind, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.kind, []).append(entry)
        return found

    @cached_property
    def labels(self) -> dict[str, str]:
        """A short name for each event, in the order of appearance."""
        names: dict[str, str] = {}
        for entry in self.entries:
            for event in (entry.event, *entry.events):
                if event and event not in names:
                    names[event] = f"e{len(names) + 1}"
        return names

    def __str__(self) -> str:
        return render(self)

    def to_dict(self) -> dict[str, Any]:
        declared = self.guarantees
        return {
            "guarantees": declared and declared.to_dict(),
            "subscriptions": [list(pair) for pair in self.subscriptions],
            "virtual": self.virtual,
            "schedule": self.schedule,
            "outlives": self.outlives,
            "on_loop": self.on_loop,
            "hindrance": self.hindrance,
            "sink_raises": self.sink_raises,
            "entries": [json.loads(entry.to_json()) for entry in self.entries],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Trace:
        declared = data["guarantees"]
        return cls(
            entries=tuple(Entry.from_json(json.dumps(entry)) for entry in data["entries"]),
            subscriptions=tuple((event_type, handler) for event_type, handler in data["subscriptions"]),
            guarantees=declared and Guarantees.from_dict(declared),
            virtual=data["virtual"],
            schedule=data["schedule"],
            outlives=data.get("outlives", False),
            on_loop=data.get("on_loop", False),
            hindrance=data.get("hindrance", ""),
            sink_raises=data.get("sink_raises", False),
        )


def read_journal(*files: Path) -> tuple[Entry, ...]:
    """The entries of several processes, in the order of time. A line cut short by a kill is left out."""
    entries = []
    for file in files:
        for line in file.read_text("ascii").splitlines(keepends=True):
            if line.endswith("\n"):
                entries.append(Entry.from_json(line))
    return tuple(sorted(entries, key=lambda entry: entry.time))


def render(trace: Trace, *, limit: int = 60) -> str:
    """The trace to be read: one line an entry, the middle of a long one left out."""
    if not trace.entries:
        return "(nothing happened)"
    labels, start = trace.labels, trace.entries[0].time
    types = {entry.event: entry.event_type for entry in trace.entries if entry.event_type}
    width = min(24, max(len(entry.caller) for entry in trace.entries))

    def rendered(entries: Sequence[Entry]) -> list[str]:
        return [
            f"{(entry.time - start) * 1000:9.1f} ms  {entry.caller:<{width}}  {_describe(entry, labels, types)}"
            for entry in entries
        ]

    if len(trace.entries) > limit:
        half = limit // 2
        first, last = rendered(trace.entries[:half]), rendered(trace.entries[-half:])
        lines = [*first, f"             ... {len(trace.entries) - 2 * half} more ...", *last]
    else:
        lines = rendered(trace.entries)
    return "\n".join([*lines, *(["", trace.schedule] if trace.schedule else [])])


def _describe(entry: Entry, labels: dict[str, str], types: dict[str, str]) -> str:
    parts = [entry.kind.value]
    if entry.event:
        name = labels[entry.event]
        parts.append(f"{types[entry.event]} {name}" if entry.event in types else name)
    if entry.handler:
        parts.append(f"to {entry.handler}" if entry.event else entry.handler)
    if entry.kind in (Kind.STARTED, Kind.SUCCEEDED, Kind.FAILED) and entry.attempt > 1:
        parts.append(f"(attempt {entry.attempt})")
    if entry.kind is Kind.REPORTED:
        parts.append(f"after {entry.attempt} attempt(s)")
    if entry.timeout is not None:
        parts.append(f"({entry.timeout:g} s)")
    if entry.kind in (Kind.CLOSED, Kind.PUT_AWAY):
        parts.append(f"returned {_names(entry.events, labels)}")
    if entry.exception:
        parts.append(f": {entry.exception[0]}({_shown(entry.note)})")
    elif entry.note:
        parts.append(f": {_shown(entry.note)}")
    return " ".join(parts).replace(" :", ":")


def _names(events: Sequence[str], labels: dict[str, str]) -> str:
    return f"({', '.join(labels[event] for event in events)})" if events else "nothing"


def _shown(text: str) -> str:
    text = text.encode("unicode_escape", "backslashreplace").decode("ascii")
    return text if len(text) <= 160 else f"{text[:157]}..."
