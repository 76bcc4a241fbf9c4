"""The laws of CONTRACT.md, each as one object: its words, its scripts, its judge."""

from __future__ import annotations

from eventpact_contracts.laws.acceptance import ACCEPTANCE
from eventpact_contracts.laws.concurrency import CONCURRENCY
from eventpact_contracts.laws.guarantees import GUARANTEES
from eventpact_contracts.laws.isolation import ISOLATION
from eventpact_contracts.laws.law import Law
from eventpact_contracts.laws.lifecycle import LIFECYCLE
from eventpact_contracts.laws.routing import ROUTING

__all__ = ["LAWS", "Law"]

LAWS: tuple[Law, ...] = (*ROUTING, *ISOLATION, *ACCEPTANCE, *CONCURRENCY, *LIFECYCLE, *GUARANTEES)
"""Every law, in CONTRACT.md's order."""
