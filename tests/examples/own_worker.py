"""The worker of own_application: ``celery --app own_worker worker``."""

import os

from own_application import HANDLERS, app, on_failure, with_celery, with_outbox

# Building a dispatcher registers its tasks with the app. With the outbox, a worker settles events there.
dispatcher = with_outbox(relay=False) if os.environ.get("OUTBOX") else with_celery(HANDLERS, on_failure)

__all__ = ["app", "dispatcher"]
