"""Report files: their options, the check of their paths before a run, and the writing after it.

pytest imports it at every start, so it imports nothing of the kit at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from eventpact_contracts.checking.outcomes import Verdict
    from eventpact_contracts.reports.summary import RunFacts

__all__ = ["FORMATS", "unwritable", "write"]

FORMATS: Final = {
    "json": "as JSON",
    "html": "as one self-contained page",
    "junit": "as JUnit XML",
    "markdown": "as Markdown",
    "badge": "as an SVG badge",
}
"""Each format with the words of its option's help."""


def unwritable(files: Mapping[str, Path]) -> str | None:
    """The reason why one of these files cannot be written, in one line; None if all can be."""
    taken: dict[Path, str] = {}
    for option, file in files.items():
        if file == Path("-"):
            return "cannot write -: the standard output is for people; give a file"
        if file.is_dir():
            return f"cannot write {file}: it is a directory"
        if not file.parent.is_dir():
            return f"cannot write {file}: there is no directory {file.parent}"
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            return f"cannot write {file}: permission denied"
        if other := taken.get(path := file.resolve()):
            return f"cannot write {file} for both {other} and {option}; give each a file of its own"
        taken[path] = option
    return None


def write(files: Mapping[str, Path], verdicts: Sequence[Verdict], run: RunFacts) -> Iterator[str]:
    """Write the files, and yield a line about each.

    Raises:
        OSError: a file could not be written, whose name it has.
    """
    from eventpact_contracts.reports.badge import badge
    from eventpact_contracts.reports.document import document
    from eventpact_contracts.reports.junit import junit
    from eventpact_contracts.reports.markdown import markdown
    from eventpact_contracts.reports.page import page

    render = {"json": document, "html": page, "junit": junit, "markdown": markdown, "badge": badge}
    for option, file in files.items():
        text = render[option](verdicts, run)
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            error.filename = str(file)  # which is not known to one that was opened
            raise
        yield f"wrote {file}"
