"""An outbox keeps the contract, and promises at least once over dispatchers that do not."""

from contextlib import AbstractContextManager

import pytest

from eventpact.domain.dispatcher import Delivery, EventDispatcher, FailureSink, Guarantees, Handlers, Ordering
from eventpact_contracts import EventDispatcherContract
from eventpact_contracts.checking.check import check
from eventpact_contracts.checking.outcomes import Outcome
from eventpact_contracts.laws import LAWS
from eventpact_contracts.subjects.outbox import outbox, over_sync

GUARANTEES = Guarantees(blocks_caller=False, retries=0, delivery=Delivery.AT_LEAST_ONCE, ordering=Ordering.NONE)


class TestOutboxOverAsyncio(EventDispatcherContract):
    guarantees = GUARANTEES
    settle_timeout = 8.0
    target = "eventpact_contracts.subjects.outbox:outbox"

    def subject(self, handlers: Handlers, on_failure: FailureSink) -> AbstractContextManager[EventDispatcher]:
        return outbox(handlers, on_failure)

    def unavailable(self) -> AbstractContextManager[None]:
        return outbox.unavailable()


class TestOutboxOverSync(EventDispatcherContract):
    guarantees = GUARANTEES
    settle_timeout = 8.0
    target = "eventpact_contracts.subjects.outbox:over_sync"

    def subject(self, handlers: Handlers, on_failure: FailureSink) -> AbstractContextManager[EventDispatcher]:
        return over_sync(handlers, on_failure)

    def unavailable(self) -> AbstractContextManager[None]:
        return over_sync.unavailable()


class _WithoutSweeper(TestOutboxOverAsyncio):
    settle_timeout = 3.0
    target = "eventpact_contracts.subjects.outbox:without_sweeper"


def test_with_the_sweeper_off_the_loss_is_seen() -> None:
    """The canary: what shows that nothing is lost would show it if something were."""
    [law] = [law for law in LAWS if law.id == "G3"]
    result = check(law, _WithoutSweeper(), examples=30, seed=1)
    assert result.outcome is Outcome.VIOLATED
    assert "lost" in result.detail


pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
