"""Probes: the handlers and the failure sink that every dispatcher is built with.

A probe records an event that it receives before anything else, so that the record never goes through the dispatcher.
Probes are as various as the handlers of real programs; a role's name says which kind it is of.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, Final

from eventpact.domain.dispatcher import FailedDelivery
from eventpact.domain.events import DomainEvent
from eventpact_contracts.driver.gates import Obstacle, run_awaiting, run_blocking
from eventpact_contracts.driver.program import NEIGHBOUR, Program
from eventpact_contracts.driver.recorder import id_of
from eventpact_contracts.scenarios.events import ODD, ROLES, SHARED, is_async, is_awaitable, label_of
from eventpact_contracts.scenarios.scenario import Scenario

__all__ = ["PROBES", "SUBSCRIPTIONS", "Probe", "Probes", "subscriptions_in", "subscriptions_of"]


class _Base:
    """Part of every probe: its name, and its attempts."""

    owner = ""
    """Begins its name, where its dispatcher is not the only one."""

    def __init__(self, probes: Probes, role: str, kinds: tuple[type[DomainEvent], ...]) -> None:
        self.probes, self.role, self.kinds = probes, role, kinds

    def name_for(self, event: object) -> str:
        """The name of this probe as it receives the event: a shared one has a name for each type that it serves."""
        kind = type(event) if type(event) in self.kinds else self.kinds[0]
        return f"{self.owner}{label_of(kind)}.{self.role}"

    def attempt(self, event: DomainEvent) -> Generator[Obstacle, Any, object]:
        return self.probes.attempt(event, self.name_for(event))

    def __repr__(self) -> str:
        return f"<handler {self.name_for(None)}>"


class Probe(_Base):
    """A plain handler."""

    def handle(self, event: DomainEvent) -> Any:
        try:
            return run_blocking(self.attempt(event))
        except RuntimeError as error:
            # An attempt is a generator, which cannot raise StopIteration.
            if isinstance(error.__cause__, StopIteration):
                raise error.__cause__ from None
            raise


class AsyncProbe(_Base):
    """An ``async def`` handler."""

    async def handle(self, event: DomainEvent) -> Any:
        return await run_awaiting(self.attempt(event))


class AwaitableProbe(_Base):
    """A plain ``handle`` that returns a coroutine, as one that is decorated does."""

    def handle(self, event: DomainEvent) -> Awaitable[Any]:
        return run_awaiting(self.attempt(event))  # an attempt starts with the call

    async def run(self, event: DomainEvent) -> Any:
        return await run_awaiting(self.attempt(event))


class _Later:
    """An awaitable that is no coroutine, and is empty, as a group of nothing is. Unawaited, it leaves nothing."""

    def __init__(self, attempt: Any) -> None:
        self._attempt = attempt

    def __await__(self) -> Generator[Any, Any, Any]:
        return run_awaiting(self._attempt).__await__()

    def __len__(self) -> int:
        return 0


class _AwaitableObjectProbe(AwaitableProbe):
    """A plain ``handle`` that returns an awaitable of its own class."""

    def handle(self, event: DomainEvent) -> Awaitable[Any]:
        return _Later(self.attempt(event))


class _AtTimesProbe(AwaitableProbe):
    """A plain ``handle`` that returns an awaitable only where it has something to wait for."""

    def handle(self, event: DomainEvent) -> Any:
        return Probe.handle(self, event) if getattr(event, "number", 0) == 1 else super().handle(event)  # type: ignore[arg-type]


class _AsyncCall:
    """A callable object whose ``__call__`` is an ``async def``."""

    def __init__(self, run: Callable[[DomainEvent], Awaitable[Any]]) -> None:
        self._run = run

    async def __call__(self, event: DomainEvent) -> Any:
        return await self._run(event)


class _AwaitableCallProbe(AwaitableProbe):
    """An object whose ``handle`` is an attribute, and a callable object."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.handle = _AsyncCall(self.run)  # type: ignore[method-assign]  # it may be an attribute, too


