"""``eventpact failed``: lists failed deliveries, shows one, dispatches it again, or drops it."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Final

from eventpact.bootstrap import Parts, build_parts, engine_of, existing, with_broker
from eventpact.domain.dispatcher import DispatchError, EventDispatcher, Handlers
from eventpact.infrastructure.dispatching.failures import FailureReporter
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.monitoring.logs import harmless, masked
from eventpact.infrastructure.persistence.failure_store import DISAGREEMENT, Failure
from eventpact.infrastructure.persistence.replay import ReplayError, replay_by_dispatcher, replay_by_outbox
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
from eventpact.settings import Settings

_COLUMNS: Final = 100

_SPACING: Final = timedelta(seconds=0.05)
"""The time between two of many failures, lest a mail server that has just come back is flooded."""


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Run the action that the command line names."""
    settings = existing(settings)
    if options.action == "retry" and not settings.uses_outbox:
        settings = with_broker(settings)
    parts = build_parts(settings)
    with closing(parts.database):
        if options.action == "list":
            return _list(parts.failures.all(), as_json=options.json)
        wanted = _wanted(options, parts)
        if wanted is None:
            return 1
        if options.action == "show":
            return _show(wanted[0], as_json=options.json)
        if options.action == "retry":
            return _retry(wanted, parts)
        return 0 if parts.failures.remove(wanted[0]) else _say_no(wanted[0], "it has failed again; look at it again")


def _wanted(options: argparse.Namespace, parts: Parts) -> list[Failure] | None:
    if getattr(options, "all", False):
        named = [each for each in parts.failures.all() if each.name is not None]
        for each in named:
            if each.error_type == DISAGREEMENT:  # delivered here, it may come to nothing
                _say_no(each, "its sender has other settings; if it belongs here, retry it by its number")
        return [each for each in named if each.error_type != DISAGREEMENT]
    found = []
    for number in dict.fromkeys(options.ids) if options.action == "retry" else [options.id]:
        failure = parts.failures.get(number)
        if failure is None:
            print(f"eventpact: there is no failure {number}; see eventpact failed list", file=sys.stderr)
            return None
        found.append(failure)
    return found


def _list(failures: Sequence[Failure], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps([_masked(failure) for failure in failures], indent=2))
        return 0
    for failure in failures:
        name = failure.name or "(no name)"
        lines = (
            f"{failure.failure_id:>6}  {name} {failure.event_id or '(no id)'}",
            f"        {failure.handler or '(any handler)'}  {failure.attempts} attempt(s)"
            f"  {failure.first_failed_at:%Y-%m-%d %H:%M}Z to {failure.last_failed_at:%Y-%m-%d %H:%M}Z",
            f"        {failure.error_type}: {' '.join(failure.error.split())}",
        )
        for line in map(_printable, map(masked, lines)):
            print(line if len(line) <= _COLUMNS else f"{line[: _COLUMNS - 1]}…")
    if not failures:
        print("nothing has failed")
    return 0


def _show(failure: Failure, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(vars(failure), default=str, indent=2))
        return 0
    for name, value in vars(failure).items():
        print(f"{name:>16}  {'-' if value is None else _printable(str(value))}")
    return 0


def _printable(text: str) -> str:
    """Return the text without commands that a terminal would obey; handlers, clients and other programs wrote it."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _masked(failure: Failure) -> dict[str, object]:
    return {
        name: masked(value) if isinstance(value, str) else str(value) if isinstance(value, datetime) else value
        for name, value in vars(failure).items()
        if name != "payload"
    }


def _retry(failures: Sequence[Failure], parts: Parts) -> int:
    code = 0
    for number, failure in enumerate(failures):
        try:
            if parts.settings.uses_outbox:
                table = SubscriptionTable(parts.handlers)
                replay_by_outbox(failure, parts.failures, table, parts.outbox, number * _SPACING)
                done = "is dispatched again, from the outbox"
            else:
                done = _replay_by_dispatcher(failure, parts)
            print(f"{failure.failure_id} {done}")
        except (ReplayError, DispatchError) as error:
            code = _say_no(failure, str(error))
    if not failures:
        print("nothing has failed")
    elif parts.settings.uses_outbox and not parts.outbox.is_served():
        print("eventpact: no server with an outbox is running, nor eventpact relay; start one", file=sys.stderr)
    return code


def _replay_by_dispatcher(failure: Failure, parts: Parts) -> str:
    table = SubscriptionTable(parts.handlers)
    in_worker = parts.settings.dispatcher == "celery"

    def build(handlers: Handlers) -> EventDispatcher:
        if in_worker:
            from eventpact.infrastructure.celery.app import make_celery

            return engine_of(parts, make_celery(parts.settings, "web"))(handlers, parts.on_failure)
        # The process that took the event the first time may be gone; this one stays until its handler is through.
        return SyncEventDispatcher(handlers, on_failure=FailureReporter(parts.failures.keep, masked=True))

    dispatcher = replay_by_dispatcher(failure, parts.failures, table, build)
    asyncio.run(dispatcher.aclose(parts.settings.drain_timeout))
    if in_worker:
        return "is dispatched again, to the workers"
    again = parts.failures.get(failure.failure_id)
    if again is not None:
        raise ReplayError(f"it failed again: {again.error_type}: {harmless(again.error)}")
    return "is delivered"


def _say_no(failure: Failure, reason: str) -> int:
    print(f"eventpact: {failure.failure_id} stays: {reason}", file=sys.stderr)
    return 1
