"""Metrics for Prometheus: counters of this process, fed by a dispatcher around another one, and numbers of rows.

Labels are names of event types, of outcomes and of errors; nothing of an event stands in a metric.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from eventpact.domain.dispatcher import DispatchError, EventDispatcher, FailedDelivery, FailureSink, Handlers
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.failures import FailureReporter
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable, recorded
from eventpact.infrastructure.dispatching.threads import SharedAnswer

_LONGEST: Final = 2.0
"""Seconds that a scrape waits for the database."""


@dataclass(frozen=True, slots=True)
class Stock:
    """Rows that somebody may have to look after: failures, and events in the outbox, where there is one."""

    failed: int
    pending: int | None = None
    oldest: timedelta | None = None


class Metrics:
    """The metrics of one application, in a registry of its own.

    Args:
        event_types: the types with handlers, whose counters are shown from 0 on.
        take_stock: asks the database; it may raise ``SQLAlchemyError``.
        settles: whether handlers run in this process. Otherwise no settled deliveries are shown, since a 0 would
            be taken for true.
    """

    def __init__(
        self, event_types: Iterable[type[DomainEvent]], take_stock: Callable[[], Stock], *, settles: bool
    ) -> None:
        self._registry = CollectorRegistry()
        self._accepted = self._counter("eventpact_events_accepted", "Events accepted by this process.", "event")
        self._refused = self._counter("eventpact_events_refused", "Events refused to callers.", "event", "error")
        self._settled = self._counter(
            "eventpact_deliveries_settled", "Deliveries that handlers in this process settled.", "event", "outcome"
        )
        self._refused_codes = Counter(
            "eventpact_codes_refused", "Wrong, used or expired verification codes.", registry=self._registry
        )
        for event_type in event_types:
            self._accepted.labels(event_type.__name__)
            for outcome in ("succeeded", "failed") if settles else ():
                self._settled.labels(event_type.__name__, outcome)
        self._registry.register(_StockCollector(take_stock))

    def accepted(self, event: DomainEvent) -> None:
        self._accepted.labels(type(event).__name__).inc()

    def refused(self, event: DomainEvent, error: DispatchError) -> None:
        self._refused.labels(type(event).__name__, type(error).__name__).inc()

    def succeeded(self, event: DomainEvent) -> None:
        self._settled.labels(type(event).__name__, "succeeded").inc()

    def failed(self, event: DomainEvent) -> None:
        self._settled.labels(type(event).__name__, "failed").inc()

    def code_refused(self) -> None:
        """Count a verification code that was wrong, used or expired: many mean that somebody is guessing."""
        self._refused_codes.inc()

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All of it in the best format that an ``Accept`` header names, and the content type. May ask the database."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # it compares versions that are none
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self._registry)


class _StockCollector(Collector):
    """Counts rows at each scrape. While the database is unreachable or silent, it shows that alone."""

    def __init__(self, take_stock: Callable[[], Stock]) -> None:
        self._stock = SharedAnswer(take_stock, name="eventpact-metrics")

    def collect(self) -> Iterator[Metric]:
        try:
            stock = self._stock.future().result(_LONGEST)
        except (SQLAlchemyError, TimeoutError):
            yield _gauge("eventpact_database_up", "Whether the database answered this scrape.", 0)
            return
        yield _gauge("eventpact_database_up", "Whether the database answered this scrape.", 1)
        yield _gauge("eventpact_failed_deliveries", "Deliveries and messages in the failure store.", stock.failed)
        if stock.pending is not None:
            oldest = timedelta(0) if stock.oldest is None else stock.oldest
            yield _gauge("eventpact_outbox_pending", "Events in the outbox: accepted, not settled.", stock.pending)
            yield _gauge(
                "eventpact_outbox_oldest_seconds", "Age of the oldest event in the outbox.", oldest.total_seconds()
            )


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


class ObservedEventDispatcher(EventDispatcher):
    """Counts the events of an inner dispatcher, whose guarantees and needs it has. No other part knows of metrics.

    Deliveries that other processes settle (workers, relays) are not seen here.

    Args:
        inner: builds the dispatcher that delivers, from handlers and a failure sink.
        after_commit: calls a function once the caller's transaction is committed, at once outside of one.
    """

    def __init__(
        self,
        handlers: Handlers,
        inner: Callable[[Handlers, FailureSink], EventDispatcher],
        metrics: Metrics,
        *,
        on_failure: FailureSink | None = None,
        after_commit: Callable[[Callable[[], object]], object] = lambda callback: callback(),
    ) -> None:
        self._metrics = metrics
        self._after_commit = after_commit
        self._inner = inner(
            SubscriptionTable(handlers).around(lambda each: recorded(each, succeeded=metrics.succeeded)),
            FailureReporter(on_failure).around(self._failing),
        )
        self.guarantees = self._inner.guarantees
        self.needs_loop: bool = getattr(self._inner, "needs_loop", False)

    def dispatch(self, event: DomainEvent) -> None:
        """Dispatch to the inner dispatcher, whose exceptions pass."""
        try:
            self._inner.dispatch(event)
        except DispatchError as error:
            self._metrics.refused(event, error)
            raise
        self._after_commit(lambda: self._metrics.accepted(event))

    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        """Close the inner dispatcher."""
        return await self._inner.aclose(timeout)

    def _failing(self, sink: FailureSink) -> FailureSink:
        def report(failed: FailedDelivery) -> None:
            sink(failed)
            self._metrics.failed(failed.event)

        return report
