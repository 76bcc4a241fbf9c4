"""``pyright --verifytypes`` over the public modules: every name that they export has a known type."""

import subprocess
import sys
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

if __name__ == "__main__":
    failed = 0
    for module in PUBLIC:
        command = ["pyright", "--verifytypes", module, "--ignoreexternal"]
        done = subprocess.run(command, capture_output=True, text=True)
        failed |= done.returncode
        print(f"{module}: {'complete' if not done.returncode else done.stdout + done.stderr}")
    sys.exit(failed)
