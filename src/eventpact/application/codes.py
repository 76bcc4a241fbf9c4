"""Verification codes: derived from an event, stored as a digest."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final
from uuid import UUID

__all__ = ["ALPHABET", "LENGTH", "LINK_LENGTH", "CodeMaker"]

ALPHABET: Final = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Characters that are not mistaken for one another when they are read aloud or copied: no 0, O, 1, I, L."""

LENGTH: Final = 8
"""39 bits; OWASP ASVS 5.0 asks for 20 (6.5.4), and for a limit on attempts (6.6.3)."""

LINK_LENGTH: Final = 32
"""158 bits: too many to guess, so that this code needs no limit on attempts, which others could use up."""


class CodeMaker:
    """Derives codes and their digests from a server secret.

    Args:
        secret: at least 32 bytes that only the servers know.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def code(self, event_id: UUID) -> str:
        """Derive the code of an event, the same on every server."""
        return self._letters(b"code", event_id, LENGTH)

    def link_code(self, event_id: UUID) -> str:
        """Derive the code that stands in the link of the same mail."""
        return self._letters(b"link", event_id, LINK_LENGTH)

    def digest(self, account_id: str, code: str) -> str:
        """Derive the stored form of a code, from which not even a reader of the database learns the code."""
        normal = code.strip().upper()
        return self._mac(b"digest", account_id.encode(), normal.encode("utf-8", "surrogatepass")).hex()

    def _letters(self, purpose: bytes, event_id: UUID, length: int) -> str:
        number = int.from_bytes(self._mac(purpose, event_id.bytes))
        letters = []
        for _ in range(length):
            number, rest = divmod(number, len(ALPHABET))
            letters.append(ALPHABET[rest])
        return "".join(letters)

    def _mac(self, *parts: bytes) -> bytes:
        return hmac.digest(self._secret, b"\x00".join(parts), hashlib.sha256)
