"""``eventpact prune``: removes rows that nobody needs any more."""

from contextlib import closing

from eventpact.bootstrap import build_parts, existing
from eventpact.settings import Settings


def run(_: object, settings: Settings) -> int:
    """Remove the rows that are older than the retention."""
    parts = build_parts(existing(settings))
    age = settings.retention
    with closing(parts.database):
        removed = {
            "codes that were used or have expired": parts.codes.prune(age),
            "accounts that were never verified": parts.repository.prune(age),
            "failed deliveries": parts.failures.prune(age),
        }
    for rows, count in removed.items():
        print(f"{count:>8}  {rows} removed, older than {age.total_seconds() / 86_400:g} days")
    return 0
