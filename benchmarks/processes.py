"""Processes of ours, for the time of a ``with`` block, and waiting for what they do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

SECONDS = 60.0
"""What has not happened by then never will."""

HERE = Path(__file__).resolve().parent


@contextmanager
def python(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Generator[Callable[..., None]]:
    """A Python process. Yields what waits until a condition holds, and tells the end of its log if it never does."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=HERE,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} did not come up:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)  # between two looks; the deadline is above

    try:
        yield until
    finally:
        process.terminate()
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
