"""Stock OpenTelemetry packages: the trace of the caller is that of the handlers, whatever carries the event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from opentelemetry import context, propagate, trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from support.celery_kit import Counted, app_on, worker_of
from support.waiting import until

from eventpact.domain.dispatcher import EventDispatcher
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.outbox_dispatcher import OutboxEventDispatcher
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

pytestmark = pytest.mark.slow

TRACER = TracerProvider().get_tracer("tests")


class OpenTelemetryCarrier:
    """The recipe for a dispatcher that no instrumentation knows."""

    def inject(self) -> dict[str, str]:
        carried: dict[str, str] = {}
        propagate.inject(carried)
        return carried

    def extract(self, carried: Mapping[str, str], /) -> None:
        context.attach(propagate.extract(carried))


class Traced:
    """Keeps the traces in which it was called; fails the first time."""

    def __init__(self, failures: int = 0) -> None:
        self.traces: list[int] = []
        self._failures = failures

    def handle(self, event: DomainEvent) -> None:
        self.traces.append(trace.get_current_span().get_span_context().trace_id)
        if len(self.traces) <= self._failures:
            raise ValueError


class TracedAsync(Traced):
    async def handle(self, event: DomainEvent) -> None:  # type: ignore[override]
        super().handle(event)


def dispatched(dispatcher: EventDispatcher) -> int:
    """Dispatch in a new trace, which is returned."""
    with TRACER.start_as_current_span("request") as span:
        dispatcher.dispatch(Counted())
        return span.get_span_context().trace_id


@pytest.fixture
def instrumented() -> Iterator[None]:
    CeleryInstrumentor().instrument(tracer_provider=TracerProvider())
    yield
    CeleryInstrumentor().uninstrument()


def test_sync_keeps_the_trace() -> None:
    handlers = [Traced(), TracedAsync()]
    dispatcher = SyncEventDispatcher({Counted: handlers})
    expected = dispatched(dispatcher)
    asyncio.run(dispatcher.aclose())
    assert [handler.traces for handler in handlers] == [[expected]] * 2


async def test_asyncio_keeps_the_trace() -> None:
    handlers = [Traced(), TracedAsync()]
    dispatcher = AsyncioEventDispatcher({Counted: handlers})
    expected = dispatched(dispatcher)
    elsewhere = await asyncio.to_thread(dispatched, dispatcher)
    assert await dispatcher.aclose() == ()
    assert [set(handler.traces) for handler in handlers] == [{expected, elsewhere}] * 2


@pytest.mark.usefixtures("instrumented")
def test_celery_keeps_the_trace_also_of_a_retry(valkey: str) -> None:
    handlers = [Traced(failures=1), TracedAsync(failures=1)]
    app = app_on(valkey)
    dispatcher = CeleryEventDispatcher(app, {Counted: handlers}, backoff=0.1)
    with worker_of(app):
        expected = dispatched(dispatcher)
        until(lambda: all(len(handler.traces) == 2 for handler in handlers))
    asyncio.run(dispatcher.aclose())
    assert [handler.traces for handler in handlers] == [[expected] * 2] * 2


@pytest.mark.parametrize("restarted", [False, True], ids=["at once", "after a restart"])
@pytest.mark.parametrize("inner", [SyncEventDispatcher, AsyncioEventDispatcher])
async def test_the_outbox_keeps_the_trace_with_a_carrier(
    tmp_path: Path, inner: Callable[..., EventDispatcher], restarted: bool
) -> None:
    handlers = [Traced(), TracedAsync()]
    database = Database(f"sqlite:///{tmp_path / 'outbox.db'}")
    database.migrate()

    def outbox(relay: bool) -> OutboxEventDispatcher:
        return OutboxEventDispatcher(
            {Counted: handlers},
            lambda given, sink: inner(given, on_failure=sink),
            OutboxStore(database),
            relay=relay,
            poll=0.05,
            context=OpenTelemetryCarrier(),
        )

    first = outbox(relay=not restarted)
    expected = await asyncio.to_thread(dispatched, first)
    if restarted:
        await first.aclose()
        second = outbox(relay=True)
    await asyncio.to_thread(until, lambda: all(handler.traces for handler in handlers))
    await (second if restarted else first).aclose()
    database.close()
    assert [handler.traces for handler in handlers] == [[expected]] * 2


@pytest.mark.usefixtures("instrumented")
def test_the_outbox_over_celery_keeps_the_trace_with_a_carrier(tmp_path: Path, valkey: str) -> None:
    handlers = [Traced(), TracedAsync()]
    database = Database(f"sqlite:///{tmp_path / 'outbox.db'}")
    database.migrate()
    app = app_on(valkey)
    outbox = OutboxEventDispatcher(
        {Counted: handlers},
        lambda given, sink: CeleryEventDispatcher(app, given, on_failure=sink),
        OutboxStore(database),
        resend=timedelta(seconds=60),
        poll=0.05,
        context=OpenTelemetryCarrier(),
    )
    with worker_of(app):
        expected = dispatched(outbox)
        until(lambda: all(handler.traces for handler in handlers))
    asyncio.run(outbox.aclose())
    database.close()
    assert [handler.traces for handler in handlers] == [[expected]] * 2
