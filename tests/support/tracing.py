"""Traces written by hand, for the tests of the judges."""

from __future__ import annotations

from typing import Any

from eventpact.domain.dispatcher import Delivery, Guarantees, Ordering
from eventpact_contracts.driver.trace import Entry, Kind, Trace
from eventpact_contracts.laws import LAWS, Law

SUBSCRIPTIONS = (
    ("Paid", "Paid.plain"),
    ("Paid", "Paid.coroutine"),
    ("Shipped", "Shipped.plain"),
    ("Placed", "Placed.plain"),
    ("Priced", "Priced.coroutine"),
)

MODEST = Guarantees(blocks_caller=False, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.NONE)
RETRYING = Guarantees(blocks_caller=False, retries=2, delivery=Delivery.AT_LEAST_ONCE, ordering=Ordering.FIFO)
BLOCKING = Guarantees(blocks_caller=True, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO)


def law(law_id: str) -> Law:
    [found] = [law for law in LAWS if law.id == law_id]
    return found


def trace(*entries: Entry | tuple[Entry, ...], guarantees: Guarantees | None = MODEST, **given: Any) -> Trace:
    """Entries one millisecond apart, where they do not say when they happened."""
    flat = [each for group in entries for each in ((group,) if isinstance(group, Entry) else group)]
    timed = tuple(each if each.time else each._replace(time=number / 1000) for number, each in enumerate(flat, 1))
    return Trace(timed, SUBSCRIPTIONS, guarantees, **given)


def dispatched(event: str, kind: str = "Paid", **given: Any) -> Entry:
    return Entry(kind=Kind.DISPATCHED, event=event, event_type=kind, token=f"{kind} {event}", **given)


def accepted(event: str, kind: str = "Paid", **given: Any) -> Entry:
    return Entry(kind=Kind.ACCEPTED, event=event, event_type=kind, **given)


def taken(event: str, kind: str = "Paid", **given: Any) -> tuple[Entry, ...]:
    """Dispatched and accepted."""
    return dispatched(event, kind, **given), accepted(event, kind, **given)


def refused(event: str, kind: str = "Paid", exception: str = "DispatchError", **given: Any) -> Entry:
    kin = dict.fromkeys((exception, "DispatchError", "Exception", "BaseException"))
    return Entry(kind=Kind.REFUSED, event=event, event_type=kind, exception=tuple(kin), **given)


def raised(event: str, exception: str, kind: str = "Paid", *, interruption: bool = False, **given: Any) -> Entry:
    return Entry(
        kind=Kind.RAISED,
        event=event,
        event_type=kind,
        exception=kin(exception, interruption),
        interruption=interruption,
        **given,
    )


def kin(exception: str, interruption: bool = False) -> tuple[str, ...]:
    return (exception, "BaseException") if interruption else (exception, "Exception", "BaseException")


def started(event: str, handler: str, attempt: int = 1, token: str | None = None, **given: Any) -> Entry:
    kind = handler.partition(".")[0]
    token = f"{kind} {event}" if token is None else token
    return Entry(
        kind=Kind.STARTED, event=event, event_type=kind, handler=handler, attempt=attempt, token=token, **given
    )


def succeeded(event: str, handler: str, attempt: int = 1, **given: Any) -> Entry:
    return Entry(kind=Kind.SUCCEEDED, event=event, handler=handler, attempt=attempt, **given)


def failed(
    event: str,
    handler: str,
    attempt: int = 1,
    exception: str = "ValueError",
    *,
    interruption: bool = False,
    **given: Any,
) -> Entry:
    return Entry(
        kind=Kind.FAILED,
        event=event,
        handler=handler,
        attempt=attempt,
        exception=kin(exception, interruption),
        interruption=interruption,
        note=f"attempt {attempt}",
        **given,
    )


def handled(event: str, *handlers: str, attempt: int = 1) -> tuple[Entry, ...]:
    """An attempt of each handler that succeeds."""
    return tuple(e for h in handlers for e in (started(event, h, attempt), succeeded(event, h, attempt)))


def broken(event: str, *handlers: str, attempt: int = 1) -> tuple[Entry, ...]:
    """An attempt of each handler that fails."""
    return tuple(e for h in handlers for e in (started(event, h, attempt), failed(event, h, attempt)))


def reported(event: str, handler: str, attempts: int = 1, exception: str = "ValueError", **given: Any) -> Entry:
    kind = handler.partition(".")[0]
    given = {"token": f"{kind} {event}", "note": f"attempt {attempts}", **given}
    return Entry(kind=Kind.REPORTED, event=event, handler=handler, attempt=attempts, exception=kin(exception), **given)


def closing(timeout: float = 5.0, caller: str = "closer", **given: Any) -> Entry:
    return Entry(kind=Kind.CLOSING, caller=caller, timeout=timeout, **given)


def begun(caller: str = "closer") -> Entry:
    return Entry(kind=Kind.BEGUN, caller=caller)


def closed(*undelivered: str, caller: str = "closer", **given: Any) -> Entry:
    return Entry(kind=Kind.CLOSED, caller=caller, events=undelivered, **given)


CRASHED = Entry(kind=Kind.CRASHED, caller="suite")
RESTARTED = Entry(kind=Kind.RESTARTED, caller="suite")
LOGGED = Entry(kind=Kind.LOGGED)
IDLE = Entry(kind=Kind.IDLE)
BOTH = ("Paid.plain", "Paid.coroutine")
