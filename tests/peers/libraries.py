"""The libraries of the table, with their adapters and distributions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["LIBRARIES", "Library"]


@dataclass(frozen=True)
class Library:
    """One column of the table.

    Attributes:
        name: as the table calls it.
        target: its adapter, as ``module:class``.
        distributions: what has to be installed, the library first.
    """

    name: str
    target: str
    distributions: tuple[str, ...]

    @property
    def module(self) -> str:
        return self.target.partition(":")[0].rpartition(".")[2]


def _library(name: str, target: str, *distributions: str) -> Library:
    return Library(name, f"peers.adapters.{target}", distributions or (name,))


LIBRARIES: Final = (
    _library("blinker", "blinker:Blinker"),
    _library("pluggy", "pluggy:Pluggy"),
    _library("pyee", "pyee:Pyee"),
    _library("lato", "lato:Lato"),
    _library("pyee asyncio", "pyee_asyncio:PyeeAsyncio", "pyee"),
    _library("abxbus", "abxbus:Abxbus"),
    _library("pyventus", "pyventus:Pyventus"),
    _library("fastapi-events", "fastapi_events:FastapiEvents"),
    _library("dramatiq", "dramatiq:Dramatiq", "dramatiq", "redis"),
    _library("taskiq", "taskiq:Taskiq", "taskiq", "taskiq-redis"),
    _library("huey", "huey:Huey", "huey", "redis"),
    _library("celery", "celery:Celery", "celery", "redis"),
)
