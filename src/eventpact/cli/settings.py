"""``eventpact settings``: the settings in force, secrets masked, with the source of each."""

import argparse
import re
from datetime import timedelta

from pydantic import SecretStr

from eventpact.environment import PREFIX, sources
from eventpact.settings import Settings


def masked_url(text: str) -> str:
    """Return the text with the passwords of its URLs masked, in the authority and in the query."""
    text = re.sub(r"(://[^:/?#@\s]*):[^/?#\s]*@", r"\1:***@", text)
    return re.sub(r"([?&][^=&]*pass[^=&]*=)[^&#;\s]*", r"\1***", text, flags=re.IGNORECASE)


def in_force(settings: Settings) -> str:
    """Describe in one line the engines of a server."""
    broker = f" on {masked_url(settings.broker or 'an embedded Valkey')}" if settings.dispatcher == "celery" else ""
    mail = masked_url(settings.smtp) if settings.smtp else f"to files in {settings.data_dir / 'mail'}"
    return (
        f"dispatcher {settings.dispatcher}{broker}, outbox {'on' if settings.uses_outbox else 'off'},"
        f" database {masked_url(settings.database_url)},"
        f" mail {mail}, docs {'at /docs' if settings.serves_docs else 'off'}"
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Print a line for each setting."""
    given = [name for name in Settings.model_fields if getattr(options, name, None) is not None]
    origin = sources(Settings.model_fields, given)
    for name in Settings.model_fields:
        value = _shown(getattr(settings, name))
        print(f"{PREFIX}{name.upper():<26} {value:<40} {origin.get(name, 'default')}")
    return 0


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, SecretStr):
        return "***"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.12g}"  # of six digits, 30 days would be 2.592e+06
    return masked_url(str(value))
