"""``eventpact serve``: uvicorn on the application, and an embedded broker where Celery has none set."""

import contextlib
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import NoReturn

import uvicorn

from eventpact.bootstrap import build_parts
from eventpact.cli.settings import in_force
from eventpact.cli.signals import other_signals_as_told_to_end
from eventpact.environment import SettingsError
from eventpact.infrastructure.http.connections import MAX_HEAD_BYTES, ConnectionLimits
from eventpact.infrastructure.http.main import create_app
from eventpact.infrastructure.monitoring.logs import configure
from eventpact.settings import Settings


def run(_: object, settings: Settings) -> int:
    """Serve until a signal says stop; running requests and handlers get their time."""
    with contextlib.ExitStack() as stack:
        sockets, listener = None, stack.enter_context(_listener(settings.host))
        # An error here is reported in one line; while the server comes up it would be a traceback.
        build_parts(settings).database.close()
        # uvicorn stops in good order, and then raises the signal again; the broker must be stopped after that.
        lost = threading.Event()
        signal.signal(signal.SIGTERM, partial(_exit, lost))
        other_signals_as_told_to_end()
        configure(settings.log_format)
        shown = in_force(settings)
        if settings.port:
            listener.close()
        else:
            # Taken before the mailer is built, because the links in mails name the port.
            sockets, settings = [listener], settings.model_copy(update={"port": listener.getsockname()[1]})
        if settings.dispatcher == "celery" and settings.broker is None:
            from eventpact.infrastructure.celery.embedded_broker import BrokerError, EmbeddedBroker

            try:
                broker = stack.enter_context(EmbeddedBroker(settings.data_dir / "broker"))
            except BrokerError as error:
                print(f"eventpact: {error}", file=sys.stderr)
                return 1
            broker.watch(partial(_give_up, lost))
            settings = settings.model_copy(update={"broker": broker.url})
            print("an embedded broker is running; start a worker beside this server: eventpact worker", flush=True)
        server = _Server(settings, shown, abandon=stack.close)
        logging.getLogger("uvicorn.access").addFilter(_without_what_clients_write)
        try:
            server.run(sockets)
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


def _listener(host: str) -> socket.socket:
    """Listen on a free port, or raise :class:`SettingsError`: uvicorn blames the port where the host is wrong."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = min(found)  # IPv4 where a name has both
        return socket.create_server(address, family=family)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SettingsError(
            f"EVENTPACT_HOST: cannot listen on {host}: {reason}; give an address of this machine, such as 127.0.0.1"
        ) from error


class _Server(uvicorn.Server):
    """uvicorn, configured on purpose.

    Args:
        shown: what the log tells of the settings once it serves.
        abandon: stops the embedded broker, when a second signal says that the server must end at once.
    """

    def __init__(self, settings: Settings, shown: str, abandon: Callable[[], None]) -> None:
        self._shown = shown
        self._app = create_app(settings)
        self._drain_seconds = settings.drain_timeout
        self._abandon = abandon
        most = _connections(settings.max_connections)
        super().__init__(
            uvicorn.Config(
                self._app,
                host=settings.host,
                port=settings.port,
                loop="asyncio",
                http=ConnectionLimits(most, settings.proxies).protocol(),  # type: ignore[arg-type]
                ws="none",
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                # asyncio accepts the whole backlog in one go, before a connection can be counted.
                backlog=max(8, most // 8),
                # Its default trusts every process of this machine.
                proxy_headers=bool(settings.proxies),
                forwarded_allow_ips=list(settings.proxies),
                timeout_graceful_shutdown=math.ceil(settings.drain_timeout),
                log_config=None,  # its records go where all others do
                log_level="info",
                server_header=False,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            logging.getLogger("eventpact").info("serving with %s", self._shown)
        if sockets:  # of sockets that it is given uvicorn says nothing
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            logging.getLogger("uvicorn.error").info("Uvicorn running on http://%s:%d", shown, port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in good order on the first signal, by a deadline for requests and handlers together; else at once."""
        if self.should_exit:
            self._abandon()
            os._exit(128 + sig)
        self._app.state.stop_at = time.monotonic() + self._drain_seconds
        super().handle_exit(sig, frame)


def _connections(most: int) -> int:
    """Leave half of the files that this process may open to databases, brokers and mails."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return most
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY or files // 2 >= most:
        return most
    logging.getLogger("eventpact").warning(
        "%d connections at once instead of %d, because this process may open %d files (ulimit -n)",
        files // 2,
        most,
        files,
    )
    return files // 2


def _without_what_clients_write(record: logging.LogRecord) -> bool:
    """Mask parts that clients write: a query, or an unknown path, may be an e-mail address."""
    if isinstance(record.args, tuple) and len(record.args) == 5:
        client, method, path, http_version, status = record.args
        shown = "(unknown)" if status == 404 else str(path).partition("?")[0]
        record.args = (client, method, shown, http_version, status)
    return True


def _give_up(lost: threading.Event) -> None:
    """Stop this server in good order, because its embedded broker is lost."""
    lost.set()
    os.kill(os.getpid(), signal.SIGTERM)


def _exit(lost: threading.Event, _: int, __: FrameType | None) -> NoReturn:
    raise SystemExit(1 if lost.is_set() else 0)
