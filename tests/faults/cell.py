"""One cell: a column under a fault, repeated as often as is asked for, and its accounting."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from eventpact_contracts.demo.processes import DemoError
from faults.accounts import Balance
from faults.columns import Column
from faults.fault import Fault
from faults.world import FaultError, Options, World, opened

__all__ = ["BOUND", "Cell", "run_cell"]

BOUND: Final = 2.0
"""Seconds that a dispatch may take (law A5)."""

_GRACE_SECONDS: Final = 6.0
"""A column without a promise has so long to deliver the events that it had not lost."""

_UNPROMISED_ROUNDS: Final = 3
"""How often a column that promises nothing is killed: its losses are shown for comparison."""


@dataclass(frozen=True)
class Cell:
    """The result of one cell.

    Attributes:
        seed: reproduces it, with the names.
        promised: whether the column promises that no accepted event is lost.
        loud: whether a lost event is a complaint even without a promise.
        reason: why it was not run, or could not be played to its end.
        findings: complaints of the fault about something else than the accounting.
        recovery: the longest of the rounds, in seconds; None where something was never delivered.
        longest_dispatch: by the class of the dispatcher, in seconds.
        wrong_codes: codes of the last mails that do not verify.
    """

    fault: str
    column: str
    seed: int
    promised: bool
    loud: bool = False
    reason: str = ""
    not_run: bool = False
    findings: tuple[str, ...] = ()
    rounds: int = 0
    kills: int = 0
    seconds: float = 0.0
    balance: Balance | None = None
    recovery: float | None = None
    longest_dispatch: dict[str, float] | None = None
    wrong_codes: int = 0

    @property
    def complaints(self) -> list[str]:
        """The broken promises, in words."""
        if self.not_run:
            return []
        if self.reason or self.balance is None:
            return [self.reason]
        found = list(self.findings)
        if (self.promised or self.loud) and self.balance.lost:
            found.append(f"{self.balance.lost} accepted event(s) lost")
        if self.balance.phantoms:
            found.append(f"{self.balance.phantoms} mail(s) of refused sign-ups")
        if self.wrong_codes:
            found.append(f"{self.wrong_codes} mailed code(s) that do not verify")
        for name, longest in (self.longest_dispatch or {}).items():
            if longest > BOUND and name == "CeleryEventDispatcher":
                found.append(f"a dispatch took {longest:.2f} s")
        return found


def run_cell(
    fault: Fault,
    column: Column,
    seed: int,
    options: Options,
    *,
    kills: int = 1,
    own_broker: object = None,
    say: Callable[[str], None] = lambda text: None,
) -> Cell:
    """Play the fault to a fresh world of the column, judge, and leave nothing running."""
    started = time.monotonic()
    rounds = max(fault.rounds, kills if fault.kills else 1)
    if not column.promises:
        rounds = max(fault.rounds, min(rounds, _UNPROMISED_ROUNDS))
    world: World | None = None
    recoveries: list[float | None] = []
    reason = ""
    wrong = 0
    balance: Balance | None = None
    longest: dict[str, float] = {}
    try:
        with opened(
            column,
            options,
            f"{seed} {column.name} {fault.name}",
            own_broker=own_broker,
            breaks_broker=fault.breaks_broker,
            postgres=fault.postgres,
            embedded=fault.embedded,
        ) as world:
            for world.round in range(rounds):
                say(f"{fault.name} {column.name}: {world.round + 1} of {rounds}")
                recoveries.append(_recovered(world, fault.play(world)))
            _quiet(world)
            balance = world.ledger.balance(world.mail.mails, world.kept())
            wrong = _wrong_codes(world)
            longest = world.longest_dispatch()
            if fault.passing and column.outbox:
                world.expect(not balance.failed, f"{balance.failed} accepted event(s) failed, though the fault passed")
    except (FaultError, DemoError, OSError) as error:
        lines = str(error).strip().splitlines() or [""]
        reason = f"{type(error).__name__}: {lines[0]} {lines[-1] if len(lines) > 1 else ''}".strip()
    return Cell(
        fault.name,
        column.name,
        seed,
        column.promises,
        loud=fault.loud,
        reason=reason,
        findings=tuple(world.findings) if world else (),
        rounds=len(recoveries),
        kills=world.kills if world else 0,
        seconds=time.monotonic() - started,
        balance=balance,
        recovery=None if None in recoveries or not recoveries else max(each or 0.0 for each in recoveries),
        longest_dispatch=longest,
        wrong_codes=wrong,
    )


def _recovered(world: World, since: float) -> float | None:
    """Seconds until every accepted event was delivered or stored as failed; None if that did not come about."""
    patience = world.options.patience if world.column.promises else _GRACE_SECONDS
    if not world.comes_about(world.is_settled, patience):
        world.given_up |= world.accepted()
        return None
    return max(0.0, time.monotonic() - since)


def _quiet(world: World) -> None:
    """Let a last sign-up come through, and the outbox empty, so that duplicates have come."""
    last = world.sign_up(1, together=False, name="last")
    patience = world.options.patience if world.column.promises else _GRACE_SECONDS
    world.comes_about(lambda: {address for address, _ in world.mail.mails} >= set(last), patience)
    if world.column.outbox:
        world.comes_about(lambda: not world.evidence.pending() - world.poisoned, patience)


def _wrong_codes(world: World) -> int:
    """How many of the codes of the last mails do not verify."""
    statuses: dict[str, int] = {}

    def is_answered(address: str, code: str) -> bool:
        body = {"email": address, "code": code}
        statuses[address], _ = world.server.request("POST", "/accounts/verify", body)
        return statuses[address] != 503  # which says nothing about the code

    for address, code in dict(world.mail.mails).items():
        world.comes_about(lambda address=address, code=code: is_answered(address, code), 10)  # type: ignore[misc]
    return sum(status != 200 for status in statuses.values())
