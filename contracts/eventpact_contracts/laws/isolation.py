"""I1 to I5: what a failing handler, a failing sink and an interruption may not do."""

from __future__ import annotations

from eventpact_contracts.checking.outcomes import Violation
from eventpact_contracts.driver.trace import Entry, Kind, Trace
from eventpact_contracts.laws.law import Law, Reading
from eventpact_contracts.scenarios import strategies

__all__ = ["ISOLATION", "caller_spared", "neighbours_spared", "reported"]


def caller_spared(trace: Trace) -> Violation | None:
    """I1. An event that was refused, and that no handler had, was refused for another reason (law A5)."""
    reading = Reading(trace)
    handled = {event for event, _ in reading.attempts}
    for start, call, stop, end in reading.calls:
        if end is None or end.kind is Kind.ACCEPTED or "Exception" not in end.exception:
            continue
        if end.kind is Kind.REFUSED and call.event not in handled:
            continue
        failed = next((e for e in trace.entries[start:stop] if e.kind is Kind.FAILED), None)
        if failed is not None and "DispatcherClosedError" not in end.exception:
            message = (
                f"{failed.handler} failed, and the caller of dispatch got {end.exception[0]}: {end.note or '(no text)'}"
            )
            return Violation("I1", message, trace)
    return None


def neighbours_spared(trace: Trace) -> Violation | None:
    """I2. An event whose dispatch raised a handler's exception counts as taken; that it raised is law I1's."""
    reading = Reading(trace)
    failures = list(trace.of(Kind.FAILED))
    if not failures:
        return None
    started = {event for event, _ in reading.attempts}
    raised = {call.event for _, call, _, end in reading.calls if end is not None and end.kind is Kind.RAISED}
    taken = [event for event in reading.types if event in reading.accepted or event in raised & started]
    for event in taken:
        for handler in trace.handlers_of(reading.types[event]):
            if (event, handler) not in reading.attempts and event not in reading.returned:
                culprit = next((entry for entry in failures if entry.event == event), failures[0])
                message = (
                    f"{handler} never received {reading.called(event)}, after {culprit.handler} had failed with"
                    f" {reading.called(culprit.event)}"
                )
                return Violation("I2", message, trace)
    return None


def reported(trace: Trace) -> Violation | None:
    """I3. An event whose dispatch was interrupted counts as taken: its handler was, and that is a failed attempt."""
    reading = Reading(trace)
    interrupted = {
        call.event
        for _, call, _, end in reading.calls
        if end is not None and end.kind is Kind.RAISED and "Exception" not in end.exception
    }
    taken = [event for event in reading.types if event in reading.accepted or event in interrupted]
    for delivery in [(event, handler) for event in taken for handler in trace.handlers_of(reading.types[event])]:
        event, handler = delivery
        attempts, reports = reading.attempts.get(delivery, []), reading.reports.get(delivery)
        what = f"{handler}'s delivery of {reading.called(event)}"
        if any(attempt.succeeded for attempt in attempts):
            if reports:
                return Violation("I3", f"{what} succeeded, and was reported as failed", trace)
            continue
        if not attempts or any(attempt.end is None for attempt in attempts):
            continue
        if not reports and any(attempt.interrupted for attempt in attempts):
            continue  # whether it had to be reported is law I5's
        if not reports:
            found = _misattributed(reading, event)
            return Violation("I3", found or f"{what} failed, and was never reported to the failure sink", trace)
        if len(reports) > 1:
            return Violation("I3", f"{what} failed once, and was reported {len(reports)} times", trace)
        if wrong := _wrong(reports[0], attempts[-1].end, len(attempts), reading.tokens[event]):
            return Violation("I3", f"{what} failed, and was reported {wrong}", trace)
    for entry in trace.of(Kind.REPORTED):
        if entry.delivery not in reading.attempts and entry.attempt > 0:
            message = f"{entry.handler or 'a handler'} was reported to have failed, which never had the event"
            return Violation("I3", message, trace)
    return None


def _misattributed(reading: Reading, event: str) -> str | None:
    for entry in reading.trace.of(Kind.REPORTED):
        if entry.event == event and entry.delivery not in reading.attempts:
            return f"the failure of {reading.called(event)} was reported with another handler: {entry.handler}"
    return None


def _wrong(report: Entry, end: Entry | None, attempts: int, token: str) -> str | None:
    assert end is not None
    if report.token != token:
        return f"with another event: {report.token}"
    if report.attempt != attempts:
        return f"with {report.attempt} attempt(s) instead of {attempts}"
    if (report.exception[:1], report.note) != (end.exception[:1], end.note):
        shown = report.exception[0] if report.exception else "no exception"
        return f"with {shown}({report.note}) instead of {end.exception[0]}({end.note})"
    return None


