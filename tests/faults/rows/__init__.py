"""The rows of the matrix, by the part that they harm."""

from faults.rows import broker, clock, database, edge, load, messages, outbox, pairs, smtp, web, worker

__all__ = ["broker", "clock", "database", "edge", "load", "messages", "outbox", "pairs", "smtp", "web", "worker"]
