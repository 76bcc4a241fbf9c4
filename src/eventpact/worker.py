"""The worker: ``eventpact worker``, or ``celery -A eventpact.worker worker`` with the same ``EVENTPACT_*`` settings.

The one module-level Celery application. Handlers are built when this is imported, their connections after the fork.
"""

import logging
import os
import socket
from typing import Any

from celery import signals

from eventpact.bootstrap import build_worker, existing, with_broker
from eventpact.environment import CannotStartError
from eventpact.infrastructure.celery.brokers import bounded_connection, refusal
from eventpact.infrastructure.celery.messages import PREFIX
from eventpact.infrastructure.monitoring.logs import about, formatter
from eventpact.settings import load_settings

# Whatever the settings name, a worker is for Celery.
app, dispatcher, parts = build_worker(with_broker(existing(load_settings(dispatcher="celery"))))


@signals.after_setup_logger.connect(weak=False)
@signals.after_setup_task_logger.connect(weak=False)
def _format_logs(logger: logging.Logger, **_: object) -> None:
    """Write records as the server does, at the level and to the file that Celery's command line names."""
    for handler in logger.handlers:
        handler.setFormatter(formatter(parts.settings.log_format))
        handler.addFilter(_about_its_event)


def _about_its_event(record: logging.LogRecord) -> bool:
    """Celery's own records name a task, which is an event: its id is the event's."""
    task = getattr(record, "data", None)
    if isinstance(task, dict) and str(task.get("name")).startswith(PREFIX):
        vars(record).update(about(task["name"].removeprefix(PREFIX), task["id"]))
    return True


def run(*, concurrency: int) -> int:
    """Work until a signal says stop. Returns the exit code.

    Raises:
        CannotStartError: the broker refuses this worker. An unreachable one is waited for.
    """
    try:
        with bounded_connection(app) as connection:
            connection.ensure_connection(max_retries=0)
    except Exception as error:
        if reason := refusal(error):
            raise CannotStartError(f"the broker refuses this worker: {reason}; check EVENTPACT_BROKER") from error
    worker: Any = app.Worker(
        # Two workers of one name cannot live on one RabbitMQ; by default all of a machine have the same.
        hostname=f"eventpact-{os.getpid()}@{socket.gethostname()}",
        concurrency=concurrency,
        loglevel="INFO",
        without_gossip=True,
        without_mingle=True,
        quiet=parts.settings.log_format == "json",  # the banner is no log record
    )
    warm: list[bool] = []

    def note(how: str, **_: object) -> None:
        warm.append(how == "Warm")

    signals.worker_shutting_down.connect(note)
    worker.start()
    # Celery calls it a failure when the signal was a Ctrl-C, though the worker ends in good order after one.
    return 0 if warm and all(warm) else int(worker.exitcode or 0)
