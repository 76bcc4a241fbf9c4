"""``eventpact worker``: a Celery worker with this command's options."""

import argparse
import os

from eventpact.environment import PREFIX, SettingsError
from eventpact.settings import Settings


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Work until a signal says stop."""
    if options.concurrency < 1:
        raise SettingsError("--concurrency must be 1 or more")
    # Child processes read the settings from the environment, as a worker started by Celery's own command does.
    for name in ("broker", "database", "smtp", "data_dir", "outbox"):
        if getattr(options, name) is not None:
            os.environ[f"{PREFIX}{name.upper()}"] = str(getattr(settings, name))
    os.environ["EVENTPACT_DISPATCHER"] = "celery"

    from eventpact.worker import run

    return run(concurrency=options.concurrency)
