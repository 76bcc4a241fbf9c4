"""Facts of a run that every report states: seed, examples, versions, platform and time."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, packages_distributions, version

from eventpact_contracts.checking.outcomes import CONTRACT_VERSION

__all__ = ["RunFacts", "version_of"]


@cache
def version_of(module: str) -> str | None:
    """The version of the distribution that a module belongs to; None for a module of no distribution."""
    package = module.partition(".")[0]
    if not package:
        return None
    # Most distributions are named like their package; to find another one reads the file lists of all.
    with suppress(PackageNotFoundError):
        return version(package)
    for distribution in packages_distributions().get(package, ()):
        with suppress(PackageNotFoundError):
            return version(distribution)
    return None


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class RunFacts:
    """The facts of one run.

    Attributes:
        seed: the number that repeats the run.
        examples: the number of examples a law that was asked for.
        again: the command line that repeats the run.
        kit: the version of this kit.
    """

    seed: int
    examples: int
    again: str = ""
    time: datetime = field(default_factory=_now)
    contract_version: str = CONTRACT_VERSION
    python: str = field(default_factory=platform.python_version)
    platform: str = field(default_factory=platform.platform)

    kit: str | None = field(default_factory=partial(version_of, "eventpact"))
