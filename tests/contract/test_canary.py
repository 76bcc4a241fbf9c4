"""The canary of law G3: what shows that nothing is lost would show it if something were."""

import pytest

from eventpact.domain.dispatcher import Delivery, Guarantees, Ordering
from eventpact_contracts.checking.check import check
from eventpact_contracts.checking.outcomes import Outcome
from eventpact_contracts.laws import LAWS
from eventpact_contracts.subjects.outbox import without_sweeper

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class WithoutSweeper:
    guarantees = Guarantees(blocks_caller=False, retries=2, delivery=Delivery.AT_LEAST_ONCE, ordering=Ordering.NONE)
    settle_timeout = 3.0
    target = "eventpact_contracts.subjects.outbox:without_sweeper"
    subject = staticmethod(without_sweeper)


def test_an_outbox_without_its_sweeper_is_seen_to_lose_events() -> None:
    [law] = [law for law in LAWS if law.id == "G3"]
    result = check(law, WithoutSweeper(), examples=30, seed=1)
    assert result.outcome is Outcome.VIOLATED
    assert "lost" in result.detail
