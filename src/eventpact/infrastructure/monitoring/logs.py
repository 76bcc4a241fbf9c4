"""Log records that a machine can read, with event, handler and attempt as fields.

A record never holds the fields of an event, nor the text of an exception, which may quote them.
"""

import json
import logging
import re
import time
from contextvars import ContextVar
from typing import Any, Final, Literal, Protocol
from uuid import UUID

from eventpact.domain.events import DomainEvent

_log = logging.getLogger("eventpact")

LogFormat = Literal["text", "json"]

FIELDS: Final = ("event", "event_id", "handler", "attempt")
"""The attributes that name the subject of a record. A record has those that apply."""


_MAX_FOREIGN_CHARACTERS: Final = 500

_ADDRESS: Final = re.compile(r"[^\s@<>\"',;:()\[\]]+@")


def masked(text: str) -> str:
    """Return the text, of each address only the first character and the domain."""
    return _ADDRESS.sub(lambda found: f"{found[0][0]}***@", text)


def harmless(text: str) -> str:
    """Return what another program wrote as a log may hold it: masked, in one line, and not at any length."""
    shown = repr(masked(text[:_MAX_FOREIGN_CHARACTERS]))[1:-1]
    return shown if len(text) <= _MAX_FOREIGN_CHARACTERS else f"{shown}…"


REQUEST_ID: Final[ContextVar[str]] = ContextVar("eventpact_request_id")
"""The id of the request that is being served, or that dispatched the event which is being handled."""


def about(event: str, event_id: object, handler: str | None = None, attempt: int | None = None) -> dict[str, Any]:
    """The ``extra`` of a record about an event, by its type's name and its id, and about a handler, by its key."""
    fields = {"event": event, "event_id": str(event_id), "handler": handler, "attempt": attempt}
    return {name: value for name, value in fields.items() if value is not None}


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def event_id(self) -> UUID: ...


def log_about(
    event: DomainEvent | _Named,
    level: int,
    text: str,
    *args: object,
    handler: str | None = None,
    attempt: int | None = None,
) -> None:
    """Write a record about an event, whose type and id stand for ``{event}`` in ``text``; ``args`` fill in the rest."""
    name = type(event).__name__ if isinstance(event, DomainEvent) else event.name
    text = text.replace("{event}", f"{name} {event.event_id}")
    _log.log(level, text, *args, extra=about(name, event.event_id, handler, attempt), stacklevel=2)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, RFC 3339), level, logger, message, those of :data:`FIELDS` that it has.

    No other attribute is written: an attribute that a library adds may hold anything.
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            **{name: getattr(record, name) for name in FIELDS if hasattr(record, name)},
            **_request(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """One line a record, which ends with the id of the request where there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return " ".join([super().formatMessage(record), *(f"[{name} {value}]" for name, value in _request().items())])


def formatter(log_format: LogFormat) -> logging.Formatter:
    """Return the formatter of the records of a process."""
    return JsonFormatter() if log_format == "json" else TextFormatter()


def configure(log_format: LogFormat) -> None:
    """Log records of level INFO or higher to standard error, unless logging is configured already."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(log_format))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells at each start which database it looks at


def _request() -> dict[str, str]:
    request_id = REQUEST_ID.get(None)
    return {} if request_id is None else {"request": harmless(request_id)}
