"""Every setting, read from ``EVENTPACT_*`` in the environment or from ``.env``."""

from __future__ import annotations

from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from annotated_types import Ge
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventpact.infrastructure.monitoring.logs import LogFormat

__all__ = ["Settings", "SettingsError", "load_settings"]


def _seconds(value: object) -> object:
    """The environment holds text, and ``timedelta`` would not take "60"."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError("must be a number of seconds") from None
    return value


Seconds = Annotated[timedelta, BeforeValidator(_seconds), Ge(timedelta(0))]
DispatcherName = Literal["sync", "asyncio", "celery"]


class SettingsError(Exception):
    """A setting is missing or wrong; the message is one line that names it."""


class Settings(BaseSettings):
    """How eventpact runs. Each field is the environment variable ``EVENTPACT_<FIELD>``."""

    model_config = SettingsConfigDict(
        env_prefix="EVENTPACT_", env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    environment: Literal["development", "production"] = Field(
        "development", description="production refuses to start while what it needs is left to its default"
    )
    dispatcher: DispatcherName = Field("asyncio", description="what carries the events")
    data_dir: Path = Field(Path(".eventpact"), description="where the embedded defaults keep their files")
    database: str | None = Field(
        None, repr=False, description="postgresql://… or sqlite:///…; by default a SQLite file in data_dir"
    )
    broker: str | None = Field(
        None, repr=False, description="redis://… or amqp://…; by default an embedded Valkey in data_dir"
    )
    smtp: str | None = Field(
        None,
        repr=False,
        description="smtp://user:password@host:port (STARTTLS) or smtps://…; by default .eml files in data_dir",
    )
    smtp_starttls: bool | None = Field(
        None, description="insist on STARTTLS, or do without; by default where it is offered"
    )
    smtp_timeout: float = Field(10.0, gt=0, description="seconds that one answer of the mail server may take")
    mail_from: str = Field("eventpact <no-reply@example.com>", description="the sender of mails")
    base_url: str = Field("http://127.0.0.1:8000", description="what links in mails begin with")
    secret: SecretStr | None = Field(None, description="at least 32 characters; codes are derived from it")
    host: str = Field("127.0.0.1", description="the address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="the port to listen on; 0 takes a free one")
    docs: bool = Field(True, description="serve /docs and /openapi.json")
    metrics: bool = Field(True, description="serve /metrics, which tells how many events there are, to anybody")
    log_format: LogFormat = Field("text", description="text, or json: one object a line, with fields of its own")
    code_ttl: Seconds = Field(timedelta(minutes=10), description="how long a code is valid, in seconds")
    answer_step: Seconds | None = Field(
        None,
        description="answers about accounts leave at multiples of this many seconds, so that their time does not tell"
        " whether an address is known; by default 0.1 in production, else 0, which does without",
    )
    resend_interval: Seconds = Field(timedelta(seconds=60), description="seconds between two mails to one owner")
    rate_limit: str = Field("20/minute", description="sign-ups a client address may make")
    rate_limit_storage: str = Field(
        "memory://", repr=False, description="memory:// for one process, redis://… for several"
    )
    max_in_flight: int = Field(
        100, gt=0, description="requests about accounts that are served at once; one more is answered 503"
    )
    retries: int = Field(3, ge=0, le=20, description="how often Celery tries a failed delivery again")
    retry_backoff: float = Field(
        2.0,
        gt=0,
        description="seconds before the first retry at most, and half of them at least; doubled for each further one,"
        " up to 60",
    )
    max_pending: int = Field(10_000, gt=0, description="deliveries that asyncio keeps pending before it refuses")
    outbox: bool | None = Field(
        None,
        description="write events in the transaction of what they tell of; by default, except with sync, which blocks",
    )
    outbox_lease: Seconds = Field(
        timedelta(seconds=10), gt=timedelta(0), description="after how many silent seconds a process is taken for dead"
    )
    outbox_resend: Seconds = Field(
        timedelta(seconds=60),
        gt=timedelta(0),
        description="Celery: seconds until an event that is not settled is published again; longer than all retries",
    )
    drain_timeout: float = Field(10.0, ge=0, description="seconds that a stopping server waits for its handlers")
    celery_queue: str = Field("eventpact", description="the queue of events")
    celery_acks_late: bool | None = Field(
        None, description="acknowledge after handling; by default on RabbitMQ, where that gives at least once"
    )
    celery_visibility_timeout: Seconds = Field(
        timedelta(seconds=300), description="Redis: after how many seconds a killed worker's event is redelivered"
    )

    @field_validator("database")
    @classmethod
    def _database(cls, url: str | None) -> str | None:
        return _of_scheme(url, "database", "postgresql", "postgresql+psycopg", "sqlite")

    @field_validator("broker")
    @classmethod
    def _broker(cls, url: str | None) -> str | None:
        return _of_scheme(url, "broker", "redis", "rediss", "amqp", "amqps")

    @field_validator("smtp")
    @classmethod
    def _smtp(cls, url: str | None) -> str | None:
        return _of_scheme(url, "smtp", "smtp", "smtps")

    @field_validator("rate_limit_storage")
    @classmethod
    def _rate_limit_storage(cls, url: str) -> str:
        return _of_scheme(url, "storage", "memory", "redis", "rediss") or url

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, url: str) -> str:
        _of_scheme(url, "base_url", "http", "https")
        if not urlsplit(url).hostname or not url.isprintable() or " " in url:
            raise ValueError("must be a URL such as https://shop.example")
        return url.rstrip("/")

    @field_validator("mail_from")
    @classmethod
    def _mail_from(cls, address: str) -> str:
        message = EmailMessage()
        try:
            message["From"] = address
            (sender,) = message["From"].addresses
            defects = message["From"].defects
        except (ValueError, IndexError):
            defects = (address,)
        if defects or not sender.username or not sender.domain:
            raise ValueError("must be an address such as Shop <no-reply@example.com>")
        return address

    @field_validator("rate_limit")
    @classmethod
    def _rate_limit(cls, rate: str) -> str:
        import limits

        limits.parse(rate)
        return rate

    @field_validator("secret")
    @classmethod
    def _secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters; make one with: openssl rand -hex 32")
        return secret

    @model_validator(mode="after")
    def _production(self) -> Settings:
        if self.environment == "production":
            wanted = ["secret", "database", "smtp", "base_url", "mail_from"]
            wanted += ["broker"] if self.dispatcher == "celery" else []
            missing = [f"EVENTPACT_{name.upper()}" for name in wanted if name not in self.model_fields_set]
            if missing:
                raise ValueError(f"{', '.join(missing)} must be set in production")
        return self

    @property
    def answers_at(self) -> float:
        """The seconds at whose multiples answers about accounts leave; 0 where they leave at once."""
        if self.answer_step is None:
            return 0.1 if self.environment == "production" else 0.0
        return self.answer_step.total_seconds()

    @property
    def uses_outbox(self) -> bool:
        """Whether events go through the outbox: by default where a crash could lose them after the answer was given."""
        return self.dispatcher != "sync" if self.outbox is None else self.outbox

    @property
    def database_url(self) -> str:
        """The URL as SQLAlchemy takes it."""
        if self.database is None:
            return f"sqlite:///{self.data_dir / 'eventpact.db'}"
        return self.database.replace("postgresql://", "postgresql+psycopg://", 1)


def load_settings(**given: object) -> Settings:
    """The settings of the environment, with those given here over them.

    Raises:
        SettingsError: one is wrong or missing.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except UnicodeDecodeError:
        raise SettingsError(".env cannot be read; it must be text in UTF-8") from None
    except ValidationError as error:
        raise SettingsError(
            "; ".join(
                ": ".join(
                    [
                        *(f"EVENTPACT_{name}".upper() for name in each["loc"][:1]),
                        each["msg"].removeprefix("Value error, "),
                    ]
                )
                for each in error.errors(include_url=False, include_input=False)
            )
        ) from None


def _of_scheme(url: str | None, name: str, *schemes: str) -> str | None:
    if url is None:
        return None
    if urlsplit(url).scheme not in schemes:
        raise ValueError(f"the {name} URL must begin with one of {', '.join(f'{scheme}://' for scheme in schemes)}")
    try:
        _ = urlsplit(url).port
    except ValueError:  # its text would quote a password that has a slash in it
        raise ValueError(
            f"the {name} URL has an impossible port (in a password, / is written %2F and @ is %40)"
        ) from None
    return url
