"""Verification codes: derived from an event, kept as a digest."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final
from uuid import UUID

__all__ = ["ALPHABET", "LENGTH", "CodeMaker"]

ALPHABET: Final = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""What is not mistaken for one another when it is read aloud or copied: no 0, O, 1, I, L."""

LENGTH: Final = 8
"""39 bits; OWASP ASVS 5.0 asks for 20 (6.5.4), and for a limit on attempts (6.6.3)."""


class CodeMaker:
    """Derives codes and their digests from a server secret.

    Args:
        secret: at least 32 bytes that only the servers know.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def code(self, event_id: UUID) -> str:
        """The code that belongs to an event, the same on every server."""
        number = int.from_bytes(self._mac(b"code", event_id.bytes))
        letters = []
        for _ in range(LENGTH):
            number, rest = divmod(number, len(ALPHABET))
            letters.append(ALPHABET[rest])
        return "".join(letters)

    def digest(self, account_id: str, code: str) -> str:
        """What is stored of a code, which does not tell the code even to a reader of the database."""
        normal = code.strip().upper()
        return self._mac(b"digest", account_id.encode(), normal.encode("utf-8", "surrogatepass")).hex()

    def _mac(self, *parts: bytes) -> bytes:
        return hmac.digest(self._secret, b"\x00".join(parts), hashlib.sha256)
