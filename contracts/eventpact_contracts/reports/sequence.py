"""A trace as a sequence diagram: callers on the left, the dispatcher, its handlers, the failure sink on the right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from eventpact_contracts.driver.trace import Entry, Kind, Trace
from eventpact_contracts.reports.diagram import Arrow, Band, Diagram, Note, Row

__all__ = ["sequence"]

_DISPATCHER: Final = "dispatcher"
_SINK: Final = "failure sink"
_LIMIT: Final = 80
_LONGEST: Final = 90


def sequence(trace: Trace, *, title: str) -> str:
    """The trace as SVG; the middle of a long one is left out."""
    if not trace.entries:
        return ""
    teller = _Teller(trace)
    rows = [(f"{(entry.time - trace.entries[0].time) * 1000:.1f} ms", teller.row(entry)) for entry in trace.entries]
    if len(rows) > _LIMIT:
        half = _LIMIT // 2
        rows[half:-half] = [("", Band(f"{len(rows) - 2 * half} more, left out here"))]
    return Diagram(list(teller.lanes()), rows, title).svg()


class _Teller:
    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._labels = trace.labels
        self._types = {entry.event: entry.event_type for entry in trace if entry.event_type}
        shown = {entry.event_type for entry in trace if entry.event_type}
        self._handlers = dict.fromkeys(
            [handler for event_type, handler in trace.subscriptions if event_type in shown]
            + [entry.handler for entry in trace if entry.handler]
        )

    def lanes(self) -> Iterator[str]:
        asking = (Kind.DISPATCHED, Kind.ACCEPTED, Kind.REFUSED, Kind.RAISED, Kind.CLOSING, Kind.CLOSED)
        yield from dict.fromkeys(self._caller(e) for e in self._trace.of(*asking) if e.caller not in self._handlers)
        yield _DISPATCHER
        yield from self._handlers
        if any(True for _ in self._trace.of(Kind.REPORTED)):
            yield _SINK

    def row(self, entry: Entry) -> Row:
        caller, event = self._caller(entry), self._event(entry)
        raised = f": {entry.exception[0]}" if entry.exception else ""
        noted = f": {_cut(entry.note)}" if entry.note else ""
        match entry.kind:
            case Kind.DISPATCHED:
                return Arrow(caller, _DISPATCHER, f"dispatch {event}")
            case Kind.ACCEPTED:
                returned = f", returned {_cut(entry.note)}" if entry.note else ""
                return Arrow(_DISPATCHER, caller, f"accepted {event}{returned}", "bad" if entry.note else "back")
            case Kind.REFUSED:
                return Arrow(_DISPATCHER, caller, f"refused {event}{raised}", "bad")
            case Kind.RAISED:
                return Arrow(_DISPATCHER, caller, f"raised{raised}{noted}", "bad")
            case Kind.STARTED:
                again = f", attempt {entry.attempt}" if entry.attempt > 1 else ""
                return Arrow(_DISPATCHER, entry.handler, f"handle {event}{again}", opens=entry.event)
            case Kind.SUCCEEDED:
                return Arrow(entry.handler, _DISPATCHER, f"{event} succeeded", "back", closes=entry.event)
            case Kind.FAILED:
                return Arrow(entry.handler, _DISPATCHER, f"{event} failed{raised}", "bad", closes=entry.event)
            case Kind.REPORTED:
                tried = f"after {entry.attempt} attempt{'' if entry.attempt == 1 else 's'}"
                return Arrow(_DISPATCHER, _SINK, f"{event} at {entry.handler} {tried}{raised}")
            case Kind.CLOSING:
                return Arrow(caller, _DISPATCHER, f"aclose({'' if entry.timeout is None else f'{entry.timeout:g} s'})")
            case Kind.CLOSED:
                names = ", ".join(self._labels[event] for event in entry.events) or "nothing"
                return Arrow(_DISPATCHER, caller, f"closed, undelivered: {names}", "back")
            case Kind.CRASHED | Kind.OVERDUE | Kind.LEFT:
                what = f"waited {entry.timeout:g} s in vain" if entry.timeout is not None else entry.kind.value
                return Band(f"{what}{noted}{f' ({event})' if event else ''}", "alarm")
            case Kind.PUT_AWAY:
                names = ", ".join(self._labels[event] for event in entry.events) or "nothing"
                return Band(f"put away{noted}, undelivered: {names}", "alarm")
            case Kind.RESTARTED | Kind.IDLE:
                return Band(f"{entry.kind.value}{noted}")
            case Kind.RELEASED:
                return Note(entry.handler or _DISPATCHER, f"{event} is let go on".strip())
            case _:
                bad = entry.kind is Kind.BUILT
                return Note(_DISPATCHER, f"{entry.kind.value}{raised}{noted}", "badnote" if bad else "note")

    def _caller(self, entry: Entry) -> str:
        return entry.caller or "caller"

    def _event(self, entry: Entry) -> str:
        if not entry.event:
            return ""
        name = self._labels[entry.event]
        # Its type is said once, where it is dispatched.
        tells_type = entry.kind is Kind.DISPATCHED and entry.event in self._types
        return f"{self._types[entry.event]} {name}" if tells_type else name


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
