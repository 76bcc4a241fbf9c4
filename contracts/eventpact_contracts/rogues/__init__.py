"""The known-bad gallery: dispatchers that are broken on purpose, each with the law that must convict it.

Whoever wants to see what a violation looks like, verifies one:
``eventpact verify eventpact_contracts.rogues:forgetful``.
``python -m eventpact_contracts.rogues`` checks them all, and prints laws by rogues.
"""

from __future__ import annotations

from eventpact_contracts.rogues.acceptance import ACCEPTANCE
from eventpact_contracts.rogues.concurrency import CONCURRENCY
from eventpact_contracts.rogues.crashing import CRASHING
from eventpact_contracts.rogues.guarantees import GUARANTEES
from eventpact_contracts.rogues.isolation import ISOLATION
from eventpact_contracts.rogues.lifecycle import LIFECYCLE
from eventpact_contracts.rogues.rogue import Rogue
from eventpact_contracts.rogues.routing import ROUTING

__all__ = ["ROGUES", "Rogue"]

ROGUES: tuple[Rogue, ...] = (*ROUTING, *ISOLATION, *ACCEPTANCE, *CONCURRENCY, *LIFECYCLE, *GUARANTEES, *CRASHING)
"""All of them."""


def __getattr__(name: str) -> Rogue:
    """Each rogue by its name, for the command line."""
    for rogue in ROGUES:
        if rogue.name == name:
            return rogue
    raise AttributeError(f"there is no rogue {name}; there are {', '.join(rogue.name for rogue in ROGUES)}")
