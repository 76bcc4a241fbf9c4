"""The laws of CONTRACT.md, one file a chapter, one block a law."""

from __future__ import annotations

from eventpact_contracts.laws import acceptance, concurrency, guarantees, isolation, lifecycle, routing
from eventpact_contracts.laws.law import Law, registered

__all__ = ["LAWS", "Law", "acceptance", "concurrency", "guarantees", "isolation", "lifecycle", "routing"]

LAWS: tuple[Law, ...] = registered()
"""Every law of dispatchers, in CONTRACT.md's order."""
