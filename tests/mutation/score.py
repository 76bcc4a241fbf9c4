"""From outcomes of mutants to scores: by the whole suite, by the contract alone, with and without what is explained."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["KILLED", "Explained", "Mutant", "Score", "by_contract", "by_suite", "function_of", "load_explained"]

_EXPLAINED: Final = Path(__file__).with_name("explained.toml")
KILLED: Final = frozenset({"killed", "timeout"})
"""mutmut's words; a mutant that hangs is one that somebody would notice."""


@dataclass(frozen=True)
class Mutant:
    """One change, and what each stage of its scope made of it."""

    name: str
    scope: str
    outcomes: Mapping[str, str]
    was: str = ""
    becomes: str = ""


@dataclass(frozen=True)
class Explained:
    """A survivor, and why it may live: it does the same, or (for the contract alone) breaks no promise.

    Attributes:
        function: where it is, with its module.
        becomes: the text of the changed lines, single-spaced.
        reason: why no test tells it from the original.
        contract_only: tests of the suite do tell it; no law promises what it breaks.
    """

    function: str
    becomes: str
    reason: str
    contract_only: bool = False


@dataclass(frozen=True)
class Score:
    killed: int
    survived: int
    explained: int

    @property
    def total(self) -> int:
        return self.killed + self.survived

    @property
    def share(self) -> float:
        """Of all mutants, the killed."""
        return self.killed / self.total if self.total else 1.0

    @property
    def share_of_rest(self) -> float:
        """Of the mutants that are not explained, the killed."""
        rest = self.total - self.explained
        return self.killed / rest if rest else 1.0

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "share": round(self.share, 4), "share_of_rest": round(self.share_of_rest, 4)}


def function_of(mutant: str) -> str:
    """``module.Class.method`` of mutmut's name of a mutant."""
    module, _, name = mutant.partition("__mutmut_")[0].rpartition(".")
    return f"{module}.{'.'.join(name.split('ǁ')[1:]) or name.removeprefix('x_')}"


def load_explained(path: Path = _EXPLAINED) -> list[Explained]:
    """The list of survivors that may live."""
    return [Explained(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("survivor", [])]


def by_suite(mutants: Iterable[Mutant], explained: Sequence[Explained]) -> Score:
    """What any test has killed of the mutants that went through a stage."""
    return _score(mutants, lambda mutant: mutant.outcomes, [each for each in explained if not each.contract_only])


def by_contract(mutants: Iterable[Mutant], explained: Sequence[Explained]) -> Score:
    """What the contract class of a dispatcher has killed of the mutants of that dispatcher, with no other test."""
    ours = [mutant for mutant in mutants if "contract" in mutant.outcomes]
    return _score(ours, lambda _: ["contract"], explained)


def _score(
    mutants: Iterable[Mutant], stages: Callable[[Mutant], Iterable[str]], explained: Sequence[Explained]
) -> Score:
    known = {(each.function, each.becomes) for each in explained}
    killed = survived = listed = 0
    for mutant in mutants:
        outcomes = {mutant.outcomes[stage] for stage in stages(mutant)}
        if outcomes & KILLED:
            killed += 1
        elif outcomes != {"not checked"}:  # what a later stage might have killed counts as alive until it has run
            survived += 1
            listed += (function_of(mutant.name), mutant.becomes) in known
    return Score(killed, survived, listed)
