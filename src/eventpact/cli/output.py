"""The standard output of a command: it is there, takes every character, and its faults are told from all others."""

import io
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from typing import Any


class OutputError(Exception):
    """The output cannot be written. It is no OSError, since a command takes that for a file's or a network's."""


def prepare_output() -> None:
    """Make the output take every character, and be there.

    A file that is opened while a standard stream is closed would get its number, and what is written to that stream.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while os.open(os.devnull, os.O_RDWR) < 2:
            pass
        sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
        sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
        sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def output_faults() -> Generator[list[OSError]]:
    """Raise each error of writing the output as an :class:`OutputError`, and keep it, lest somebody ignores that.

    The stream itself is changed, because libraries hold it as ``sys.__stdout__``, too.
    """
    faults: list[OSError] = []

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except OSError as error:
                faults.append(error)
                raise OutputError(f"the output cannot be written: {error.strerror}") from error

        return call

    stream = sys.stdout
    stream.write = noting(stream.write)  # type: ignore[method-assign]
    stream.flush = noting(stream.flush)  # type: ignore[method-assign]
    try:
        yield faults
    finally:
        del stream.write, stream.flush


def discard_output() -> None:
    """Let what is still to be written go nowhere: the interpreter tries again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
