"""The handlers and the failure sink that every dispatcher is built with.

They never change, and the record never goes through the dispatcher: a handler writes down what it receives before
anything else.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from eventpact.domain.dispatcher import FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact_contracts.driver.gates import Gate, Pause
from eventpact_contracts.driver.recorder import Run, id_of
from eventpact_contracts.scenarios.cast import ROLES, is_async

__all__ = ["STAGE", "Actor", "AsyncActor", "Stage"]


@dataclass(eq=False)
class Actor:
    """A plain handler."""

    stage: Stage
    name: str

    def handle(self, event: DomainEvent) -> None:
        try:
            for obstacle in self.stage.act(event, self.name):
                obstacle.block()
        except RuntimeError as error:
            # What it does is told by a generator, which cannot raise StopIteration.
            if isinstance(error.__cause__, StopIteration):
                raise error.__cause__ from None
            raise

    def __repr__(self) -> str:
        return f"<handler {self.name}>"


@dataclass(eq=False)
class AsyncActor:
    """An ``async def`` handler."""

    stage: Stage
    name: str

    async def handle(self, event: DomainEvent) -> None:
        acting = self.stage.act(event, self.name)
        try:
            obstacle = next(acting)
            while True:
                try:
                    await obstacle.wait()
                except BaseException as interruption:  # noqa: BLE001 - goes on inside
                    obstacle = acting.throw(interruption)
                else:
                    obstacle = next(acting)
        except StopIteration:
            return

    def __repr__(self) -> str:
        return f"<async handler {self.name}>"


class Stage:
    """The handlers and the failure sink that every dispatcher is built with; they find the run that an event is of."""

    def __init__(self) -> None:
        made: dict[type[DomainEvent], Any] = {}
        for kind, roles in ROLES.items():
            names = [f"{kind.__name__}.{role}" for role in roles]
            actors = [(AsyncActor if is_async(name) else Actor)(self, name) for name in names]
            # Both forms that a registration may have.
            made[kind] = actors[0] if len(actors) == 1 else actors
        self.handlers: Mapping[type[DomainEvent], Any] = made
        self.run: Run | None = None
        self._runs: dict[str, Run] = {}

    def begin(self, run: Run) -> None:
        """Play ``run`` from now on."""
        self.run = run

    def end(self, run: Run) -> None:
        """Let go of whatever is held in it, and write down nothing more."""
        run.end()
        if self.run is run:
            self.run = None

    def knows(self, event: str, run: Run) -> None:
        """The event of this ID is of this run."""
        self._runs[event] = run

    def forget(self) -> None:
        """Let go of all that is over."""
        self._runs = {event: run for event, run in self._runs.copy().items() if not run.over}

    def act(self, event: DomainEvent, handler: str) -> Generator[Gate | Pause]:
        """What a handler does."""
        run = self._runs.get(id_of(event)) or self.run
        if run is not None:
            yield from run.act(event, handler)

    def on_failure(self, failed: FailedDelivery) -> None:
        """The failure sink."""
        run = self._runs.get(id_of(getattr(failed, "event", None))) or self.run
        if run is not None:
            run.reported(failed)


STAGE: Final = Stage()
"""The one of this process, so that an engine that is slow to start can serve all dispatchers that are built."""
