"""Dispatching again what has failed: for the handler that failed, and for no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from uuid import UUID

from eventpact.domain.dispatcher import EventDispatcher, Handlers
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.subscriptions import Subscription, SubscriptionTable
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.persistence.failure_store import Failure, FailureStore

__all__ = ["ReplayError", "replay_by_dispatcher", "replay_by_outbox"]


class ReplayError(Exception):
    """This failure cannot be dispatched again; it stays where it is. The message says why."""


def replay_by_outbox(failure: Failure, store: FailureStore, table: SubscriptionTable, outbox: OutboxStore) -> None:
    """Move a failure into the outbox, in one transaction; a relay delivers it to the handler that failed.

    Raises:
        ReplayError: there is no such event or handler any more, or it has failed again meanwhile.
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached, or refused.
    """
    event, subscription = _read(failure, table)
    with store.database.transaction():
        if not store.remove(failure):
            raise ReplayError("it was changed by another; look at it again")
        outbox.append_replay(type(event).__name__, UUID(str(event.event_id)), failure.payload, subscription.key)


def replay_by_dispatcher(
    failure: Failure, store: FailureStore, table: SubscriptionTable, build: Callable[[Handlers], EventDispatcher]
) -> EventDispatcher:
    """Dispatch a failure with a dispatcher that is built for the handler that failed; it leaves the store after that.

    An engine in other processes (Celery without the outbox) has handlers of its own there: the event goes to all.

    Returns:
        The dispatcher, to be closed by the caller.

    Raises:
        ReplayError: there is no such event or handler any more.
        DispatchError: the event was not accepted.
    """
    event, subscription = _read(failure, table)
    dispatcher = build({type(event): subscription.handler})
    dispatcher.dispatch(event)
    store.remove(failure)  # unless it has failed again already, which changed it
    return dispatcher


def _read(failure: Failure, table: SubscriptionTable) -> tuple[DomainEvent, Subscription]:
    if failure.handler is None or failure.name is None:
        raise ReplayError("it was never read as an event; drop it, or publish it again from where it came")
    try:
        event_type = table.named(failure.name)
        event: DomainEvent = event_type.from_dict(json.loads(failure.payload))
    except KeyError:
        raise ReplayError(f"there is no event type {failure.name} here any more") from None
    except (TypeError, ValueError) as error:
        raise ReplayError(f"its fields are not those of a {failure.name} any more ({error})") from None
    for subscription in table[event_type]:
        if subscription.key == failure.handler:
            return event, subscription
    raise ReplayError(f"there is no handler {failure.handler} here any more")
