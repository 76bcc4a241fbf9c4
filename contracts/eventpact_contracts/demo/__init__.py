"""``eventpact demo``: every dispatcher at work in real processes, with failures, and killed half-way."""

from eventpact_contracts.demo.run import main

__all__ = ["main"]
