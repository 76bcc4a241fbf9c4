"""Settings, read from ``EVENTPACT_*`` in the environment and from ``.env``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventpact import values
from eventpact.environment import PREFIX, CannotStartError, SettingsError, sources
from eventpact.infrastructure.monitoring.logs import LogFormat

__all__ = ["CannotStartError", "Settings", "SettingsError", "load_settings"]

_DAY_SECONDS: Final = 86_400
_MAX_RETRY_WAIT_SECONDS: Final = 60.0
"""The wait before a retry is not doubled beyond this."""


class Settings(BaseSettings):
    """Settings of eventpact. Each field is the environment variable ``EVENTPACT_<FIELD>``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding="utf-8-sig",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    environment: Literal["development", "production"] = Field(
        "development", description="production refuses to start while a setting that it needs is left to its default"
    )
    dispatcher: Literal["sync", "asyncio", "celery"] = Field("asyncio", description="the engine that carries events")
    data_dir: values.Folder = Field(Path(".eventpact"), description="the folder of the embedded defaults' files")
    database: values.DatabaseUrl | None = Field(
        None, repr=False, description="postgresql://… or sqlite:///…; by default a SQLite file in data_dir"
    )
    broker: values.BrokerUrl | None = Field(
        None, repr=False, description="redis://… or amqp://…; by default an embedded Valkey in data_dir"
    )
    smtp: values.SmtpUrl | None = Field(
        None,
        repr=False,
        description="smtp://user:password@host:port (STARTTLS) or smtps://…; by default .eml files in data_dir",
    )
    smtp_starttls: bool | None = Field(
        None, description="true insists on STARTTLS, false does without; by default where it is offered"
    )
    smtp_timeout: Annotated[float, values.seconds(0.001, 600)] = Field(
        10.0, description="seconds that one answer of the mail server may take"
    )
    mail_from: values.Mailbox = Field("eventpact <no-reply@example.com>", description="the sender of mails")
    base_url: values.BaseUrl | None = Field(
        None, description="the beginning of links in mails; by default http:// with host and port"
    )
    secret: values.Secret | None = Field(None, description="at least 32 characters, from which codes are derived")
    host: values.Host = Field("127.0.0.1", description="the address to listen on")
    port: Annotated[int, values.number(0, 65535)] = Field(8000, description="the port to listen on; 0 takes a free one")
    trusted_proxies: values.Proxies | None = Field(
        None,
        description="addresses or networks of the reverse proxies in front, separated by commas; only their"
        " X-Forwarded-For tells the address of a client; by default none",
    )
    max_connections: Annotated[int, values.number(10, 100_000)] = Field(
        1000, description="open connections at most, and at most half of the files that the process may open"
    )
    docs: bool | None = Field(None, description="serve /docs and /openapi.json; by default not in production")
    metrics: bool | None = Field(
        None, description="serve /metrics; by default, except in production, which needs a token for it"
    )
    metrics_token: values.Token | None = Field(
        None, description="at least 16 characters, which /metrics then demands: Authorization: Bearer …"
    )
    log_format: LogFormat = Field("text", description="text, or json: one object a line, with named fields")
    code_ttl: Annotated[timedelta, values.seconds(0.001, 30 * _DAY_SECONDS)] = Field(
        timedelta(minutes=10), description="seconds for which a code is valid"
    )
    answer_step: Annotated[timedelta, values.seconds(0, 60)] | None = Field(
        None,
        description="answers about accounts leave at multiples of this many seconds, so that their time does not show"
        " whether an address is known; by default 0.1 in production, else 0 (at once)",
    )
    resend_interval: Annotated[timedelta, values.seconds(0, 30 * _DAY_SECONDS)] = Field(
        timedelta(seconds=60), description="seconds between two mails to one owner"
    )
    rate_limit: values.Rate = Field(
        "20/minute", description="sign-ups, requests for a code, and tries of a code that a client address has, each"
    )
    rate_limit_storage: values.StorageUrl = Field(
        "memory://", repr=False, description="memory:// for one process, redis://… for several"
    )
    max_in_flight: Annotated[int, values.number(1, 100_000)] = Field(
        100, description="requests about accounts that are served at once; one more is answered 503"
    )
    retries: Annotated[int, values.number(0, 20)] | None = Field(
        None,
        description="how often a failed delivery is tried again; by default 20 times with the outbox, which is more"
        " than an hour, and with Celery alone 3",
    )
    retry_backoff: Annotated[float, values.seconds(0.001, 3600)] = Field(
        2.0,
        description="seconds before the first retry at most, and three quarters of that at least; doubled for each"
        " further one, up to 600 with the outbox and to 60 with Celery alone",
    )
    max_pending: Annotated[int, values.number(1, 10_000_000)] = Field(
        10_000, description="deliveries that asyncio holds pending before it refuses events"
    )
    outbox: bool | None = Field(
        None,
        description="write events in the transaction of the data that they are about; by default, except with sync",
    )
    outbox_lease: Annotated[timedelta, values.seconds(0.1, 3600)] = Field(
        timedelta(seconds=10), description="seconds of silence after which a process counts as dead"
    )
    outbox_resend: Annotated[timedelta, values.seconds(0.1, _DAY_SECONDS)] = Field(
        timedelta(seconds=60),
        description="Celery: seconds until an event that is not settled is published again, doubled each time",
    )
    drain_timeout: Annotated[float, values.seconds(0, 3600)] = Field(
        10.0, description="seconds that a stopping server waits for its handlers"
    )
    celery_queue: values.QueueName = Field("eventpact", description="the queue of events")
    celery_acks_late: bool | None = Field(
        None, description="acknowledge after handling; by default on RabbitMQ, where that gives at least once"
    )
    celery_visibility_timeout: Annotated[timedelta, values.seconds(0.1, 7 * _DAY_SECONDS)] = Field(
        timedelta(seconds=300),
        description="Redis: seconds after which events that a killed worker had fetched are redelivered",
    )
    retention: Annotated[timedelta, values.seconds(_DAY_SECONDS, 3650 * _DAY_SECONDS)] = Field(
        timedelta(days=30), description="seconds after which eventpact prune removes rows that nobody needs"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _filled(cls, value: object) -> object:
        if isinstance(value, str) and not value.strip():
            raise ValueError("is empty; give it a value, or leave it out")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        if self.environment == "production":
            wanted = ["secret", "database", "smtp", "base_url", "mail_from"]
            wanted += ["broker"] if self.dispatcher == "celery" else []
            missing = [f"{PREFIX}{name.upper()}" for name in wanted if name not in self.model_fields_set]
            if missing:
                raise ValueError(f"{', '.join(missing)} must be set in production")
            if not (self.base_url or "").startswith("https://"):
                raise ValueError(f"{PREFIX}BASE_URL must begin with https:// in production: codes travel in its links")
            if self.metrics and self.metrics_token is None:
                raise ValueError(f"{PREFIX}METRICS_TOKEN must be set in production to serve /metrics")
        if self.dispatcher == "celery":
            waits = [min(self.retry_backoff * 2.0**n, _MAX_RETRY_WAIT_SECONDS) for n in range(self._celery_retries)]
            on_redis = not (self.broker or "").startswith("amqp")
            if on_redis and self.celery_visibility_timeout.total_seconds() <= max(waits, default=0):
                raise ValueError(
                    "EVENTPACT_CELERY_VISIBILITY_TIMEOUT must be longer than the longest wait before a retry, which"
                    f" EVENTPACT_RETRIES and EVENTPACT_RETRY_BACKOFF make {max(waits):g} seconds; a message that waits"
                    " longer is delivered twice"
                )
        return self

    @property
    def answers_at(self) -> float:
        """The seconds at whose multiples answers about accounts leave; 0 where they leave at once."""
        if self.answer_step is None:
            return 0.1 if self.environment == "production" else 0.0
        return self.answer_step.total_seconds()

    @property
    def serves_docs(self) -> bool:
        """Return whether ``/docs`` and ``/openapi.json`` are served."""
        return self.environment != "production" if self.docs is None else self.docs

    @property
    def serves_metrics(self) -> bool:
        """Return whether ``/metrics`` is served: in production only with a token."""
        if self.metrics is None:
            return self.environment != "production" or self.metrics_token is not None
        return self.metrics

    @property
    def proxies(self) -> tuple[str, ...]:
        """The trusted proxies, one by one."""
        return () if self.trusted_proxies is None else tuple(map(str.strip, self.trusted_proxies.split(",")))

    @property
    def links_begin_with(self) -> str:
        """The base URL: by default the address that the server listens on, as seen from its own machine."""
        if self.base_url is not None:
            return self.base_url
        host = {"0.0.0.0": "127.0.0.1", "::ffff:0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - not listened on
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def uses_outbox(self) -> bool:
        """Return whether events go through the outbox: by default where a crash after the answer could lose them."""
        return self.dispatcher != "sync" if self.outbox is None else self.outbox

    @property
    def celery_retries(self) -> int:
        """Return how often Celery itself tries again: not with the outbox, whose retries outlive a broker."""
        return 0 if self.uses_outbox else self._celery_retries

    @property
    def _celery_retries(self) -> int:
        return 3 if self.retries is None else self.retries

    @property
    def outbox_retries(self) -> int:
        """Return how often the outbox tries again."""
        return 20 if self.retries is None else self.retries

    @property
    def keeps_files(self) -> bool:
        """Return whether the data folder is needed, because an embedded default is."""
        on_embedded_broker = self.dispatcher == "celery" and self.broker is None
        return on_embedded_broker or None in (self.database, self.smtp, self.secret)

    @property
    def database_url(self) -> str:
        """The URL in SQLAlchemy's form."""
        if self.database is None:
            from sqlalchemy import URL

            # A % or a ? in the folder's name would mean another file, outside of the folder.
            return URL.create("sqlite", database=str(self.data_dir / "eventpact.db")).render_as_string()
        return self.database.replace("postgresql://", "postgresql+psycopg://", 1)


def load_settings(**given: object) -> Settings:
    """Load the settings of the environment and of ``.env``; values that are given here come first.

    Raises:
        SettingsError: a setting is wrong or missing, a name unknown, or a line of ``.env`` malformed.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    origin = sources(Settings.model_fields, chosen)
    try:
        return Settings(**chosen)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(
            "; ".join(_sentence(dict(each), origin) for each in error.errors(include_url=False))
        ) from None


def _sentence(error: Mapping[str, Any], origin: Mapping[str, str]) -> str:
    """The error of one field as ``NAME: reason``, with the line of ``.env`` that it stands in."""
    reason: str = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return reason
    field = str(error["loc"][0])
    source = origin.get(field, "")
    return f"{PREFIX}{field.upper()}{f' in {source}' if '.env' in source else ''}: {reason}"
