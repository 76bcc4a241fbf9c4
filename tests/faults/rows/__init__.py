"""The rows of the matrix, by what they harm."""

from faults.rows import broker, clock, database, load, messages, smtp, web, worker

__all__ = ["broker", "clock", "database", "load", "messages", "smtp", "web", "worker"]
