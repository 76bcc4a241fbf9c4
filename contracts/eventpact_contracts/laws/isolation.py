"""I1 to I5: the limits of a failing handler, a failing sink and an interruption."""

from __future__ import annotations

from collections.abc import Iterator

from eventpact_contracts.driver.trace import Entry, Kind
from eventpact_contracts.laws.law import Fault, law
from eventpact_contracts.laws.spans import Attempt
from eventpact_contracts.laws.view import TraceView
from eventpact_contracts.scenarios.strategies.failing import (
    beside_an_interruption,
    beside_one_that_fails,
    every_handler_fails,
    long_run,
)

__all__ = ["caller_spared", "neighbours_spared", "reported"]


def _failures(view: TraceView) -> int:
    return len(view.failures)


@law(
    "I1",
    families=("failing", "retried", "cascades"),
    fixed=beside_one_that_fails,
    observations=_failures,
    usual_order=True,
    causes=(
        "handlers are called in dispatch without a try",
        "only the plain handlers are isolated, or only the async ones",
        "an exception that looks like the dispatcher's own is let through",
        "the exceptions are collected, and raised at the end as one",
    ),
    rogue="leaky",
)
def caller_spared(view: TraceView) -> Fault | None:
    """Find a handler's exception that reached the caller.

    An event that was refused, and that no handler had, was refused for another reason (law A5), unless what was raised
    is what a handler raised.
    """
    handled = {event for event, _ in view.attempts}
    for call in view.calls:
        if not (call.refused or call.raised) or call.end is None:
            continue
        failed = [
            e for e in view.trace.entries[call.began : call.ended] if e.kind is Kind.FAILED and not e.interruption
        ]
        if not failed:
            continue
        same = next((e for e in failed if _is_same(e, call.end)), None)
        explained = call.refused and (
            call.event not in handled or call.in_doubt or (call.refused_as_closed and view.closing is not None)
        )
        if same is None and (explained or not call.start.event_type):
            continue
        culprit = same or failed[0]
        return Fault(
            f"{culprit.handler} failed, and the caller of dispatch got {call.end.exception[0]}:"
            f" {call.end.note or '(no text)'}"
        )
    return None


def _is_same(failed: Entry, end: Entry) -> bool:
    """Return whether an exception is that of a handler; those of the suite tell by their text whose they are."""
    return failed.exception[:1] == end.exception[:1] and failed.note == end.note and " attempt " in end.note


def _neighbours(view: TraceView) -> int:
    if not _only_failures(view):
        return 0
    failed = {entry.delivery for entry in view.failures}
    return sum(delivery not in failed for delivery in view.deliveries)


def _only_failures(view: TraceView) -> bool:
    return bool(view.failures) and not view.interruptions and view.is_open and not view.trace.sink_raises


@law(
    "I2",
    families=("failing", "retried"),
    fixed=lambda traits: (*beside_one_that_fails(traits), *long_run(traits)),
    observations=_neighbours,
    usual_order=True,
    causes=(
        "one try around the loop over all handlers, instead of one in it",
        "asyncio.gather or a TaskGroup, which cancels the others",
        "the worker's loop ends with the first exception, or with the first of some kind",
        "after so many failures, nothing is delivered any more",
    ),
    rogue="contagious",
)
def neighbours_spared(view: TraceView) -> Fault | None:
    """Find a delivery that a failing handler kept from being made; the neighbours of interruptions are law I5's."""
    if fault := _broken_off(view):
        return fault
    return _spared(view, view.failures) if _only_failures(view) else None


def _broken_off(view: TraceView) -> Fault | None:
    """Find an attempt that was ended from outside after a handler of the same event had failed."""
    if not view.is_open or not all(entry.imposed for entry in view.interruptions):
        return None
    for cut in view.interruptions:
        for failed in view.failures:
            if failed.event == cut.event and failed.time <= cut.time:
                return Fault(
                    f"{cut.handler} was broken off with {view.name(cut.event)}, after {failed.handler} had failed"
                )
    return None


