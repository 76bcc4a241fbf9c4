"""Messages that this process cannot decode. They are reported and stored, never dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["UnreadableMessage", "UnreadableSink"]


@dataclass(frozen=True, slots=True)
class UnreadableMessage:
    """A message that no handler can receive.

    Attributes:
        reason: why, without quoting the message.
        name: the task or event type that it names, if it names one.
        message_id: the event's id, if it has one.
        content: the body, as it came. It may hold an address.
        content_type: of the body.
        handlers: the keys of the handlers that it was for, where that is known.
    """

    reason: str
    name: str | None
    message_id: str | None
    content: bytes
    content_type: str | None
    handlers: tuple[str, ...] = ()


UnreadableSink = Callable[[UnreadableMessage], None]
"""Called once for each message. If it raises, the message stays where it is."""
