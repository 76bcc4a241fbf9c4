"""The names ``EVENTPACT_*`` in the environment and in ``.env``, and the source of each setting."""

import difflib
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from dotenv.parser import parse_stream

PREFIX: Final = "EVENTPACT_"

_FOREIGN: Final = ("EVENTPACT_TEST_", "EVENTPACT_BENCH_", "EVENTPACT_VERIFY_")
"""Beginnings of names that tests, benchmarks and ``eventpact verify`` read."""

_NEARLY: Final = 0.9
"""The likeness from which a name with another beginning counts as a mistyped setting."""


class CannotStartError(Exception):
    """A part of the application cannot be opened; the message is one line that names it."""

    exit_code = 1


class SettingsError(CannotStartError):
    """A setting is missing or wrong; the message is one line that names it."""

    exit_code = 64


def sources(fields: Collection[str], given: Iterable[str]) -> dict[str, str]:
    """Name the source of each field that is set: the command line, the environment, or a line of ``.env``.

    Args:
        fields: the names of all settings.
        given: the names of those that the command line sets.

    Raises:
        SettingsError: a name is unknown, or a line of ``.env`` malformed.
    """
    names = [f"{PREFIX}{field}".upper() for field in fields]
    found = {}
    for name, source in (*_dotenv().items(), *((name, "the environment") for name in os.environ)):
        upper = name.upper()
        if upper in names:
            found[upper.removeprefix(PREFIX).lower()] = source
        elif upper.startswith(_FOREIGN):
            continue
        elif upper.startswith(PREFIX.rstrip("_")) or difflib.get_close_matches(upper, names, cutoff=_NEARLY):
            close = difflib.get_close_matches(upper.removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in names])
            advice = f"; did you mean {PREFIX}{close[0]}?" if close else ", nor like one"
            raise SettingsError(f"{name} in {source} is no setting{advice}")
    return found | dict.fromkeys(given, "the command line")


def _dotenv() -> dict[str, str]:
    """Return the names in ``.env``, each with its line."""
    path = Path(".env")
    names = {}
    try:
        try:
            path.lstat()
        except FileNotFoundError:
            return {}
        if not path.is_file():  # to read a pipe would wait for its writer
            raise SettingsError(f"{path} is no file; make it one, or take it away")
        with path.open(encoding="utf-8-sig") as stream:
            for binding in parse_stream(stream):
                text = binding.original.string  # with the blank lines above it
                line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
                source = f"{path}, line {line}"
                name = binding.key or ""
                # A name alone may mean something to another program; what is no name does not.
                is_ours = name.upper().startswith(PREFIX) or not re.fullmatch(r"[\w.-]*", name)
                if binding.error or (is_ours and binding.value is None):
                    raise SettingsError(f"{source}: must be NAME=value, or a comment that begins with #")
                if binding.key is not None:
                    names[binding.key] = source
    except UnicodeDecodeError:
        raise SettingsError(f"{path} cannot be read; it must be text in UTF-8") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    return names