class _AttributeProbe(_Base):
    """An object whose ``handle`` is an attribute: a partial of a function."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.handle = functools.partial(_handle, self)


def _handle(probe: _Base, event: DomainEvent) -> Any:
    return Probe.handle(probe, event)  # type: ignore[arg-type]  # it has everything that this needs


class _LentProbe(_Base):
    """An object whose ``handle`` is a method of another object."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.handle = Probe(*given).handle


class _Falsy:
    def __bool__(self) -> bool:
        return False


class _Empty:
    def __len__(self) -> int:
        return 0


class _Equal:
    """Equal to every other of its class, with the same hash."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Equal)

    def __hash__(self) -> int:
        return 7


class _Unhashable:
    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None  # type: ignore[assignment]  # as in every class that defines its own equality


class _EqualsAnything:
    """Equal to everything, as test doubles are."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 7


class _Callable:
    """Callable, with another meaning."""

    probes: Probes
    name_for: Callable[[object], str]

    def __call__(self, *_: object, **__: object) -> None:
        self.probes.called(self.name_for(None))


class _ListProbe(list[int], Probe):
    """A list that is a handler."""

    __hash__ = None  # type: ignore[assignment]  # as that of every list

    def __init__(self, probes: Probes, role: str, kinds: tuple[type[DomainEvent], ...]) -> None:
        list.__init__(self, (1, 2, 3))
        Probe.__init__(self, probes, role, kinds)

    __repr__ = _Base.__repr__


def _mixed(mixin: type, base: type[_Base]) -> type[_Base]:
    return type(f"{mixin.__name__}{base.__name__}", (mixin, base), {})


_SPECIAL: Final[dict[str, type[_Base]]] = {
    "plain_falsy": _mixed(_Falsy, Probe),
    "plain_empty": _mixed(_Empty, Probe),
    "plain_equal": _mixed(_Equal, Probe),
    "plain_unhashable": _mixed(_Unhashable, Probe),
    "plain_equals_anything": _mixed(_EqualsAnything, Probe),
    "plain_callable": _mixed(_Callable, Probe),
    "plain_list": _ListProbe,
    "plain_attribute": _AttributeProbe,
    "plain_lent": _LentProbe,
    "coroutine_falsy": _mixed(_Falsy, AsyncProbe),
    "coroutine_equal": _mixed(_Equal, AsyncProbe),
    "coroutine_callable": _mixed(_Callable, AsyncProbe),
    "awaitable_object": _AwaitableObjectProbe,
    "awaitable_call": _AwaitableCallProbe,
    "awaitable_at_times": _AtTimesProbe,
}
_SPECIAL["plain_equal_too"] = _SPECIAL["plain_equal"]
_SPECIAL["coroutine_equal_too"] = _SPECIAL["coroutine_equal"]


def _class_of(role: str, *, async_handlers: bool) -> type[_Base]:
    if not async_handlers and (is_async(role) or is_awaitable(role)):
        return Probe
    if role in _SPECIAL:
        return _SPECIAL[role]
    return AsyncProbe if is_async(role) else AwaitableProbe if is_awaitable(role) else Probe


def subscriptions_of(*, kinds: tuple[type[DomainEvent], ...] = tuple(ROLES)) -> tuple[tuple[str, str], ...]:
    """The subscriptions as a trace names them."""
    return tuple((label_of(kind), f"{label_of(kind)}.{role}") for kind in kinds for role in ROLES[kind])


SUBSCRIPTIONS: Final = subscriptions_of()
"""The subscriptions of a dispatcher, as a trace names them."""


def subscriptions_in(scenario: Scenario, *, usual: bool) -> tuple[tuple[str, str], ...]:
    """Those of the dispatchers of a scenario, with the usual handlers or with all."""
    kinds = tuple(ROLES) if scenario.only is None else scenario.only
    found = subscriptions_of(kinds=tuple(kind for kind in kinds if kind not in ODD or not usual))
    neighbours = ((NEIGHBOUR + kind, NEIGHBOUR + handler) for kind, handler in found if scenario.has_neighbour)
    return (*found, *neighbours)


