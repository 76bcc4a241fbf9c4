"""The composition root: settings in, a wired application out. The one module that knows every layer."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar

from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from eventpact.application.codes import CodeMaker
from eventpact.application.commands import CreateAccountCommand, ResendCodeCommand, VerifyAccountCommand
from eventpact.application.handlers import NotifyOwnerHandler, VerifyAccountEmailHandler
from eventpact.application.ports import MailerService
from eventpact.domain.account import Account, CreateAccountData
from eventpact.domain.dispatcher import EventDispatcher, FailedDelivery, FailureSink, Handlers
from eventpact.domain.events import (
    AccountCreatedEvent,
    DomainEvent,
    SignUpRepeatedEvent,
    VerificationCodeRequestedEvent,
)
from eventpact.infrastructure.dispatching.observing import ObservedEventDispatcher
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable, log_failure
from eventpact.infrastructure.mail import FolderMailer, Messages, SmtpMailer
from eventpact.infrastructure.monitoring.metrics import Metrics, Stock
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.outbox_dispatcher import OutboxEventDispatcher
from eventpact.infrastructure.persistence.accounts import SqlAccountRepository, SqlVerificationCodes
from eventpact.infrastructure.persistence.database import Database
from eventpact.infrastructure.persistence.failure_store import FailureStore
from eventpact.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

__all__ = [
    "Application",
    "CannotStartError",
    "Parts",
    "UseCase",
    "bootstrap",
    "build_parts",
    "build_relay",
    "build_worker",
    "engine_of",
    "with_broker",
]

Engine = Callable[[Handlers, FailureSink], EventDispatcher]
P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class CannotStartError(Exception):
    """What an application is made of cannot be opened; the message is one line that says what."""


class UseCase(Protocol[P, R_co]):
    """Something that a person wants done."""

    def execute(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the web process and the worker share.

    Attributes:
        handlers: every event type with its handlers.
        failures: what has failed.
        outbox: where events are written, if the settings say so.
    """

    settings: Settings
    database: Database
    repository: SqlAccountRepository
    codes: SqlVerificationCodes
    handlers: Handlers
    failures: FailureStore
    outbox: OutboxStore

    def on_failure(self, failed: FailedDelivery) -> None:
        """The failure sink: what has failed is kept, and then logged."""
        self.failures.keep(failed)
        log_failure(failed)


@dataclass(frozen=True, kw_only=True)
class Application:
    """The use cases, ready to be called.

    Attributes:
        checks: by name, what raises when something that a request needs is away.
        counts: by name, how many there are of what somebody may have to look after.
        metrics: unless the settings are against it.
    """

    settings: Settings
    dispatcher: EventDispatcher
    create_account: UseCase[[CreateAccountData], Account]
    verify_account: VerifyAccountCommand
    resend_code: UseCase[[str], None]
    checks: Mapping[str, Callable[[], object]]
    counts: Mapping[str, Callable[[], int]]
    metrics: Metrics | None
    database: Database

    async def aclose(self) -> tuple[DomainEvent, ...]:
        """Drain the dispatcher, then close the database. Returns the undelivered."""
        try:
            return await self.dispatcher.aclose(self.settings.drain_timeout)
        finally:
            self.database.close()


def build_parts(settings: Settings) -> Parts:
    """The handlers and what they need. An embedded SQLite file is brought to the newest schema.

    Raises:
        CannotStartError: the data folder cannot be used, or the embedded database not opened.
    """
    try:
        return _build_parts(settings)
    except OSError as error:
        raise CannotStartError(f"{error.filename}: {error.strerror}; give another folder with --data-dir") from error


def _build_parts(settings: Settings) -> Parts:
    maker, mailer = CodeMaker(_secret(settings)), _mailer(settings)
    database = _open(settings)
    repository = SqlAccountRepository(database, settings.resend_interval)
    codes = SqlVerificationCodes(database, maker, settings.code_ttl)
    verify = VerifyAccountEmailHandler(codes, mailer)
    handlers: Handlers = {
        AccountCreatedEvent: verify,
        VerificationCodeRequestedEvent: verify,
        SignUpRepeatedEvent: NotifyOwnerHandler(mailer),
    }
    return Parts(
        settings=settings,
        database=database,
        repository=repository,
        codes=codes,
        handlers=handlers,
        failures=FailureStore(database, SubscriptionTable(handlers)),
        outbox=OutboxStore(database),
    )


def _open(settings: Settings) -> Database:
    database = Database(settings.database_url)
    if settings.database is None:
        try:
            database.migrate()
        except (SQLAlchemyError, CommandError) as error:
            database.close()
            raise CannotStartError(
                f"the database in {settings.data_dir} cannot be used ({type(error).__name__}); was it made by a newer"
                " version, or by something else?"
            ) from error
    return database


