"""A PostgreSQL server that has fallen silent is taken for gone."""

from __future__ import annotations

from typing import Any, Final

import psycopg

__all__ = ["STATEMENT_SECONDS", "BoundedConnection"]

STATEMENT_SECONDS: Final = 5.0
"""How long a server lets a statement run."""

_SILENCE: Final = STATEMENT_SECONDS + 1.0
"""A server that lives has answered by then, if only that it has given up."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection on which nobody waits for ever: a server may be frozen, or the network be cut without a word."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for the server, as every statement does.

        Raises:
            psycopg.OperationalError: the connection is broken, or the server was silent for too long.
        """
        try:
            return super().wait(gen, interval, _SILENCE if timeout is None else timeout)
        except psycopg.OperationalError:
            self.pgconn.finish()  # whatever it would still answer is not for the next statement
            raise
