"""What the suite does to a dispatcher, as data.

A :class:`Script` is a play for the fixed :mod:`.cast`: callers take steps, and each event says how
its handlers behave when they receive it. It says nothing about what ought to happen: that is for the laws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from eventpact.domain.dispatcher import Guarantees
from eventpact.domain.events import DomainEvent
from eventpact_contracts.driver.scheduled_loop import Schedule
from eventpact_contracts.scenarios.invalid import Impossible

__all__ = [
    "ALWAYS",
    "AwaitBegun",
    "AwaitClosed",
    "AwaitReturned",
    "AwaitStarted",
    "Behaviour",
    "Caller",
    "Close",
    "CollectGarbage",
    "Dispatch",
    "DispatchJunk",
    "Flood",
    "Planned",
    "Release",
    "Script",
    "Setting",
    "Step",
]

ALWAYS: Final = -1
"""As a number of failures: every attempt fails."""


@dataclass(frozen=True)
class Setting:
    """What the strategies have to know about the dispatcher."""

    guarantees: Guarantees
    needs_loop: bool = False
    depth: int = 2_000
    """How deep a cascade may be: less where an event takes milliseconds."""
    quick: bool = True
    """Whether thousands of events are no trouble."""


@dataclass(frozen=True)
class Behaviour:
    """What one handler does with one event.

    Attributes:
        fails: how many attempts fail; :data:`ALWAYS` for all.
        how: the name of what it raises.
        held: whether it waits until the script lets it go on.
        report_held: whether the failure sink does so, when this is reported to it.
        pauses: how often an ``async def`` handler gives way before it ends.
        spawns: what it dispatches in turn.
    """

    fails: int = 0
    how: str = "ValueError"
    held: bool = False
    report_held: bool = False
    pauses: int = 0
    spawns: tuple[Planned, ...] = ()


@dataclass(frozen=True)
class Planned:
    """An event that will be dispatched.

    Attributes:
        kind: its type.
        values: its fields, save the ``event_id``, which is always new.
        behaviours: what its handlers do, by role; what is not mentioned succeeds.
        chain: how many more events of its type follow from it, each dispatched by the handler of the one before.
    """

    kind: type[DomainEvent]
    values: Mapping[str, Any] = field(default_factory=dict)
    behaviours: Mapping[str, Behaviour] = field(default_factory=dict)
    chain: int = 0

    def __repr__(self) -> str:
        said = [f"{name}={value!r}" for name, value in self.values.items()]
        said += [f"{role}: {behaviour!r}" for role, behaviour in self.behaviours.items()]
        said += [f"chain={self.chain}"] if self.chain else []
        return f"{self.kind.__name__}({', '.join(said)})"


@dataclass(frozen=True)
class Dispatch:
    """Dispatch event number ``event`` of the script."""

    event: int


@dataclass(frozen=True)
class DispatchJunk:
    """Dispatch what is no event: number ``junk`` of :data:`eventpact_contracts.scenarios.invalid.JUNK`."""

    junk: int


@dataclass(frozen=True)
class Flood:
    """Dispatch copies of event number ``event`` until one is refused, ``limit`` at most."""

    event: int
    limit: int


@dataclass(frozen=True)
class AwaitStarted:
    """Wait until a held handler, or a held failure sink, has received event number ``event``."""

    event: int


@dataclass(frozen=True)
class AwaitReturned:
    """Wait until dispatching event number ``event`` has returned, ``seconds`` at most; either is fine."""

    event: int
    seconds: float | None = None


@dataclass(frozen=True)
class AwaitBegun:
    """Wait until closing has begun."""


@dataclass(frozen=True)
class AwaitClosed:
    """Wait until closing has ended."""


@dataclass(frozen=True)
class Release:
    """Let the held handlers, and the held failure sink, of event number ``event`` go on."""

    event: int


@dataclass(frozen=True)
class CollectGarbage:
    """Let the interpreter take away what nobody refers to."""


@dataclass(frozen=True)
class Close:
    """``aclose(timeout)``."""

    timeout: float


Step = (
    Dispatch
    | DispatchJunk
    | Flood
    | AwaitStarted
    | AwaitReturned
    | AwaitBegun
    | AwaitClosed
    | CollectGarbage
    | Release
    | Close
)


@dataclass(frozen=True)
class Caller:
    """One who takes steps, one after the other.

    Attributes:
        steps: the steps.
        thread: whether it is a thread of its own, also where the others are tasks of an event loop.
    """

    steps: tuple[Step, ...]
    thread: bool = False


@dataclass(frozen=True)
class Script:
    """What is done to a dispatcher in one run.

    Attributes:
        events: the events, which steps name by number.
        callers: who does what, all at once.
        inside_loop: whether the callers run inside an event loop, where the dispatcher does not need one.
        sink_raises: whether the failure sink raises.
        impossible: build a dispatcher with this, and do nothing more.
        close: whether it is about closing, so that it needs a dispatcher of its own.
        leftovers: whether to look for what is left behind.
        schedule: the order in which ready tasks run.
        releases: where there are no tasks whose order could be chosen: the order in which held handlers go on.
        loop_gone: whether the events are dispatched when the dispatcher's event loop is closed.
        unavailable: whether they are dispatched while the engine is unavailable.
    """

    events: tuple[Planned, ...] = ()
    callers: tuple[Caller, ...] = ()
    inside_loop: bool = False
    sink_raises: bool = False
    impossible: Impossible | None = None
    close: bool = False
    leftovers: bool = False
    schedule: Schedule | None = None
    releases: tuple[int, ...] = ()
    loop_gone: bool = False
    unavailable: bool = False

    @property
    def cannot_accept(self) -> str:
        """Why the dispatcher may have to refuse, in words, other than that it closes; empty if it need not."""
        if self.loop_gone:
            return "a loop that is closed"
        if self.unavailable:
            return "an engine that is unavailable"
        limits = [step.limit for caller in self.callers for step in caller.steps if isinstance(step, Flood)]
        return f"a flood of {max(limits):,} events" if limits else ""

    @property
    def size(self) -> tuple[int, int]:
        """How much there is to read: scripts are shrunk by this."""
        return len(self.events) + sum(len(caller.steps) for caller in self.callers), len(repr(self))
