"""Extras resolve to wheels on every platform: nobody needs a compiler, and nobody meets a missing wheel."""

import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PLATFORMS: Final = (
    "x86_64-manylinux_2_28",
    "aarch64-manylinux_2_28",
    "x86_64-unknown-linux-musl",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
)

EXEMPT: Final = {("embedded", "x86_64-unknown-linux-musl"), ("all", "x86_64-unknown-linux-musl")}
"""There is no Valkey wheel for musl, and no marker that could say so; each other extra resolves there."""


def resolve(case: tuple[str, str]) -> str:
    """Return the resolver's complaint about an extra on a platform, or nothing."""
    extra, platform = case
    command = ["uv", "pip", "compile", "--quiet", "--python-version", "3.11", "--only-binary", ":all:"]
    command += ["--python-platform", platform, "--extra", extra, str(ROOT / "pyproject.toml")]
    return subprocess.run(command, capture_output=True, text=True).stderr.strip()


if __name__ == "__main__":
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    cases = [case for case in product(extras, PLATFORMS) if case not in EXEMPT]
    with ThreadPoolExecutor(4) as pool:
        complaints = list(pool.map(resolve, cases))
    for (extra, platform), complaint in zip(cases, complaints, strict=True):
        print(f"{extra:12} {platform:28} {complaint or 'resolves'}")
    sys.exit(any(complaints))
