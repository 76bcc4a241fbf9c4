"""Violations that are known: a list of laws with reasons, in a TOML file."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from eventpact_contracts.handlers.laws import HANDLER_LAWS
from eventpact_contracts.laws import LAWS
from eventpact_contracts.subjects.subject import name_of

__all__ = ["Known", "KnownError", "known_in", "read_known", "unknown_law"]


class KnownError(ValueError):
    """A list of known violations that cannot be used; one line says why."""


@dataclass(frozen=True)
class Known:
    """Laws that are violated for now, each with its reason.

    Attributes:
        everywhere: those of every target.
        by_target: those of one target each.
    """

    everywhere: Mapping[str, str] = field(default_factory=dict)
    by_target: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def of(self, target: str) -> dict[str, str]:
        """Those of one target."""
        return {**self.everywhere, **self.by_target.get(target, {})}


def read_known(file: Path) -> Known:
    """Read a file of lines like ``L1 = "issue 7: closing does not wait"``.

    Lines below a heading like ``["shop.events:ShopDispatcher"]`` are about that target alone.

    Raises:
        KnownError: it cannot be read, or a line is not of this form.
    """
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise KnownError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise KnownError(f'cannot read {file}: {error}; write lines like L1 = "the reason"') from error
    headed = {key: lines for key, lines in content.items() if isinstance(lines, dict)}
    plain = {law: reason for law, reason in content.items() if law not in headed}
    read = partial(_reasons, where=str(file), form='{} = "the reason"')
    return Known(read(plain), {target: read(lines) for target, lines in headed.items()})


def known_in(hooks: Any) -> dict[str, str]:
    """Read ``known_violations`` of a contract class, of its instance or of a factory.

    Raises:
        KnownError: it is not of the form ``{"L1": "the reason"}``.
    """
    name = getattr(hooks, "__qualname__", None) or name_of(hooks)
    return _reasons(getattr(hooks, "known_violations", {}), f"{name}.known_violations", '{{"{}": "the reason"}}')


def _reasons(listed: Any, where: str, form: str) -> dict[str, str]:
    if not isinstance(listed, Mapping):
        raise KnownError(f"{where} is {listed!r}; write {form.format('L1')}")
    for law, reason in listed.items():
        if wrong := unknown_law(law):
            raise KnownError(f"{where}: {wrong}")
        if not isinstance(reason, str) or not reason.strip():
            raise KnownError(f"{where}: {law} needs a reason; write {form.format(law)}")
    return {law: reason.strip() for law, reason in listed.items()}


def unknown_law(law: object) -> str | None:
    """The complaint about an ID that is no law's; None if it is one."""
    ids = [*(law.id for law in LAWS), *(law.id for law in HANDLER_LAWS)]
    if law in ids:
        return None
    close = difflib.get_close_matches(str(law).upper(), ids, 1, cutoff=0.4)
    return f"there is no law {law}; {f'did you mean {close[0]}?' if close else 'there are'} ({', '.join(ids)})"