def _spared(view: TraceView, culprits: list[Entry]) -> Fault | None:
    """Find a delivery that was not made after another had ended badly.

    An event whose dispatch raised a handler's exception counts as taken; that it raised is law I1's.
    """
    started = {event for event, _ in view.attempts}
    raised = {call.event for call in view.calls if call.end is not None and call.end.kind is Kind.RAISED}
    astray = {entry.handler for entry in view.strays}
    for event in view.types:
        if event not in view.accepted and event not in raised & started:
            continue
        for handler in view.handlers_of(event):
            if (event, handler) not in view.attempts and handler not in astray:
                culprit = next((entry for entry in culprits if entry.event == event), culprits[0])
                return Fault(
                    f"{handler} never received {view.name(event)}, after {culprit.handler} had failed with"
                    f" {view.name(culprit.event)}"
                )
    for call in view.calls:
        if call.refused and not call.in_doubt and view.handlers_of(call.event) and not view.unsettled_at(call.began):
            before = [e for e in view.trace.entries[: call.began] if e.kind is Kind.FAILED]
            if before and call.event not in view.accepted:
                return Fault(
                    f"{view.name(call.event)} was refused, after {before[-1].handler} had failed with"
                    f" {view.name(before[-1].event)}, though nothing was pending: {call.outcome}"
                )
    return None


def _failed_deliveries(view: TraceView) -> Iterator[tuple[tuple[str, str], list[Attempt]]]:
    """The deliveries that law I3 is about: accepted, attempted, and each attempt ended badly.

    An event whose dispatch was interrupted counts as taken: its handler was, and that is a failed attempt.
    """
    interrupted = {
        call.event
        for call in view.calls
        if call.end is not None and call.end.kind is Kind.RAISED and call.end.interruption
    }
    for event in view.types:
        if event not in view.accepted and event not in interrupted:
            continue
        if view.due(event) > 1:
            continue  # several deliveries of one event, whose attempts cannot be told apart
        for handler in view.handlers_of(event):
            attempts = view.attempts.get((event, handler), [])
            if attempts and not any(attempt.succeeded for attempt in attempts):
                yield (event, handler), attempts


def _judged_failures(view: TraceView) -> int:
    return sum(
        all(a.failed for a in attempts) and view.has_failed(delivery) for delivery, attempts in _failed_deliveries(view)
    )


@law(
    "I3",
    families=("failing", "retried", "interrupted"),
    fixed=lambda traits: (*beside_one_that_fails(traits), *beside_an_interruption(traits)),
    observations=_judged_failures,
    usual_order=True,
    causes=(
        "the exception is logged and forgotten, or nobody looks at the task's result",
        "each attempt is reported instead of the last one",
        "reports are told apart by event, by handler's class or by the exception's text, and one is dropped",
        "what is reported was rebuilt: the engine's wrapper instead of the handler's exception",
    ),
    rogue="secretive",
)
def reported(view: TraceView) -> Fault | None:
    """Find a failed delivery that was not reported as it should be, or a report of something else."""
    for (event, handler), reports in view.reports.items():
        attempts = view.attempts.get((event, handler), [])
        if any(attempt.succeeded for attempt in attempts) and view.due(event) <= 1:
            return Fault(f"{handler}'s delivery of {view.name(event)} succeeded, and was reported as failed")
        running = any(a.began < reports[0][0] and (a.ended is None or a.ended > reports[0][0]) for a in attempts)
        if running and view.closing is None and view.due(event) <= 1:
            return Fault(f"{handler}'s delivery of {view.name(event)} was reported as failed while it was running")
    for delivery, attempts in _failed_deliveries(view):
        event, handler = delivery
        if any(attempt.end is None for attempt in attempts):
            continue
        reports = view.reports.get(delivery, [])
        what = f"{handler}'s delivery of {view.name(event)}"
        if not reports:
            if _must_be_reported(view, delivery, attempts):
                found = _misattributed(view, event)
                return Fault(found or f"{what} failed, and was never reported to the failure sink")
            continue
        if len(reports) > 1:
            return Fault(f"{what} failed once, and was reported {len(reports)} times")
        place, report = reports[0]
        before = [attempt for attempt in attempts if attempt.began < place]
        counted = sum(not view.was_cut_off(attempt) for attempt in before)
        if not before:
            continue
        expected = max(min(report.attempt, len(before)), counted)
        if wrong := _wrong(report, before[-1].end, expected, view.fingerprints[event]):
            return Fault(f"{what} failed, and was reported {wrong}")
    for delivery, reports in view.reports.items():
        if delivery not in view.attempts and reports[0][1].attempt > 0:
            return Fault(f"{delivery[1] or 'a handler'} was reported to have failed, which never had the event")
    return None


def _must_be_reported(view: TraceView, delivery: tuple[str, str], attempts: list[Attempt]) -> bool:
    if any(attempt.interrupted for attempt in attempts):
        return False  # that is law I5's
    if not view.has_failed(delivery):
        return False  # another attempt is owed, which is law G2's, or its event is undelivered, which is law L1's
    # A delivery that fails while the dispatcher closes may be given up instead.
    return delivery[0] not in view.returned or (
        view.closing is not None and view.must_have_noticed(attempts[-1], delivery[1], view.closing)
    )


