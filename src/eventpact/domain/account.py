"""Accounts, the rule for the e-mail address that identifies one, and the codes that verify it."""

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

_MAX_ADDRESS: Final = 254  # RFC 5321, 4.5.3.1.3: a path is at most 256 octets, with its angle brackets
_MAX_LOCAL_PART: Final = 64  # RFC 5321, 4.5.3.1.1
_MAX_NAME: Final = 100
# RFC 5322, 3.2.3 (dot-atom). Quoted local parts are refused, as nearly every sign-up form does.
_LOCAL_PART: Final = re.compile(r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?!\d+$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# RFC 2047 wraps text as =?charset?q?text?=, and mail libraries decode that wherever it stands in a header.
_ENCODED: Final = re.compile(r"=\?|\?=")

# Of a name, by code point: which characters there are depends on the Python that is asked, and each would have rules
# of its own. Controls, line ends, bidirectional and other invisible formatting, tags; not the joiners, which names in
# several scripts are written with, nor the variation selectors of names in Han characters.
_UNSEEN: Final = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff0-\ufffb\ufffe\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
_JOINERS: Final = "\u200c\u200d"
_SPACES: Final = " \xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
_REFUSED: Final = re.compile(f"[{_UNSEEN}\ud800-\udfff]")
_SEEN: Final = re.compile(f"[^{_JOINERS}{_SPACES}]")

NAME_PATTERN: Final = f"^[^{_UNSEEN}]*[^{_UNSEEN}{_JOINERS}{_SPACES}][^{_UNSEEN}]*$"
"""The rule for a name as a regular expression. Lone surrogates, which no JSON has, are refused, too."""


class InvalidAccountError(ValueError):
    """The given data cannot make an account. The message says why, without quoting it.

    Attributes:
        field: the name of the field that is wrong.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, kw_only=True)
class Account:
    """Someone who signed up.

    Attributes:
        account_id: identifies the account.
        email: the address, in the form of :func:`normalize_email`.
        display_name: the name that its owner wants to be called.
        verified: True once its owner has proven to read mail to that address.
    """

    account_id: str
    email: str
    display_name: str
    verified: bool = False


@dataclass(frozen=True, kw_only=True)
class CreateAccountData:
    """The data of a sign-up, checked when it is made. ``email`` is stored normalized.

    Raises:
        InvalidAccountError: the address or the name is impossible.
    """

    email: str
    display_name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "email", normalize_email(self.email))
        object.__setattr__(self, "display_name", _name(self.display_name))


def normalize_email(address: str) -> str:
    """Return the one form of an address that is stored and compared: ASCII, with its domain in lower case.

    The local part is left as it is given: only its mail server knows whether its case matters. An international domain
    is written in punycode, which the HTTP API translates into.

    Raises:
        InvalidAccountError: it is no address that mail could be sent to.
    """
    local_part, at, domain = address.strip(" ").rpartition("@")
    if not at or not local_part or not domain:
        raise InvalidAccountError("email", "an address has the form name@example.com")
    if len(local_part) > _MAX_LOCAL_PART:
        raise InvalidAccountError("email", f"the part before the @ may have {_MAX_LOCAL_PART} characters at most")
    if not _LOCAL_PART.fullmatch(local_part):
        raise InvalidAccountError("email", "the part before the @ has a character that is not allowed there")
    if _ENCODED.search(local_part):
        raise InvalidAccountError("email", "the part before the @ may not have =? or ?=, which mark encoded words")
    if len(local_part) + 1 + len(domain) > _MAX_ADDRESS:
        raise InvalidAccountError("email", f"an address may have {_MAX_ADDRESS} characters at most")
    if not domain.isascii():
        raise InvalidAccountError("email", "write the part after the @ in punycode (xn--…)")
    domain = domain.lower()
    if not _DOMAIN.fullmatch(domain):
        raise InvalidAccountError("email", "the part after the @ is no domain name")
    return f"{local_part}@{domain}"


def mailbox_of(email: str) -> str:
    """Return one name for all spellings of an address that may reach the same mailbox.

    Case, dots and a tag after ``+`` are dropped, as large providers do. Only limits use this name: where a provider
    does tell the spellings apart, their owners share a limit, and nothing else.
    """
    local_part, _, domain = email.lower().rpartition("@")
    name = local_part.partition("+")[0].replace(".", "")
    return f"{name or local_part}@{domain}"


def _name(name: str) -> str:
    # Checked before it is stripped: stripping first would accept control characters at either end.
    if _REFUSED.search(name):
        raise InvalidAccountError("display_name", "a name may have no control characters")
    if not _SEEN.search(name):
        raise InvalidAccountError("display_name", "a name has at least one character that is not a space")
    name = name.strip()
    if len(name) > _MAX_NAME:
        raise InvalidAccountError("display_name", f"a name may have {_MAX_NAME} characters at most")
    return name


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
