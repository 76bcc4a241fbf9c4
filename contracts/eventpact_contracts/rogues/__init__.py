"""The known-bad gallery: dispatchers that are broken on purpose, each with the law that must convict it.

To see a violation, verify one: ``eventpact verify eventpact_contracts.rogues:forgetful``.
``python -m eventpact_contracts.rogues`` checks them all, and prints laws by rogues.
"""

from __future__ import annotations

# Importing a chapter registers its rogues.
from eventpact_contracts.rogues import (  # noqa: F401
    acceptance,
    concurrency,
    guarantees,
    handlers,
    isolation,
    lifecycle,
    reporting,
    routing,
    threads,
)
from eventpact_contracts.rogues.rogue import Rogue, registered

__all__ = ["ROGUES", "Rogue"]

ROGUES: tuple[Rogue, ...] = registered()
"""All of them."""


def __getattr__(name: str) -> Rogue:
    """Each rogue by its name, for the command line."""
    for rogue in ROGUES:
        if rogue.name == name:
            return rogue
    raise AttributeError(f"there is no rogue {name}; there are {', '.join(rogue.name for rogue in ROGUES)}")
