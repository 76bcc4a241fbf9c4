"""A model of everyone who signed up, made of the requests, their answers and the mails alone."""

from __future__ import annotations

import email
import re
import threading
import time
import zlib
from dataclasses import dataclass, field
from email.policy import default
from pathlib import Path
from typing import Final

from eventpact.domain.account import InvalidAccountError, mailbox_of, normalize_email

__all__ = ["People"]

_ATTEMPTS: Final = 5
_SECONDS: Final = 20.0
_CODE: Final = re.compile(r"code is (\w{8})")


@dataclass
class _Person:
    """Someone who has an account.

    Attributes:
        mails: how many mails must come in all, where a resend interval of 0 is set.
        attempts: wrong guesses since the last code was mailed.
    """

    mails: int = 0
    verified: bool = False
    attempts: int = 0
    received: list[str] = field(default_factory=list)

    @property
    def live(self) -> str | None:
        """The one code that must verify."""
        codes = [code for code in self.received if code]
        return codes[-1] if codes and not self.verified and self.attempts < _ATTEMPTS else None


class People:
    """Everyone who signed up at a server that writes its mails into ``folder``.

    Requests must come one after another.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: set[str] = set()
        self._received: dict[str, list[str]] = {}
        self._people: dict[str, _Person] = {}
        self._noticed: set[str] = set()
        self.redeemed = 0

    def await_mails(self, address: object) -> None:
        """Wait until everything that this address must be mailed has come.

        Raises:
            AssertionError: something has not.
        """
        person = self._find(address)
        if person is not None:
            self._await(person)

    def forget(self) -> None:
        """Wait for every mail that must come; then nobody has an account any more."""
        for person in self._people.values():
            self._await(person)
        self._people.clear()
        self._received.clear()

    def suggest(self, address: object, made_up: str) -> str:
        """The live code of this address, mostly; the code that was made up for the others, and now and then."""
        person = self._find(address)
        live = None if person is None else person.live
        if person is None or live is None:
            return made_up
        chance = zlib.crc32(f"{made_up}{address}{person.attempts}".encode())
        return made_up if chance % 4 == 0 else live.lower() if chance % 4 == 1 else live

    def replace(self, address: str) -> str:
        """This address, or one that is nearly the same and new where this one is verified, so that no code is left."""
        person = self._find(address)
        local_part, _, domain = address.rpartition("@")
        other = f"{len(self._people)}{local_part}"
        return f"{other}@{domain}" if person and person.verified and len(other) <= 64 else address

    def is_live(self, address: object, code: object) -> bool:
        """Whether this code must verify this address."""
        person = self._find(address)
        return person is not None and isinstance(code, str) and code.upper() == person.live

    def signed_up(self, address: object) -> None:
        """A sign-up was accepted: a code, or a notice, must be mailed."""
        key = _key(address)
        person = self._people.setdefault(key, _Person(received=self._received.setdefault(key, [])))
        if person.verified and mailbox_of(key) in self._noticed:
            return  # one notice a day
        if person.verified:
            self._noticed.add(mailbox_of(key))
        person.mails += 1
        person.attempts = 0

    def asked_for_a_code(self, address: object) -> None:
        """A request for a code was accepted: it must be mailed to who has an account, and has not verified it."""
        person = self._find(address)
        if person is not None and not person.verified:
            person.mails += 1
            person.attempts = 0

    def guessed(self, address: object, *, right: bool) -> None:
        """A well-formed code was tried."""
        person = self._find(address)
        if person is not None and right:
            person.verified = True
            self.redeemed += 1
        elif person is not None:
            person.attempts += 1

    def _await(self, person: _Person) -> None:
        deadline = time.monotonic() + _SECONDS
        tick = threading.Event()
        while self._read() or len(person.received) < person.mails:
            assert time.monotonic() < deadline, f"{len(person.received)} of {person.mails} mails have come"
            tick.wait(0.002)

    def _find(self, address: object) -> _Person | None:
        try:
            return self._people.get(_key(address))
        except InvalidAccountError:
            return None

    def _read(self) -> bool:
        """Take in new mails; whether there was one."""
        new = {path.name: path for path in self._folder.glob("*.eml") if path.name not in self._seen}
        for name, path in new.items():
            mail = email.message_from_bytes(path.read_bytes(), policy=default)
            found = _CODE.search(mail.get_content())  # type: ignore[attr-defined]
            self._received.setdefault(str(mail["To"]), []).append(found[1] if found else "")
            self._seen.add(name)
        return bool(new)


def _key(address: object) -> str:
    if not isinstance(address, str):
        raise InvalidAccountError("email", "an address is text")
    return normalize_email(address)