def bootstrap(settings: Settings) -> Application:
    """Wire the application. Call it inside the event loop that is to run the handlers."""
    parts = build_parts(settings)
    engine, checks = engine_of(parts)
    metrics = _metrics(parts) if settings.metrics else None
    dispatcher = _dispatcher(parts, engine, relay=True, metrics=metrics)
    create_account: UseCase[[CreateAccountData], Account] = CreateAccountCommand(dispatcher, parts.repository)
    resend_code: UseCase[[str], None] = ResendCodeCommand(dispatcher, parts.repository)
    counts = {"failed": parts.failures.count}
    if settings.uses_outbox:
        create_account = _InTransaction(parts.database, create_account)
        resend_code = _InTransaction(parts.database, resend_code)
        counts["outbox"] = lambda: parts.outbox.backlog().entries
    return Application(
        settings=settings,
        dispatcher=dispatcher,
        create_account=create_account,
        verify_account=VerifyAccountCommand(parts.codes),
        resend_code=resend_code,
        checks={"database": parts.database.ping, **checks},
        counts=counts,
        metrics=metrics,
        database=parts.database,
    )


def build_worker(settings: Settings) -> tuple[Celery, EventDispatcher, Parts]:
    """The Celery application of a worker, with its tasks registered."""
    from eventpact.infrastructure.celery.app import make_celery

    parts = build_parts(settings)
    app = make_celery(settings, role="worker")
    return app, _dispatcher(parts, _celery(app, parts), relay=False), parts


def build_relay(settings: Settings) -> tuple[EventDispatcher, Parts]:
    """A dispatcher that nobody dispatches to, for what is in the outbox. Call it inside the event loop."""
    parts = build_parts(settings)
    return _dispatcher(parts, engine_of(parts)[0], relay=True), parts


def with_broker(settings: Settings) -> Settings:
    """The settings, with the embedded broker that a server has running on this machine, where Celery has none set.

    Raises:
        CannotStartError: no server has one running.
    """
    if settings.dispatcher != "celery" or settings.broker is not None:
        return settings
    from eventpact.infrastructure.celery.embedded_broker import BrokerError, running_broker

    try:
        return settings.model_copy(update={"broker": running_broker(settings.data_dir / "broker")})
    except BrokerError as error:
        raise CannotStartError(str(error)) from error


def engine_of(parts: Parts) -> tuple[Engine, dict[str, Callable[[], Any]]]:
    """What builds the dispatcher that the settings name. To swap it is to change this setting, and nothing else."""
    settings = parts.settings
    if settings.dispatcher == "sync":
        from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher

        return lambda handlers, on_failure: SyncEventDispatcher(handlers, on_failure=on_failure), {}
    if settings.dispatcher == "asyncio":
        from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher

        return (
            lambda handlers, on_failure: AsyncioEventDispatcher(
                handlers, on_failure=on_failure, max_pending=settings.max_pending
            ),
            {},
        )
    from eventpact.infrastructure.celery.app import make_celery, ping

    app = make_celery(settings, role="web")
    return _celery(app, parts), {"broker": lambda: ping(app)}


def _celery(app: Celery, parts: Parts) -> Engine:
    from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher

    return lambda handlers, on_failure: CeleryEventDispatcher(
        app,
        handlers,
        on_failure=on_failure,
        on_unreadable=parts.failures.keep_unreadable,
        retries=parts.settings.retries,
        backoff=parts.settings.retry_backoff,
    )


def _dispatcher(parts: Parts, engine: Engine, *, relay: bool, metrics: Metrics | None = None) -> EventDispatcher:
    build = _outboxed(parts, engine, relay=relay) if parts.settings.uses_outbox else engine
    if metrics is None:
        return build(parts.handlers, parts.on_failure)
    return ObservedEventDispatcher(
        parts.handlers, build, metrics, on_failure=parts.on_failure, after_commit=parts.database.after_commit
    )


def _outboxed(parts: Parts, engine: Engine, *, relay: bool) -> Engine:
    settings = parts.settings
    return lambda handlers, on_failure: OutboxEventDispatcher(
        handlers,
        engine,
        parts.outbox,
        on_failure=on_failure,
        on_unreadable=parts.failures.keep_unreadable,
        lease=settings.outbox_lease,
        resend=settings.outbox_resend if settings.dispatcher == "celery" else None,
        relay=relay,
    )


def _metrics(parts: Parts) -> Metrics:
    def take_stock() -> Stock:
        with parts.database.transaction():
            failed = parts.failures.count()
            if not parts.settings.uses_outbox:
                return Stock(failed)
            backlog = parts.outbox.backlog()
        return Stock(failed, backlog.entries, backlog.oldest)

    return Metrics(parts.handlers, take_stock, settles=parts.settings.dispatcher != "celery")


@dataclass(frozen=True)
class _InTransaction(Generic[P, R_co]):
    """A use case whose data and events are committed together, or not at all."""

    database: Database
    use_case: UseCase[P, R_co]

    def execute(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        with self.database.transaction():
            return self.use_case.execute(*args, **kwargs)


def _mailer(settings: Settings) -> MailerService:
    messages = Messages(settings.mail_from, settings.base_url)
    if settings.smtp is None:
        return FolderMailer(settings.data_dir / "mail", messages)
    return SmtpMailer(settings.smtp, messages, starttls=settings.smtp_starttls, timeout=settings.smtp_timeout)


def _secret(settings: Settings) -> bytes:
    if settings.secret is not None:
        return settings.secret.get_secret_value().encode()
    # Production does not get here. The file is shared with the workers of this machine, and survives a restart.
    path = settings.data_dir / "secret"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"secret.{os.getpid()}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_hex(32))
    try:
        os.link(draft, path)  # the first process wins, and nobody reads half a secret
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text().encode()
