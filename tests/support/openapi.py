"""Write the API's schema to ``contracts/openapi.json``: ``python tests/support/openapi.py``."""

import json
from pathlib import Path
from typing import Final

from eventpact.infrastructure.http.main import create_app
from eventpact.settings import Settings

FILE: Final = Path(__file__).resolve().parents[2] / "contracts" / "openapi.json"


def current() -> str:
    """The schema of the code, as text."""
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    return json.dumps(create_app(settings).openapi(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(current(), encoding="utf-8")
