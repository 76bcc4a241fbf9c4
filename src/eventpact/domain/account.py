"""Accounts, and the rule for the e-mail address that identifies one."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

__all__ = ["NAME_PATTERN", "Account", "CreateAccountData", "InvalidAccountError", "normalize_email"]

_MAX_ADDRESS: Final = 254  # RFC 5321, 4.5.3.1.3: a path is at most 256 octets, with its angle brackets
_MAX_LOCAL_PART: Final = 64  # RFC 5321, 4.5.3.1.1
_MAX_NAME: Final = 100
# RFC 5322, 3.2.3 (atext) and the dot; quoted local parts are refused, as nearly every sign-up form does.
_ATEXT: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~.")

# Of a domain: controls, invisible formatting, surrogates, private and unassigned characters, line ends.
_FORBIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Python's codec knows the first edition of international domains, which spells these otherwise than the one in use:
# mail to one domain would go to another.
_SPELLED_OTHERWISE: Final = frozenset("\u00df\u1e9e\u03c2")

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
"""What a name is, for those who can read a regular expression; lone surrogates, which no JSON has, are refused, too."""


class InvalidAccountError(ValueError):
    """What was given cannot make an account; the message says why, without quoting it.

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
        display_name: what its owner wants to be called.
        verified: whether its owner has proven to read mail to that address.
    """

    account_id: str
    email: str
    display_name: str
    verified: bool = False


@dataclass(frozen=True, kw_only=True)
class CreateAccountData:
    """What signing up takes; checked when it is made. ``email`` is kept normalized.

    Raises:
        InvalidAccountError: the address or the name is impossible.
    """

    email: str
    display_name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "email", normalize_email(self.email))
        object.__setattr__(self, "display_name", _name(self.display_name))


def normalize_email(address: str) -> str:
    """The one form of an address that is stored and compared: its domain in punycode and lower case.

    The local part is left as it is given: only its mail server knows whether its case matters.

    Raises:
        InvalidAccountError: it is no address that mail could be sent to.
    """
    local_part, at, domain = address.strip(" ").rpartition("@")
    if not at or not local_part or not domain:
        raise InvalidAccountError("email", "an address has the form name@example.com")
    if len(local_part) > _MAX_LOCAL_PART:
        raise InvalidAccountError("email", f"the part before the @ may have {_MAX_LOCAL_PART} characters at most")
    if not _ATEXT.issuperset(local_part) or "" in local_part.split("."):
        raise InvalidAccountError("email", "the part before the @ has a character that is not allowed there")
    normal = f"{local_part}@{_domain(domain)}"
    if len(normal) > _MAX_ADDRESS:
        raise InvalidAccountError("email", f"an address may have {_MAX_ADDRESS} characters at most")
    return normal


def _domain(domain: str) -> str:
    if len(domain) > _MAX_ADDRESS:
        raise InvalidAccountError("email", f"an address may have {_MAX_ADDRESS} characters at most")
    # What is not seen would be dropped by the codec, so that two domains that look alike would be one.
    if any(unicodedata.category(character) in _FORBIDDEN for character in domain):
        raise InvalidAccountError("email", "the part after the @ has a character that is not allowed there")
    normal = unicodedata.normalize("NFKC", domain)
    if not _SPELLED_OTHERWISE.isdisjoint(normal):
        raise InvalidAccountError("email", "write the part after the @ in punycode (xn--…), as it is ambiguous")
    try:
        ascii_form = normal.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise InvalidAccountError("email", "the part after the @ is no domain name") from None
    labels = ascii_form.split(".")
    allowed = all(
        0 < len(label) <= 63
        and label.replace("-", "a").isalnum()
        and label.isascii()
        and not label.startswith("-")
        and not label.endswith("-")
        for label in labels
    )
    if len(labels) < 2 or not allowed or labels[-1].isdigit():
        raise InvalidAccountError("email", "the part after the @ is no domain name")
    return ascii_form


def _name(name: str) -> str:
    # Looked at as it is given: what is stripped first would be accepted without having been seen.
    if _REFUSED.search(name):
        raise InvalidAccountError("display_name", "a name may have no control characters")
    if not _SEEN.search(name):
        raise InvalidAccountError("display_name", "a name has at least one character that is not a space")
    name = name.strip()
    if len(name) > _MAX_NAME:
        raise InvalidAccountError("display_name", f"a name may have {_MAX_NAME} characters at most")
    return name