def _sink_not_trusted(trace: Trace) -> Violation | None:
    reading = Reading(trace)
    if not reading.reports:
        return None
    for _, call, _, end in reading.calls:
        if end is not None and end.kind is not Kind.ACCEPTED:
            message = f"the failure sink raised, and dispatching {reading.called(call.event)} raised {end.exception[0]}"
            return Violation("I4", message, trace)
    for event, handler in reading.deliveries:
        attempts = reading.attempts.get((event, handler))
        if not attempts:
            message = f"the failure sink raised, and {handler} never received {reading.called(event)}"
            return Violation("I4", message, trace)
        failed = attempts[-1].end is not None and not any(attempt.succeeded for attempt in attempts)
        if failed and not attempts[-1].interrupted and (event, handler) not in reading.reports:
            message = f"the failure sink raised, and the failure of {handler} was not reported any more"
            return Violation("I4", message, trace)
    if not any(trace.of(Kind.LOGGED)):
        return Violation("I4", "the failure sink raised, and nothing was logged", trace)
    return None


def _interruption(trace: Trace) -> Violation | None:
    reading = Reading(trace)
    for delivery, attempts in reading.attempts.items():
        event, handler = delivery
        if event not in reading.types:
            continue
        last = attempts[-1]
        if not last.interrupted or last.end is None:
            continue
        what = f"{handler} was interrupted with {last.end.exception[0]} while it handled {reading.called(event)}"
        if delivery not in reading.reports and event not in reading.returned:
            return Violation("I5", f"{what}, and this was neither reported, nor tried again, nor returned", trace)
        waits = trace.guarantees is not None and trace.guarantees.blocks_caller
        if waits and last.end.exception[0] in ("KeyboardInterrupt", "SystemExit"):
            calls = [end for _, call, _, end in reading.calls if call.event == event]
            if not any(end is not None and end.exception[:1] == last.end.exception[:1] for end in calls):
                return Violation("I5", f"{what}, and the caller, who waits, never saw it", trace)
    return None


def _failures(trace: Trace) -> int:
    return sum("Exception" in entry.exception for entry in trace.of(Kind.FAILED))


def _neighbours(trace: Trace) -> int:
    failed = {entry.delivery for entry in trace.of(Kind.FAILED)}
    return len(failed) and sum(delivery not in failed for delivery in Reading(trace).deliveries)


def _failed_deliveries(trace: Trace) -> int:
    reading = Reading(trace)
    return sum(
        bool(attempts) and all(a.end is not None and not a.succeeded and not a.interrupted for a in attempts)
        for attempts in reading.attempts.values()
    )


def _reports(trace: Trace) -> int:
    return sum(1 for _ in trace.of(Kind.REPORTED))


def _interruptions(trace: Trace) -> int:
    return sum(a.interrupted for attempts in Reading(trace).attempts.values() for a in attempts)


ISOLATION = (
    Law(
        id="I1",
        title="caller is spared",
        promise="a handler's exception never reaches the caller of `dispatch`.",
        scripts=strategies.failing,
        judge=caller_spared,
        observations=_failures,
        causes=(
            "handlers are called in dispatch without a try",
            "only the plain handlers are isolated, or only the async ones",
            "the exceptions are collected, and raised at the end as one",
        ),
        rogue="leaky",
    ),
    Law(
        id="I2",
        title="neighbours are spared",
        promise="a failing handler keeps no other handler and no other event from delivery.",
        scripts=strategies.failing,
        judge=neighbours_spared,
        observations=_neighbours,
        causes=(
            "one try around the loop over all handlers, instead of one in it",
            "asyncio.gather or a TaskGroup, which cancels the others",
            "the worker's loop ends with the first exception",
        ),
        rogue="contagious",
    ),
    Law(
        id="I3",
        title="reported",
        promise="each failed delivery is reported to the failure sink exactly once, with the event, the handler, the"
        " exception and the number of attempts. A delivery that succeeded is never reported.",
        scripts=strategies.failing,
        judge=reported,
        observations=_failed_deliveries,
        causes=(
            "the exception is logged and forgotten, or nobody looks at the task's result",
            "each attempt is reported instead of the last one",
            "what is reported was rebuilt: the engine's wrapper instead of the handler's exception",
        ),
        rogue="secretive",
    ),
    Law(
        id="I4",
        title="sink is not trusted",
        promise="a sink that raises breaks nothing and is logged.",
        scripts=strategies.raising_sink,
        judge=_sink_not_trusted,
        observations=_reports,
        causes=(
            "the sink is called in the loop over the handlers, without a try of its own",
            "the sink's exception is suppressed without a word in the log",
        ),
        rogue="trusting",
    ),
    Law(
        id="I5",
        title="interruption is no success",
        promise="a handler that is cancelled or interrupted is never counted as having succeeded: it is a failed"
        " attempt, or undelivered if the dispatcher is closing; `KeyboardInterrupt` and `SystemExit` are not"
        " swallowed where the caller waits.",
        scripts=strategies.interrupted,
        judge=_interruption,
        observations=_interruptions,
        causes=(
            "except Exception, which lets asyncio.CancelledError pass without a report",
            "a task's done callback returns early if task.cancelled()",
            "a bare except, which swallows KeyboardInterrupt",
        ),
        rogue="oblivious",
    ),
)
