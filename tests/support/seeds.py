"""The seed with which galleries are drawn."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Final

_ASKED = os.environ.get("EVENTPACT_TEST_SEED", "1")

SEED: Final = datetime.now(UTC).toordinal() if _ASKED == "today" else int(_ASKED)
"""The same in `tox` and in CI, so that a change is judged by what it changes; another each night, in `tox -e full`."""