def _misattributed(view: TraceView, event: str) -> str | None:
    for entry in view.trace.of(Kind.REPORTED):
        if entry.event == event and entry.delivery not in view.attempts:
            return f"the failure of {view.name(event)} was reported with another handler: {entry.handler}"
    return None


def _wrong(report: Entry, end: Entry | None, attempts: int, fingerprint: str) -> str | None:
    if end is None:
        return None
    if report.token != fingerprint:
        return f"with another event: {report.token}"
    if report.attempt != attempts:
        return f"with {report.attempt} attempt(s) instead of {attempts}"
    if (report.exception[:1], report.note) != (end.exception[:1], end.note):
        shown = report.exception[0] if report.exception else "no exception"
        return f"with {shown}({report.note}) instead of {end.exception[0]}({end.note})"
    return None


def _reports(view: TraceView) -> int:
    return sum(1 for _ in view.trace.of(Kind.REPORTED)) if view.trace.sink_raises else 0


@law(
    "I4",
    families=("raising sink",),
    fixed=every_handler_fails,
    observations=_reports,
    causes=(
        "the sink is called in the loop over the handlers, without a try of its own",
        "the sink's exception is suppressed without a word in the log",
    ),
    rogue="trusting",
)
def sink_not_trusted(view: TraceView) -> Fault | None:
    """Find something that a raising failure sink broke."""
    if not view.trace.sink_raises or not view.reports or not view.is_open or view.interruptions:
        return None
    for call in view.calls:
        if call.end is not None and not call.accepted and not call.in_doubt:
            first = min(place for reports in view.reports.values() for place, _ in reports)
            if call.ended is not None and call.ended > first:
                return Fault(
                    f"the failure sink raised, and dispatching {view.name(call.event)} raised {call.end.exception[0]}"
                )
    for delivery in view.deliveries:
        event, handler = delivery
        attempts = view.attempts.get(delivery, [])
        if not attempts:
            return Fault(f"the failure sink raised, and {handler} never received {view.name(event)}")
        if any(attempt.succeeded for attempt in attempts) or delivery in view.reports:
            continue
        if view.has_failed(delivery) and attempts[-1].end is not None:
            return Fault(f"the failure sink raised, and the failure of {handler} was not reported any more")
    if not any(view.trace.of(Kind.LOGGED)):
        return Fault("the failure sink raised, and nothing was logged")
    return None


def _interrupted_attempts(view: TraceView) -> int:
    return len(view.interruptions)


@law(
    "I5",
    families=("interrupted",),
    fixed=beside_an_interruption,
    observations=_interrupted_attempts,
    causes=(
        "except Exception, which lets asyncio.CancelledError and a library's own interruptions pass without a report",
        "a task's done callback returns early if task.cancelled()",
        "a bare except, which swallows KeyboardInterrupt",
        "the loop over the handlers ends with an interruption",
    ),
    rogue="oblivious",
)
def interruption_is_no_success(view: TraceView) -> Fault | None:
    """Find an interrupted attempt that counts as a success, or kept others from delivery."""
    for (event, handler), attempts in view.attempts.items():
        last = attempts[-1]
        if event not in view.types or not last.interrupted or last.end is None:
            continue
        if last.end.imposed and view.closing is not None and view.closed is None:
            continue  # closing has not said yet whether it is undelivered; that it does not end is law L1's
        what = f"{handler} was interrupted with {last.end.exception[0]} while it handled {view.name(event)}"
        if (event, handler) not in view.reports and event not in view.returned:
            return Fault(f"{what}, and this was neither reported, nor tried again, nor returned")
        stops = {"KeyboardInterrupt", "SystemExit"} & {*last.end.exception} and not last.end.imposed
        if stops and _waits(view) and not _reached_caller(view, event):
            return Fault(f"{what}, and the caller, who waits, never saw it")
    planned = [entry for entry in view.interruptions if not entry.imposed]
    return _spared(view, planned) if planned and view.is_open else None


def _waits(view: TraceView) -> bool:
    return view.trace.guarantees is not None and view.trace.guarantees.blocks_caller


def _reached_caller(view: TraceView, event: str) -> bool:
    """Return whether an interruption reached a caller who waits for the event; of several, one does."""
    raised = {entry.exception[0] for entry in view.interruptions}
    calls = [call for each in view.ancestors(event) for call in view.calls_of.get(each, ())]
    return any(call.end is not None and call.end.interruption and call.end.exception[0] in raised for call in calls)
