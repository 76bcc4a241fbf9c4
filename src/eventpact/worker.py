"""The worker: ``eventpact worker``, or ``celery -A eventpact.worker worker`` with the same ``EVENTPACT_*`` settings.

The one module-level Celery application. Handlers are built when this is imported, their connections after the fork.
"""

from __future__ import annotations

from celery import signals

from eventpact.bootstrap import build_worker
from eventpact.infrastructure.embedded_broker import running_broker
from eventpact.infrastructure.settings import Settings, load_settings

__all__ = ["app", "run"]


def _settings() -> Settings:
    settings = load_settings()
    if settings.broker is None:
        settings = settings.model_copy(update={"broker": running_broker(settings.data_dir / "broker")})
    return settings


app, dispatcher, parts = build_worker(_settings())


@signals.worker_process_init.connect(weak=False)
def _forget_connections(**_: object) -> None:
    parts.database.forget()


def run(*, concurrency: int) -> int:
    """Work until a signal says stop. Returns the exit code."""
    app.worker_main(
        ["worker", "--concurrency", str(concurrency), "--loglevel", "INFO", "--without-gossip", "--without-mingle"]
    )
    return 0
