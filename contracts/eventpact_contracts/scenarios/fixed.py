"""Scripts that every run plays: too large to be drawn often, or what a law is about, where few are drawn."""

from __future__ import annotations

from eventpact.domain.events import DomainEvent
from eventpact_contracts.scenarios import cast
from eventpact_contracts.scenarios.cast import ROLES, is_async
from eventpact_contracts.scenarios.scenario import (
    ALWAYS,
    AwaitReturned,
    AwaitStarted,
    Behaviour,
    Caller,
    Close,
    Dispatch,
    Flood,
    Planned,
    Release,
    Script,
    Setting,
    Step,
)
from eventpact_contracts.scenarios.strategies.closing import let_go_late
from eventpact_contracts.scenarios.strategies.parts import in_turn

__all__ = [
    "musts",
]


def musts(law: str, setting: Setting) -> tuple[Script, ...]:
    """Scripts that a law is judged by in every run, before those that are drawn."""
    if law == "C2":
        return tuple(
            Script((Planned(kind, chain=setting.depth),), (in_turn(1),)) for kind in (cast.Placed, cast.Priced)
        )
    if law == "L1":
        # A plain handler cannot be cancelled, so closing has to leave without it, whatever becomes of it.
        scripts = [
            *(_held_too_long(cast.Placed, "plain", Behaviour(held=True, fails=fails)) for fails in (0, ALWAYS)),
            # It ends in the second of grace, when the handlers behind it are not to have their turn any more.
            let_go_late("plain", [], inside=False),
        ]
        if setting.guarantees.blocks_caller and not setting.needs_loop:
            # The failure sink has the caller's thread to itself: what it was told of is settled, and nothing else is.
            told = Behaviour(fails=ALWAYS, report_held=True)
            scripts += [_held_too_long(kind, "plain", told) for kind in (cast.Placed, cast.Paid)]
            scripts.append(let_go_late(ROLES[cast.Paid][-1], [], inside=False, behaviour=told))
        return tuple(scripts)
    if law in ("A2", "A5"):
        held_up = Planned(cast.Paid, behaviours={role: Behaviour(held=True) for role in ROLES[cast.Paid]})
        scripts = []
        if setting.quick and not setting.guarantees.blocks_caller:
            # Should it block its caller all the same, the caller gets free, and the flood ends: law G1 has its say.
            rescuer = Caller((AwaitStarted(0), AwaitReturned(0, 1.0), Release(0)), thread=True)
            scripts.append(Script((held_up,), (Caller((Flood(0, 2_600),)), rescuer), inside_loop=True, close=True))
        if setting.needs_loop:
            scripts.append(Script((Planned(cast.Priced),), (in_turn(1),), loop_gone=True, close=True))
        scripts.append(Script((Planned(cast.Paid),), (in_turn(1),), unavailable=True))
        return tuple(scripts)
    if law in ("I1", "I2", "I3"):
        # One handler of each kind fails beside one that does not, and before another event.
        failing = {role: Behaviour(fails=ALWAYS) for role in ROLES[cast.Paid][:2]}
        script = Script((Planned(cast.Paid, behaviours=failing), Planned(cast.Placed)), (in_turn(2),))
        # An exception that a future cannot carry, and a generator takes for its end.
        stopping = Planned(cast.Placed, behaviours={"plain": Behaviour(fails=ALWAYS, how="StopIteration")})
        stopped = Script((stopping, Planned(cast.Placed)), (in_turn(2),))
        return (script, stopped) if law == "I1" else (script, stopped, *map(_interrupted, ROLES[cast.Paid][:2]))
    if law == "G4" and setting.guarantees.retries:
        # What failed comes again behind what came after it, unless the engine makes the others wait.
        fails = Planned(cast.Placed, behaviours={"plain": Behaviour(fails=1)})
        return (Script((fails, Planned(cast.Placed)), (in_turn(2),)),)
    return ()


def _held_too_long(kind: type[DomainEvent], role: str, behaviour: Behaviour) -> Script:
    """One handler, or the report of its failure, is held until closing has ended."""
    steps: tuple[Step, ...] = (AwaitStarted(0), Close(0.02), Release(0))
    planned = Planned(kind, behaviours={role: behaviour})
    return Script((planned,), (Caller((Dispatch(0),), thread=True), Caller(steps)), close=True)


def _interrupted(role: str) -> Script:
    """One handler is interrupted beside those that are not, and before another event."""
    how = "CancelledError" if is_async(role) else "KeyboardInterrupt"
    broken_off = Planned(cast.Paid, behaviours={role: Behaviour(fails=ALWAYS, how=how)})
    return Script((broken_off, Planned(cast.Placed)), (in_turn(2),))