class Probes:
    """The handlers and the failure sink of every dispatcher; they find the program that an event is of."""

    def __init__(self) -> None:
        self.program: Program | None = None
        self._programs: dict[str, Program] = {}
        self._kept: dict[tuple[bool, bool, bool, str], Mapping[type[DomainEvent], Any]] = {}
        self._over: set[str] = set()
        self._known: set[int] = set()

    def handlers(
        self, *, async_handlers: bool = True, usual: bool = False, empty: bool = False, owner: str = ""
    ) -> Mapping[type[DomainEvent], Any]:
        """The handlers that stay: an engine that is slow to start serves all dispatchers that are built with them."""
        which = async_handlers, usual, empty, owner
        if which not in self._kept:
            self._kept[which] = self.new_handlers(async_handlers=async_handlers, usual=usual, empty=empty, owner=owner)
        return self._kept[which]

    def new_handlers(
        self, *, async_handlers: bool = True, usual: bool = False, empty: bool = False, owner: str = ""
    ) -> dict[type[DomainEvent], Any]:
        """Handlers that nobody else knows: of every kind, or the usual ones; their names begin with ``owner``.

        Args:
            empty: whether a type without any is registered with an empty list.
        """
        made: dict[type[DomainEvent], Any] = {}
        shared: list[Any] = []
        for kind, roles in ROLES.items():
            if (usual and kind in ODD) or not (roles or empty):
                continue
            if kind in SHARED and shared:
                made[kind] = tuple(shared)
                continue
            kinds = SHARED if kind in SHARED else (kind,)
            several = [_class_of(role, async_handlers=async_handlers)(self, role, kinds) for role in roles]
            for each in several:
                each.owner = owner
            self._known.update(map(id, several))
            if kind in SHARED:
                shared = several
            # All forms that a registration may have.
            made[kind] = several[0] if len(several) == 1 else several
        return made

    def begin(self, program: Program) -> None:
        """Play this program from now on."""
        self.program = program

    def end(self, program: Program) -> None:
        """Release everything that is held in it, and record nothing more."""
        with program.recorder.conditions.lock:
            program.recorder.over = True
        program.release_all()
        if self.program is program:
            self.program = None
        over = [event for event, each in self._programs.copy().items() if each.recorder.over]
        self._over.update(over)
        for event in over:
            self._programs.pop(event, None)  # scenarios end at once, too

    def claim(self, event: str, program: Program) -> None:
        """Remember that the event of this ID is of this program."""
        self._programs[event] = program

    def attempt(self, event: DomainEvent, handler: str) -> Generator[Obstacle, Any, object]:
        """Start an attempt of a handler, and return the rest of it."""
        program = self._program_of(event)
        return _nothing() if program is None else program.attempt(event, handler)

    def _program_of(self, event: object) -> Program | None:
        """The program that an event is of: the present one, if nobody knows it; none, if its program is over."""
        known = id_of(event)
        return None if known in self._over else self._programs.get(known, self.program)

    def called(self, handler: str) -> None:
        """Record that a handler was called itself, instead of its ``handle``."""
        raise TypeError(f"{handler} was called, and is no function: call its handle")

    def on_failure(self, failed: FailedDelivery) -> None:
        """Record a failed delivery: this is the failure sink."""
        program = self._program_of(getattr(failed, "event", None))
        if program is not None:
            program.reported(failed, self._name_of)

    def _name_of(self, handler: object, event: object) -> str:
        return handler.name_for(event) if id(handler) in self._known and isinstance(handler, _Base) else ""


def _nothing() -> Generator[Obstacle, Any, object]:
    yield from ()
    return None


PROBES: Final = Probes()
"""The probes of this process, so that an engine that is slow to start can serve all dispatchers that are built."""
