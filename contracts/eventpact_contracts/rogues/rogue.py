"""What an exhibit of the known-bad gallery is."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from eventpact.domain.dispatcher import EventDispatcher, FailureSink, Guarantees, Handlers
from eventpact_contracts.checking.outcomes import Outcome

__all__ = ["Rogue"]


@dataclass(frozen=True)
class Rogue:
    """A dispatcher that is known to be bad, and the law that must say so.

    It has the hooks that the laws are run through, and can be called as a factory, so that
    ``eventpact verify eventpact_contracts.rogues:forgetful`` shows what a verdict on it looks like.

    Attributes:
        name: what it is called.
        factory: builds it.
        guarantees: what it declares.
        convicted_by: the law that must convict it.
        message: a part of what that law says of it, as a regular expression.
        story: what it does wrong.
        also: the laws that may convict it too, each with the reason: in their words, they say the same.
        defect: which defect of well-known event buses it reproduces, if it does one.
        expected: what its law makes of it. A dispatcher that promises less than it keeps violates nothing; the law
            still has to notice.
        needs_loop: whether it runs on an event loop.
        settle_timeout: how many seconds the laws wait for what it accepted: short, since much of it never comes.
        target: where a fresh process finds it, for the laws that kill processes.
    """

    name: str
    factory: Callable[[Handlers, FailureSink], EventDispatcher]
    guarantees: Guarantees
    convicted_by: str
    message: str
    story: str
    also: Mapping[str, str] = field(default_factory=dict)
    defect: str = ""
    expected: Outcome = Outcome.VIOLATED
    needs_loop: bool = False
    settle_timeout: float = 1.0
    target: str | None = None

    def __call__(self, handlers: Handlers, on_failure: FailureSink) -> EventDispatcher:
        return self.factory(handlers, on_failure)

    @contextmanager
    def subject(self, handlers: Handlers, on_failure: FailureSink) -> Generator[EventDispatcher]:
        """A fresh one."""
        yield self.factory(handlers, on_failure)

    def __str__(self) -> str:
        return self.name
