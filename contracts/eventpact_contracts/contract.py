"""The abstract test class: subclass it, say how to open your dispatcher, and pytest checks it against every law."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from eventpact.domain.dispatcher import EventDispatcher, FailureSink, Guarantees, Handlers
from eventpact_contracts.checking.check import CouldNotRunError, check, is_opened, opened
from eventpact_contracts.checking.columns import conclude
from eventpact_contracts.checking.known import unknown_law
from eventpact_contracts.checking.model import check_against_model
from eventpact_contracts.checking.outcomes import LawResult, Outcome
from eventpact_contracts.laws import LAWS, Law
from eventpact_contracts.plugin import RUN
from eventpact_contracts.reports.summary import EVERYTHING, could_not_run

__all__ = ["EventDispatcherContract"]


class EventDispatcherContract(ABC):
    """The contract of every event dispatcher, as tests: one a law (``pytest -k R1``), and one of everything together.

    ::

        class TestMyDispatcher(EventDispatcherContract):
            guarantees = Guarantees(
                blocks_caller=True, retries=0, delivery=Delivery.AT_MOST_ONCE, ordering=Ordering.FIFO,
            )

            @contextmanager
            def subject(self, handlers, on_failure):
                yield MyDispatcher(handlers, on_failure=on_failure)

    A law's test cannot be passed by leaving it out: one that is overridden, skipped or deselected is reported as *could
    not run*.

    Attributes:
        guarantees: what the dispatcher declares.
        needs_loop: whether it is to be built and driven inside a running event loop.
        settle_timeout: how many seconds to wait for what was accepted.
        target: ``"module:factory"``, importable in a fresh process, for the law that kills processes: see
            :mod:`eventpact_contracts.crash.crashes`.
        known_violations: the IDs of laws that are violated for now, each with the reason. Their tests are expected to
            fail, and fail if they do not.

    A class may also have a method ``unavailable()``: a context manager in which the engine cannot be reached (a broker
    that is stopped, say), so that laws A2 and A5 see what ``dispatch`` does then.
    """

    guarantees: ClassVar[Guarantees]
    needs_loop: ClassVar[bool] = False
    settle_timeout: ClassVar[float] = 5.0
    target: ClassVar[str | None] = None
    known_violations: ClassVar[Mapping[str, str]] = {}
    contract_class: ClassVar[type[Any]]
    contract_of: ClassVar[str] = "dispatcher"

    def subject(
        self,
        handlers: Handlers,  # noqa: ARG002 - for those who override it
        on_failure: FailureSink,  # noqa: ARG002
    ) -> AbstractContextManager[EventDispatcher]:
        """A context manager that yields a fresh dispatcher; what leaves it is torn down. Called as often as needed.

        ``handlers`` maps event types to a handler or a list of handlers; ``on_failure`` is the failure sink.
        """
        raise CouldNotRunError(
            f"{type(self).__qualname__} does not say how to open a dispatcher; give it\n\n"
            "    @contextmanager\n"
            "    def subject(self, handlers, on_failure):\n"
            "        yield MyDispatcher(handlers, on_failure=on_failure)"
        )

    def test_everything_together(self, request: pytest.FixtureRequest) -> None:
        """What becomes of every event is what an independent model says, whatever happens meanwhile."""
        result = LawResult(EVERYTHING, "laws together", Outcome.UPHELD, 0, 0, "", 0.0)
        try:
            check_against_model(self, seed=request.config.stash[RUN].seed)
        except CouldNotRunError as error:
            result = could_not_run(EVERYTHING, "laws together", str(error))
        except AssertionError as error:
            result = replace(result, outcome=Outcome.VIOLATED, detail=str(error))
        conclude(self, request, result)

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        cls.contract_class = cls
        for law_id in cls.known_violations:
            if wrong := unknown_law(law_id):
                raise TypeError(f"{cls.__qualname__}.known_violations: {wrong}")
        for law in LAWS:
            name = _test_name(law)
            if getattr(cls, name) is not _TESTS[name]:
                setattr(cls, name, _overridden(law, name))


def _keep_open(test: EventDispatcherContract, request: pytest.FixtureRequest) -> None:
    """A dispatcher that is slow to open is opened once for all tests of the class, and closed after the last."""
    class_node = request.node.getparent(pytest.Class)
    if class_node is not None and not is_opened(test):
        keeping = ExitStack()
        keeping.enter_context(opened(test))
        class_node.addfinalizer(keeping.close)


def _test_name(law: Law) -> str:
    return f"test_{law.id}_{law.title.replace(' ', '_')}"


def _law_test(law: Law) -> Callable[..., None]:
    def test(self: EventDispatcherContract, request: pytest.FixtureRequest) -> None:
        with suppress(CouldNotRunError):  # check says so
            _keep_open(self, request)
        run = request.config.stash[RUN]
        conclude(self, request, check(law, self, examples=run.examples, seed=run.seed))

    test.__name__ = _test_name(law)
    test.__qualname__ = f"EventDispatcherContract.{test.__name__}"
    test.__doc__ = law.promise
    return test


def _overridden(law: Law, name: str) -> Callable[..., None]:
    def test(self: EventDispatcherContract) -> None:
        pytest.fail(
            f"law {law.id} ({law.title}) could not run: {type(self).__qualname__} overrides {name}. Take that away: a"
            " law is not checked by another test. What a dispatcher does not promise, its guarantees say.",
            pytrace=False,
        )

    test.__name__ = name
    return test


_TESTS: dict[str, Callable[..., None]] = {_test_name(law): _law_test(law) for law in LAWS}

for _name, _test in _TESTS.items():
    setattr(EventDispatcherContract, _name, _test)
