"""Forks: a child has a copy of every object, but none of the threads, and its parent's sockets are not its own."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["reset_in_children"]


class _Forkable(Protocol):
    def reset_after_fork(self) -> None:
        """Replace locks, which a missing thread may hold, and forget threads, connections and their work."""


_forkable: WeakSet[_Forkable] = WeakSet()


def reset_in_children(thing: _Forkable) -> None:
    """Have ``thing.reset_after_fork()`` called in each process that is forked from this one while ``thing`` lives."""
    _forkable.add(thing)


def _reset_all() -> None:
    for thing in list(_forkable):
        thing.reset_after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_reset_all)
