"""Small files that somebody else may have made, or may be writing: read without waiting, written whole."""

import errno
import os
import secrets
import stat
from pathlib import Path


def without_waiting(path: str, flags: int) -> int:
    """Open a file, not waiting for the other end of a pipe; for the ``opener`` of :func:`open`."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o600)


def read_file(path: Path) -> bytes:
    """Read a file. A pipe, from which nothing may ever come, is refused as an ``OSError``."""
    with open(path, "rb", opener=without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no file", str(path))
        return file.read()


def write_private(path: Path, content: bytes) -> None:
    """Make a file that nobody else may read. One that is there already is an ``OSError``."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def replace_private(path: Path, content: bytes) -> None:
    """Write a file at once, so that nobody reads half of it."""
    draft = draft_of(path)
    try:
        write_private(draft, content)
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def draft_of(path: Path) -> Path:
    """Name a file beside ``path`` that no other process uses."""
    return path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
