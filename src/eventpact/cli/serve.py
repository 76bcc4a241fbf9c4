"""``eventpact serve``: uvicorn on the application, and an embedded broker where Celery has none set."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from types import FrameType
from typing import NoReturn

import uvicorn

from eventpact.bootstrap import build_parts
from eventpact.infrastructure.http.main import create_app
from eventpact.infrastructure.monitoring.logs import configure
from eventpact.settings import Settings

__all__ = ["run", "serve"]


def run(_: object, settings: Settings) -> int:
    """Serve. Returns the exit code."""
    return serve(settings)


def serve(settings: Settings) -> int:
    """Serve until a signal says stop; running requests and handlers get their time. Returns the exit code.

    Raises:
        CannotStartError: what the application is made of cannot be opened.
        SettingsError: a setting is of no use here.
    """
    # What cannot be opened is told in a line; while the server comes up it would be a traceback.
    build_parts(settings).database.close()
    # uvicorn stops in good order, and then raises the signal again; the broker must be stopped after that.
    signal.signal(signal.SIGTERM, _exit)
    configure(settings.log_format)
    with contextlib.ExitStack() as stack:
        if settings.dispatcher == "celery" and settings.broker is None:
            from eventpact.infrastructure.celery.embedded_broker import BrokerError, EmbeddedBroker

            try:
                broker = stack.enter_context(EmbeddedBroker(settings.data_dir / "broker"))
            except BrokerError as error:
                print(f"eventpact: {error}", file=sys.stderr)
                return 1
            settings = settings.model_copy(update={"broker": broker.url})
            print("an embedded broker is running; start a worker beside this server: eventpact worker", flush=True)
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(settings),
                host=settings.host,
                port=settings.port,
                log_config=None,  # its records go where all others do
                log_level="info",
                server_header=False,
            )
        )
        logging.getLogger("uvicorn.access").addFilter(_without_what_clients_write)
        try:
            server.run()
        except KeyboardInterrupt:
            return 130
        except SystemExit:
            if server.started:
                raise
    if not server.started:
        reason = (
            "it could not start, as the log above tells"
            if server.lifespan.should_exit
            else f"cannot listen on {settings.host}:{settings.port}; is the port taken?"
        )
        print(f"eventpact: {reason}", file=sys.stderr)
        return 1
    return 0


def _without_what_clients_write(record: logging.LogRecord) -> bool:
    """What a client writes behind a question mark, or as a path that there is not, may be an e-mail address."""
    if isinstance(record.args, tuple) and len(record.args) == 5:
        client, method, path, http_version, status = record.args
        shown = "(unknown)" if status == 404 else str(path).partition("?")[0]
        record.args = (client, method, shown, http_version, status)
    return True


def _exit(_: int, __: FrameType | None) -> NoReturn:
    raise SystemExit(0)
