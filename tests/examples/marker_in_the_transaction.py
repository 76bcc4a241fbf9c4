"""An idempotent handler by a marker: the event's ID is a unique row in the transaction of the handler's own change.

Either both are committed or neither is. A second delivery meets the marker and changes nothing; one that comes at the
same time waits for the first, because the key is unique.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from eventpact.domain.events import DomainEvent


@dataclass(frozen=True, kw_only=True)
class GoodsSold(DomainEvent):
    article: str
    pieces: int


class StockHandler:
    """Takes sold goods off the stock."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect

    def handle(self, event: GoodsSold) -> None:
        with closing(self._connect()) as connection, connection:
            marker = "INSERT INTO handled (event_id) VALUES (?) ON CONFLICT DO NOTHING"
            if connection.execute(marker, (str(event.event_id),)).rowcount == 0:
                return
            change = "UPDATE stock SET pieces = pieces - ? WHERE article = ?"
            connection.execute(change, (event.pieces, event.article))
