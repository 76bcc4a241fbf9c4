"""One's own event and handlers on three engines: asyncio, one's own Celery app, and the outbox around that.

    python own_application.py asyncio
    celery --app own_worker worker --concurrency 1            # in another terminal, for celery
    python own_application.py celery
    OUTBOX=yes celery --app own_worker worker --concurrency 1 # in another terminal, for outbox
    python own_application.py outbox

``BROKER`` names the broker of the Celery app, ``DATABASE`` the database of the outbox.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from celery import Celery

from eventpact.domain.dispatcher import EventDispatcher, FailedDelivery, FailureSink, Handlers, PermanentFailureError
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.outbox_dispatcher import OutboxEventDispatcher
from eventpact.infrastructure.persistence.database import Database


def say(text: str) -> None:
    """Print a line in one piece; ``print`` does so in two, between which another thread's line may come."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@dataclass(frozen=True, kw_only=True)
class OrderPlaced(DomainEvent):
    order_id: str
    total: Decimal


class Receipt:
    def handle(self, event: OrderPlaced) -> None:
        say(f"receipt for {event.order_id}: {event.total}")


class Warehouse:
    async def handle(self, event: OrderPlaced) -> None:
        await asyncio.sleep(0)
        if event.total > 1000:
            raise PermanentFailureError("too large to be packed")
        say(f"{event.order_id} is packed")


HANDLERS: Handlers = {OrderPlaced: [Receipt(), Warehouse()]}


def on_failure(failed: FailedDelivery) -> None:
    """Report a delivery that is not tried again."""
    say(f"{type(failed.handler).__name__} failed: {failed.exception}")


app = Celery("shop", broker=os.environ.get("BROKER", "redis://127.0.0.1:6379/0"))
database = Database(os.environ.get("DATABASE", "sqlite:///shop.db"))


def with_celery(handlers: Handlers, on_failure: FailureSink) -> CeleryEventDispatcher:
    return CeleryEventDispatcher(app, handlers, on_failure=on_failure, retries=2, backoff=0.1)


def with_outbox(*, relay: bool) -> OutboxEventDispatcher:
    database.migrate()
    resend = timedelta(seconds=30)  # the handlers run in workers, which settle events in the same database
    return OutboxEventDispatcher(
        HANDLERS, with_celery, OutboxStore(database), on_failure=on_failure, resend=resend, relay=relay
    )


async def place_orders(dispatcher: EventDispatcher) -> None:
    for number, total in enumerate(("12.50", "9999")):
        dispatcher.dispatch(OrderPlaced(order_id=f"order-{number}", total=Decimal(total)))
    if isinstance(dispatcher, OutboxEventDispatcher):
        with database.transaction():  # the event is written with whatever else this transaction writes, or not at all
            dispatcher.dispatch(OrderPlaced(order_id="order-2", total=Decimal("1.00")))
        async with asyncio.timeout(60):  # a server would go on; whatever is left, the next relay delivers
            while OutboxStore(database).backlog().entries:
                await asyncio.sleep(0.05)  # between two looks; the deadline is above
    undelivered = await dispatcher.aclose(timeout=10)
    say(f"{len(undelivered)} undelivered")


async def main(engine: str) -> None:
    if engine == "asyncio":
        await place_orders(AsyncioEventDispatcher(HANDLERS, on_failure=on_failure))
    elif engine == "celery":
        await place_orders(with_celery(HANDLERS, on_failure))
    else:
        await place_orders(with_outbox(relay=True))


if __name__ == "__main__":
    import own_application  # so that handlers have the names here that they have in the worker

    asyncio.run(own_application.main(sys.argv[1]))
