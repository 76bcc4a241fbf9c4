"""``eventpact failed``: what could not be delivered, and what becomes of it."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Iterable
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from eventpact.bootstrap import Parts, build_parts, engine_of, existing, with_broker
from eventpact.domain.dispatcher import DispatchError, EventDispatcher, Handlers
from eventpact.infrastructure.dispatching.failures import FailureReporter
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.persistence.failure_store import Failure
from eventpact.infrastructure.persistence.replay import ReplayError, replay_by_dispatcher, replay_by_outbox
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
from eventpact.settings import Settings

__all__ = ["masked", "run"]

_ADDRESS: Final = re.compile(r"[^\s@<>\"',;:()\[\]]+@")


def masked(text: str) -> str:
    """The text, with of each address only its first character and its domain."""
    return _ADDRESS.sub(lambda found: f"{found[0][0]}***@", text)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Do what the command line asks for. Returns the exit code.

    Raises:
        CannotStartError: a broker is needed, and none is set or running.
    """
    settings = existing(settings)
    if options.action == "retry" and not settings.uses_outbox:
        settings = with_broker(settings)
    parts = build_parts(settings)
    try:
        if options.action == "list":
            return _list(parts.failures.all())
        wanted = _wanted(options, parts)
        if wanted is None:
            return 1
        if options.action == "show":
            return _show(wanted[0])
        if options.action == "drop":
            return (
                0 if parts.failures.remove(wanted[0]) else _say_no(wanted[0], "it has failed again; look at it again")
            )
        return _retry(wanted, parts)
    except SQLAlchemyError as error:
        print(f"eventpact: the database answered with {type(error).__name__}; is it up, and migrated?", file=sys.stderr)
        return 1
    finally:
        parts.database.close()


def _wanted(options: argparse.Namespace, parts: Parts) -> list[Failure] | None:
    if getattr(options, "all", False):
        return [failure for failure in parts.failures.all() if failure.handler is not None]
    found = []
    for number in options.ids if options.action == "retry" else [options.id]:
        failure = parts.failures.get(number)
        if failure is None:
            print(f"eventpact: there is no failure {number}; see eventpact failed list", file=sys.stderr)
            return None
        found.append(failure)
    return found


def _list(failures: Iterable[Failure]) -> int:
    for failure in failures:
        print(
            f"{failure.failure_id:>6}  {failure.last_failed_at:%Y-%m-%d %H:%M:%S}Z  {masked(str(failure.name))}"
            f" -> {failure.handler or '(nobody)'}  {failure.attempts} attempt(s)"
            f"  {failure.error_type}: {masked(failure.error)}"
        )
    return 0


def _show(failure: Failure) -> int:
    for name, value in vars(failure).items():
        print(f"{name:>16}  {value}")
    return 0


def _retry(failures: Iterable[Failure], parts: Parts) -> int:
    replay = _replay_by_outbox if parts.settings.uses_outbox else _replay_by_dispatcher
    code = 0
    for failure in failures:
        try:
            print(f"{failure.failure_id} {replay(failure, parts)}")
        except (ReplayError, DispatchError) as error:
            code = _say_no(failure, str(error))
    if parts.settings.uses_outbox and not parts.outbox.is_served():
        print("eventpact: no server with an outbox is running, nor eventpact relay; start one", file=sys.stderr)
    return code


def _replay_by_outbox(failure: Failure, parts: Parts) -> str:
    replay_by_outbox(failure, parts.failures, SubscriptionTable(parts.handlers), parts.outbox)
    return "is dispatched again, from the outbox"


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
        raise ReplayError(f"it failed again: {again.error_type}: {masked(again.error)}")
    return "is delivered"


def _say_no(failure: Failure, reason: str) -> int:
    print(f"eventpact: {failure.failure_id} stays: {reason}", file=sys.stderr)
    return 1
