"""``pyright --verifytypes`` over the public modules: every name that they export has a known type."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Final

PUBLIC: Final = (
    "eventpact.domain",
    "eventpact.application",
    "eventpact.infrastructure.sync_dispatcher",
    "eventpact.infrastructure.asyncio_dispatcher",
    "eventpact.infrastructure.celery_dispatcher",
    "eventpact.infrastructure.outbox_dispatcher",
    "eventpact.infrastructure.dispatching.subscriptions",
    "eventpact.infrastructure.dispatching.failures",
    "eventpact.testing",
    "eventpact_contracts.contract",
)


def verify(module: str) -> str:
    """Return the names of a module without a known type, as pyright reports them, or nothing."""
    command = ["pyright", "--verifytypes", module, "--ignoreexternal"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout + done.stderr if done.returncode else ""


if __name__ == "__main__":
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(verify, PUBLIC))
    for module, report in zip(PUBLIC, reports, strict=True):
        print(f"{module}: {report or 'complete'}")
    sys.exit(any(reports))
