"""Violations that are known: a list of laws with reasons, in a TOML file."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eventpact_contracts.handlers.laws import HANDLER_LAWS
from eventpact_contracts.laws import LAWS

__all__ = ["Known", "KnownError", "read_known", "unknown_law"]


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
    everywhere: dict[str, str] = {}
    by_target: dict[str, dict[str, str]] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            by_target[key] = {law: _reason(law, reason, file) for law, reason in value.items()}
        else:
            everywhere[key] = _reason(key, value, file)
    return Known(everywhere, by_target)


def _reason(law: str, reason: Any, file: Path) -> str:
    if wrong := unknown_law(law):
        raise KnownError(f"{file}: {wrong}")
    if not isinstance(reason, str) or not reason.strip():
        raise KnownError(f'{file}: {law} needs a reason; write {law} = "the reason"')
    return reason.strip()


def unknown_law(law: str) -> str | None:
    """The complaint about an ID that is no law's; None if it is one."""
    ids = [*(law.id for law in LAWS), *(law.id for law in HANDLER_LAWS)]
    if law in ids:
        return None
    close = difflib.get_close_matches(law.upper(), ids, 1, cutoff=0.4)
    return f"there is no law {law}; {f'did you mean {close[0]}?' if close else 'there are'} ({', '.join(ids)})"
