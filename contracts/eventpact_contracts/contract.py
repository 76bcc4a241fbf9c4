"""The abstract test class: subclass it, say how to open your dispatcher, and pytest checks it against every law."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from eventpact.domain.dispatcher import EventDispatcher, FailureSink, Guarantees, Handlers
from eventpact_contracts.checking.check import CouldNotRunError, check_laws
from eventpact_contracts.checking.columns import ContractTests, each_law, end_test, run_law_test, run_of
from eventpact_contracts.checking.model import check_against_model
from eventpact_contracts.checking.outcomes import LawResult, Outcome
from eventpact_contracts.laws import LAWS, Law
from eventpact_contracts.reports.summary import EVERYTHING, could_not_run

__all__ = ["EventDispatcherContract"]


class EventDispatcherContract(ContractTests):
    """The contract of every event dispatcher, as tests: one a law (``pytest -k R1``), and one of everything.

    ::

        class TestMyDispatcher(EventDispatcherContract):
            guarantees = Guarantees(
                blocks_caller=True, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO,
            )

            @contextmanager
            def subject(self, handlers, on_failure):
                yield MyDispatcher(handlers, on_failure=on_failure)

    Attributes:
        guarantees: the declaration of the dispatcher.
        needs_loop: whether it is to be built and driven inside a running event loop.
        settle_timeout: how many seconds to wait for accepted events.
        target: ``"module:factory"``, importable in a fresh process, for the law that kills processes: see
            :mod:`eventpact_contracts.crash.crashes`.
        dispatch_bound: within how many seconds ``dispatch`` refuses, where it cannot accept (law A5).
        async_handlers: whether an ``async def handle`` may be registered. If not, it must be refused (law A4).
        engine_outlives_dispatcher: whether a broker or a database settles events that it has taken over later (law L1).
        max_open: how many dispatchers may be open at once in a process, where opening one is slow. Of more than one,
            scenarios are played side by side, and ``subject`` is called from several threads.
        known_violations: the IDs of laws that are violated for now, each with the reason. Their tests are expected to
            fail, and fail if they do not.

    A class may also have a method ``unavailable()``: a context manager in which the engine cannot be reached (a broker
    that is stopped, say), so that laws A2 and A5 see how ``dispatch`` behaves then.
    """

    guarantees: ClassVar[Guarantees]
    target: ClassVar[str | None] = None
    dispatch_bound: ClassVar[float] = 2.0
    async_handlers: ClassVar[bool] = True
    engine_outlives_dispatcher: ClassVar[bool] = False
    max_open: ClassVar[int] = 1
    contract_of = "dispatcher"
    laws: ClassVar[Sequence[Any]] = LAWS

    def subject(
        self,
        handlers: Handlers,  # noqa: ARG002 - for those who override it
        on_failure: FailureSink,  # noqa: ARG002
    ) -> AbstractContextManager[EventDispatcher]:
        """A context manager that yields a fresh dispatcher and tears it down. Called as often as needed.

        ``handlers`` maps event types to a handler or a list of handlers; ``on_failure`` is the failure sink.
        """
        raise CouldNotRunError(
            f"{type(self).__qualname__} does not say how to open a dispatcher; give it\n\n"
            "    @contextmanager\n"
            "    def subject(self, handlers, on_failure):\n"
            "        yield MyDispatcher(handlers, on_failure=on_failure)"
        )

    def test_everything_together(self, request: pytest.FixtureRequest) -> None:
        """Every event ends as an independent model says, whatever happens meanwhile."""
        result = LawResult(EVERYTHING, "laws together", Outcome.UPHELD, 0, 0, "", 0.0)
        try:
            examples, observations = check_against_model(self, seed=run_of(request).seed)
            result = replace(result, examples=examples, observations=observations)
        except CouldNotRunError as error:
            result = could_not_run(EVERYTHING, "laws together", str(error))
        except AssertionError as error:
            result = replace(result, outcome=Outcome.VIOLATED, detail=str(error))
        end_test(self, request, result)

    @each_law(LAWS)
    def test_law(self, law: Law, request: pytest.FixtureRequest) -> None:
        """A law of CONTRACT.md holds. The first test of a class plays the scenarios of all that were selected."""
        run_law_test(self, request, law.id, _check)


def _check(subject: EventDispatcherContract, law_ids: list[str], examples: int, seed: int) -> list[LawResult]:
    return check_laws([law for law in LAWS if law.id in law_ids], subject, examples=examples, seed=seed)
