"""Every implementation keeps the one contract: each row of the table is a contract class of its own."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from eventpact.domain.dispatcher import Delivery, EventDispatcher, FailureSink, Guarantees, Handlers, Ordering
from eventpact_contracts import EventDispatcherContract


@dataclass(frozen=True)
class Implementation:
    """A dispatcher that is put to the contract.

    Attributes:
        target: the class, or a factory that returns a dispatcher or a context manager of one.
        hooks: attributes of the contract class, where its defaults do not fit.
        marks: the marks of its tests.
    """

    target: str
    delivery: Delivery = Delivery.AT_MOST_ONCE
    ordering: Ordering = Ordering.NONE
    blocks_caller: bool = False
    retries: int = 0
    hooks: dict[str, Any] = field(default_factory=dict)
    marks: tuple[pytest.MarkDecorator, ...] = (pytest.mark.slow,)

    def contract_class(self, name: str) -> type[EventDispatcherContract]:
        """The class that pytest collects."""
        factory: Any = pkgutil.resolve_name(self.target)

        @contextmanager
        def subject(_: object, handlers: Handlers, on_failure: FailureSink) -> Iterator[EventDispatcher]:
            made = factory(handlers, on_failure=on_failure)
            with made if isinstance(made, AbstractContextManager) else nullcontext(made) as dispatcher:
                yield dispatcher

        guarantees = Guarantees(
            blocks_caller=self.blocks_caller, retries=self.retries, delivery=self.delivery, ordering=self.ordering
        )
        hooks = {"guarantees": guarantees, "target": self.target, "subject": subject, "__module__": __name__}
        if hasattr(factory, "unavailable"):
            hooks["unavailable"] = lambda _: factory.unavailable()
        made = type(name, (EventDispatcherContract,), hooks | self.hooks)
        for mark in (*self.marks, pytest.mark.timeout(300)):
            mark(made)
        return made


IMPLEMENTATIONS: Final = {
    "TestSync": Implementation(
        "eventpact.infrastructure.sync_dispatcher:SyncEventDispatcher",
        ordering=Ordering.FIFO,
        blocks_caller=True,
        marks=(),
    ),
    "TestAsyncio": Implementation(
        "eventpact.infrastructure.asyncio_dispatcher:AsyncioEventDispatcher", hooks={"needs_loop": True}, marks=()
    ),
    "TestCelery": Implementation(
        "eventpact_contracts.subjects.celery:celery",
        retries=2,
        hooks={"settle_timeout": 10.0, "engine_outlives_dispatcher": True, "max_open": 4},
    ),
    "TestOutboxOverAsyncio": Implementation(
        "eventpact_contracts.subjects.outbox:outbox",
        retries=2,
        delivery=Delivery.AT_LEAST_ONCE,
        hooks={"settle_timeout": 8.0, "engine_outlives_dispatcher": True, "max_open": 6},
    ),
    "TestOutboxOverSync": Implementation(
        "eventpact_contracts.subjects.outbox:over_sync",
        retries=2,
        delivery=Delivery.AT_LEAST_ONCE,
        hooks={"settle_timeout": 8.0, "engine_outlives_dispatcher": True, "max_open": 6},
    ),
    "TestObservedAsyncio": Implementation("contract.observed:observed_asyncio", hooks={"needs_loop": True}),
    "TestRecording": Implementation(
        "eventpact.testing:RecordingEventDispatcher", ordering=Ordering.FIFO, blocks_caller=True
    ),
    "TestThreadPool": Implementation("examples.thread_pool_dispatcher:ThreadPoolDispatcher"),
}

globals().update({name: implementation.contract_class(name) for name, implementation in IMPLEMENTATIONS.items()})
