"""The abstract test class for handlers: subclass it, and pytest checks laws H1 to H3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import pytest

from eventpact_contracts.checking.columns import ContractTests, each_law, run_law_test
from eventpact_contracts.handlers.check import check_handler
from eventpact_contracts.handlers.laws import HANDLER_LAWS, HandlerLaw
from eventpact_contracts.subjects.subject import CouldNotRunError

__all__ = ["HandlerContract"]

_HOOKS: Final = {
    "handler": "return MyHandler(...)  # on fresh, empty state",
    "event": "return SomethingHappened(...)",
    "state": "return ...  # what the handler changed, to be compared with ==",
}


class HandlerContract(ContractTests):
    """The contract of a handler that is delivered to at least once: handling an event again changes nothing.

    ::

        class TestInvoiceHandler(HandlerContract):
            def handler(self):
                self.store = Store("sqlite://")
                return InvoiceHandler(self.store)

            def event(self):
                return OrderPlaced(order_id="1")

            def state(self):
                return self.store.invoices()

    Each hook may be an ``async def``. ``handler`` may yield the handler from a context manager, which is left when its
    state has been compared.

    The attributes of the handler are taken for its ports. The suite interrupts the handler before and after each call
    to one, and at each ``await`` that waits.

    Attributes:
        needs_loop: whether a plain ``handle`` has to be called inside a running event loop.
        settle_timeout: how many seconds a call may take.
        known_violations: the IDs of laws that are violated for now, each with the reason.
    """

    contract_of = "handler"
    laws: ClassVar[Sequence[Any]] = HANDLER_LAWS

    def handler(self) -> Any:
        """A handler on fresh, empty state. Called once for each scenario."""
        raise _forgotten(self)

    def event(self) -> Any:
        """The event, or a Hypothesis strategy for events."""
        raise _forgotten(self)

    def state(self) -> Any:
        """The state that the newest handler changed; states are compared with ``==``.

        It leaves out times and identifiers that differ between two fresh states.
        """
        raise _forgotten(self)

    @each_law(HANDLER_LAWS)
    def test_law(self, law: HandlerLaw, request: pytest.FixtureRequest) -> None:
        """Handling an event again leaves the state that handling it once leaves."""
        run_law_test(self, request, law.id, _check)


def _forgotten(contract: HandlerContract) -> CouldNotRunError:
    """Name the hooks that a class lacks, and their code. None is abstract, as pytest ignores abstract classes."""
    kind = type(contract)
    missing = {name: body for name, body in _HOOKS.items() if getattr(kind, name) is getattr(HandlerContract, name)}
    hooks = "\n\n".join(f"    def {name}(self):\n        {body}" for name, body in missing.items())
    return CouldNotRunError(f"{kind.__qualname__} does not say {' and '.join(missing)}; give it\n\n{hooks}")


def _check(subject: HandlerContract, law_ids: list[str], examples: int, seed: int) -> list[Any]:
    laws = [law for law in HANDLER_LAWS if law.id in law_ids]
    return [check_handler(law, subject, examples=examples, seed=seed) for law in laws]
