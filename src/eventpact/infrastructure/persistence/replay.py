"""Dispatch failed deliveries again: for the handlers that failed, and for no other."""

import ast
import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from eventpact.domain.dispatcher import EventDispatcher, Handlers
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Subscription, SubscriptionTable
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.persistence.failure_store import (
    DISAGREEMENT,
    HANDLER_SEPARATOR,
    UNREADABLE,
    Failure,
    FailureStore,
)

_BATCH: Final = 200

_TASK_PREFIX: Final = "handle_"
"""The name of a Celery task is this and the event's."""


class ReplayError(Exception):
    """This failure cannot be dispatched again; it stays where it is. The message says why."""


def replay_by_outbox(
    failure: Failure, store: FailureStore, table: SubscriptionTable, outbox: OutboxStore, wait: timedelta = timedelta(0)
) -> None:
    """Append a failure to the outbox, in one transaction; a relay delivers it to the handlers that failed.

    A failed delivery keeps its row, which is hidden until it fails again and removed when it succeeds.

    Args:
        wait: how long a relay waits first, so that many failures are not delivered all at once.

    Raises:
        ReplayError: there is no such event or handler any more, or it was changed meanwhile.
    """
    event, subscriptions = _read(failure, table)
    keys = [subscription.key for subscription in subscriptions]
    with store.database.transaction():
        if failure.retried_at is not None and any(outbox.pending(event.event_id, key) for key in keys):
            raise ReplayError("it is being delivered again already")
        if not _take(failure, store, keys):
            raise ReplayError("it was changed by another; look at it again")
        outbox.append_replay(type(event).__name__, event.event_id, json.dumps(event.to_dict()), keys, wait)


def return_readable(store: FailureStore, table: SubscriptionTable, outbox: OutboxStore) -> int:
    """Append to the outbox the unreadable messages that this version can read, and return how many.

    A message that is in the outbox as well is left alone: it is delivered from there.
    """
    returned, page = 0, store.unreadable(_BATCH)
    while page:
        for failure in page:
            try:
                event, _ = _read(failure, table)
                if not outbox.pending(event.event_id):
                    replay_by_outbox(failure, store, table, outbox)
                    returned += 1
            except ReplayError:
                continue
        page = store.unreadable(_BATCH, after=page[-1].failure_id)
    return returned


def replay_by_dispatcher(
    failure: Failure, store: FailureStore, table: SubscriptionTable, build: Callable[[Handlers], EventDispatcher]
) -> EventDispatcher:
    """Dispatch a failure with a dispatcher that is built for the handlers that failed.

    After that it is removed where the dispatcher handles events in this process, unless it has failed again. An engine
    in other processes (Celery without the outbox) has handlers of its own there, so the event goes to all; the row is
    hidden, and goes on if a delivery fails again.

    Returns:
        The dispatcher, to be closed by the caller.

    Raises:
        ReplayError: there is no such event or handler any more.
        DispatchError: the event was not accepted.
    """
    event, subscriptions = _read(failure, table)
    dispatcher = build({type(event): [subscription.handler for subscription in subscriptions]})
    dispatcher.dispatch(event)
    if dispatcher.guarantees.blocks_caller:
        store.remove(failure)
    else:
        _take(failure, store, [subscription.key for subscription in subscriptions])
    return dispatcher


def _take(failure: Failure, store: FailureStore, keys: Sequence[str]) -> bool:
    if failure.error_type in (UNREADABLE, DISAGREEMENT):
        return store.remove(failure)  # nothing was attempted, so it has no history
    return store.mark_retried(failure, HANDLER_SEPARATOR.join(keys))


def _read(failure: Failure, table: SubscriptionTable) -> tuple[DomainEvent, Sequence[Subscription]]:
    if failure.name is None:
        raise ReplayError("it names no event; drop it, or publish it again from where it came")
    try:
        event_type = table.named(failure.name.removeprefix(_TASK_PREFIX))
        event: DomainEvent = event_type.from_dict(_fields(failure.payload))
    except KeyError:
        raise ReplayError(f"there is no event type {failure.name} here any more") from None
    except (TypeError, ValueError) as error:
        raise ReplayError(f"its fields are not those of a {failure.name} here ({error})") from None
    if failure.handler is None:
        if not table[event_type]:
            raise ReplayError(f"there is no handler of a {failure.name} here any more")
        return event, table[event_type]
    try:
        return event, [table.keyed(event_type, key) for key in failure.handler.split(HANDLER_SEPARATOR)]
    except KeyError as error:
        raise ReplayError(f"there is no handler {error.args[0]} here any more") from None


def _fields(payload: str) -> Any:
    """Return the event's fields, from a row of the outbox or from a message of Celery's that was kept as it came."""
    try:
        data = json.loads(payload)
    except ValueError:
        try:
            data = ast.literal_eval(payload)  # arguments that a worker could not make an event of
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError(f"it is no JSON ({type(error).__name__})") from None
    if isinstance(data, (list, tuple)) and data and isinstance(data[0], (list, tuple)) and len(data[0]) == 1:
        return data[0][0]
    return data
