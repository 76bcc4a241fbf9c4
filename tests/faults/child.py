"""``eventpact`` with failpoints, which is run in the processes that are killed: ``python -m faults.child``.

A file tells a process to kill or freeze itself, its parent or its whole group when it next reaches a step, so that the
fault hits exactly there. The time of each ``dispatch`` is measured from outside of the dispatcher, into a journal.
"""

from __future__ import annotations

import functools
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["main"]

_signing_up = threading.local()


def main() -> int:
    """Run ``eventpact`` with the arguments of this process."""
    if offset := float(os.environ.get("FAULTS_CLOCK", "0")):
        import time_machine

        time_machine.travel(time.time() + offset, tick=True).start()
    if limit := int(os.environ.get("FAULTS_DESCRIPTORS", "0")):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    _install()
    from eventpact.cli.main import main as eventpact

    return eventpact()


def _reached(step: str) -> None:
    """Kill or freeze, if this is the step at which this process was told to."""
    order = Path(os.environ["FAULTS_FOLDER"]) / f"arm-{sys.argv[1]}"
    try:
        wanted, scope = order.read_text().split()
        if wanted != step:
            return
        order.unlink()
    except (FileNotFoundError, ValueError):  # there is none, or another thread or process was first
        return
    if scope == "parent":
        os.kill(os.getppid(), signal.SIGKILL)
    elif scope == "group":
        os.killpg(os.getpgrp(), signal.SIGKILL)
    else:
        os.kill(os.getpid(), signal.SIGSTOP if scope == "freeze" else signal.SIGKILL)


def _install() -> None:
    from sqlalchemy.engine.default import DefaultDialect

    from eventpact.application.commands import CreateAccountCommand
    from eventpact.application.handlers import VerifyAccountEmailHandler
    from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
    from eventpact.infrastructure.celery.task import EventTask
    from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher
    from eventpact.infrastructure.outbox.store import OutboxStore
    from eventpact.infrastructure.outbox_dispatcher import OutboxEventDispatcher
    from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

    _replace(DefaultDialect, "do_execute", _executing)
    _replace(DefaultDialect, "do_commit", _committing)
    _replace(CreateAccountCommand, "execute", _in_sign_up)
    _replace(EventTask, "run", _received)
    _replace(VerifyAccountEmailHandler, "handle", _handling)
    for engine in (SyncEventDispatcher, AsyncioEventDispatcher, CeleryEventDispatcher):
        _replace(engine, "dispatch", _dispatching)
    for timed in (CeleryEventDispatcher, OutboxEventDispatcher):
        _replace(timed, "dispatch", functools.partial(_timed, timed.__name__))
    if os.environ.get("FAULTS_CODE") == "newer":
        _add_field()
    if os.environ.get("FAULTS_SWEEPER") == "off":
        # Entries of another process are never taken over, and nothing is published or tried again.
        OutboxStore.claim = lambda *_, **__: []  # type: ignore[method-assign]


def _replace(owner: type, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    setattr(owner, name, wrapper(getattr(owner, name)))


def _add_field() -> None:
    """Make this the version after: its event has one more field, which has a default."""
    from eventpact.domain.events import AccountCreatedEvent

    to_dict, from_dict = AccountCreatedEvent.to_dict, AccountCreatedEvent.from_dict

    def with_field(event: AccountCreatedEvent) -> dict[str, Any]:
        return to_dict(event) | {"locale": "en"}

    def without_field(_: type, data: dict[str, Any]) -> AccountCreatedEvent:
        return from_dict({name: value for name, value in data.items() if name != "locale"})

    AccountCreatedEvent.to_dict = with_field  # type: ignore[method-assign]
    AccountCreatedEvent.from_dict = classmethod(without_field)  # type: ignore[method-assign, assignment]


def _executing(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Reach ``heartbeat`` while a relay's row is locked."""

    def do_execute(self: Any, cursor: Any, statement: str, *args: Any, **kwargs: Any) -> None:
        execute(self, cursor, statement, *args, **kwargs)
        if statement.startswith("UPDATE outbox_relays"):
            _reached("heartbeat")

    return do_execute


def _committing(commit: Callable[..., Any]) -> Callable[..., Any]:
    def do_commit(*args: Any) -> None:
        if getattr(_signing_up, "now", False):
            _reached("before-commit")
        commit(*args)
        if getattr(_signing_up, "now", False):
            _reached("after-commit")

    return do_commit


def _in_sign_up(execute: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(execute)
    def wrapped(*args: Any) -> Any:
        # Not reset: with an outbox it is the caller's transaction that commits, on this thread, when this has returned.
        _signing_up.now = True
        return execute(*args)

    return wrapped


def _received(run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        _reached("received")
        return run(*args, **kwargs)

    return wrapped


def _handling(handle: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handle)
    async def wrapped(self: Any, event: Any) -> None:
        if event.email.startswith("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        await handle(self, event)
        _reached("handled")

    return wrapped


def _dispatching(dispatch: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(dispatch)
    def wrapped(*args: Any) -> None:
        _reached("dispatching")
        dispatch(*args)
        _reached("dispatched")

    return wrapped


def _timed(name: str, dispatch: Callable[..., Any]) -> Callable[..., Any]:
    journal = os.open(Path(os.environ["FAULTS_FOLDER"]) / "dispatched", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    @functools.wraps(dispatch)
    def wrapped(*args: Any) -> None:
        started = time.monotonic()
        try:
            dispatch(*args)
        finally:
            os.write(journal, f"{name} {time.monotonic() - started:.4f}\n".encode())

    return wrapped


if __name__ == "__main__":
    sys.exit(main())
