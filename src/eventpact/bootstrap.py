"""The composition root: settings in, a wired application out. The one module that knows every layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from eventpact.application.commands import CreateAccountCommand, ResendCodeCommand, VerifyAccountCommand
from eventpact.application.handlers import NotifyOwnerHandler, VerifyAccountEmailHandler
from eventpact.application.ports import MailerService, UnitOfWork
from eventpact.domain.account import CodeMaker
from eventpact.domain.dispatcher import EventDispatcher, FailedDelivery, FailureSink, Handlers
from eventpact.domain.events import (
    AccountCreatedEvent,
    DomainEvent,
    SignUpRepeatedEvent,
    VerificationCodeRequestedEvent,
)
from eventpact.environment import CannotStartError
from eventpact.infrastructure.asyncio_dispatcher import AsyncioEventDispatcher
from eventpact.infrastructure.dispatching.context import VariableCarrier
from eventpact.infrastructure.dispatching.failures import FailureReporter, log_failure
from eventpact.infrastructure.dispatching.subscriptions import SubscriptionTable
from eventpact.infrastructure.mail import FolderMailer, Messages, SmtpMailer
from eventpact.infrastructure.monitoring.logs import REQUEST_ID
from eventpact.infrastructure.monitoring.metrics import Metrics, ObservedEventDispatcher, Stock
from eventpact.infrastructure.outbox.store import OutboxStore
from eventpact.infrastructure.outbox_dispatcher import OutboxEventDispatcher
from eventpact.infrastructure.persistence.accounts import SqlAccountRepository, SqlVerificationCodes
from eventpact.infrastructure.persistence.database import Database, check_database
from eventpact.infrastructure.persistence.failure_store import FailureStore
from eventpact.infrastructure.persistence.opening import agree, database_file, open_database, open_folder, open_secret
from eventpact.infrastructure.persistence.replay import return_readable
from eventpact.infrastructure.sync_dispatcher import SyncEventDispatcher
from eventpact.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

Engine = Callable[[Handlers, FailureSink], EventDispatcher]

CONTEXT: Final = VariableCarrier({"request_id": REQUEST_ID})
"""Takes the id of a request to the handlers of its events, so that the records of a worker show it."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts that the web process, the worker and the relay share.

    Attributes:
        handlers: every event type with its handlers.
        failures: the store of failed deliveries.
        outbox: the store that events are written to, if the settings say so.
        agreement: the facts that a server and its workers must share.
    """

    settings: Settings
    database: Database
    repository: SqlAccountRepository
    codes: SqlVerificationCodes
    handlers: Handlers
    failures: FailureStore
    outbox: OutboxStore
    agreement: Mapping[str, str]

    @property
    def on_failure(self) -> FailureReporter:
        """The failure sink: store a failed delivery, then log it, masked because an exception may quote an address."""

        def store_and_log(failed: FailedDelivery) -> None:
            self.failures.keep(failed)
            log_failure(failed, masked=True)

        return FailureReporter(store_and_log, masked=True)

    def stock(self) -> Stock:
        """Count failures and, with the outbox, entries, in one transaction."""
        with self.database.transaction():
            failed = self.failures.count()
            if not self.settings.uses_outbox:
                return Stock(failed)
            backlog = self.outbox.backlog()
        return Stock(failed, backlog.entries, backlog.oldest)


@dataclass(frozen=True, kw_only=True)
class Application:
    """The use cases, ready to be called.

    Attributes:
        checks: by name, functions that raise when a part that requests need is unreachable.
        counts: by name, functions that count rows which somebody may have to look after.
        metrics: ``None`` where the settings switch them off.
    """

    settings: Settings
    dispatcher: EventDispatcher
    create_account: CreateAccountCommand
    verify_account: VerifyAccountCommand
    resend_code: ResendCodeCommand
    checks: Mapping[str, Callable[[], object]]
    counts: Mapping[str, Callable[[], int]]
    metrics: Metrics | None
    database: Database

    async def aclose(self, timeout: float | None = None) -> tuple[DomainEvent, ...]:
        """Drain the dispatcher, then close the database. Returns the undelivered.

        Args:
            timeout: seconds to drain; those of the settings where none are given.
        """
        try:
            return await self.dispatcher.aclose(self.settings.drain_timeout if timeout is None else timeout)
        finally:
            self.database.close()


def build_parts(settings: Settings) -> Parts:
    """Build the handlers and the parts that they need. An embedded SQLite file is made and migrated.

    Raises:
        CannotStartError: the data folder, the secret or the database cannot be used.
    """
    if settings.keeps_files:
        open_folder(settings.data_dir)
    secret = settings.secret.get_secret_value().encode() if settings.secret else open_secret(settings.data_dir)
    maker, mailer = CodeMaker(secret), _mailer(settings)
    database = open_database(settings.database_url, migrate=settings.database is None)
    with ExitStack() as undo:
        undo.callback(database.close)
        repository = SqlAccountRepository(database, settings.resend_interval)
        codes = SqlVerificationCodes(database, maker, settings.code_ttl)
        verify = VerifyAccountEmailHandler(codes, mailer)
        handlers: Handlers = {
            AccountCreatedEvent: verify,
            VerificationCodeRequestedEvent: verify,
            SignUpRepeatedEvent: NotifyOwnerHandler(mailer),
        }
        parts = Parts(
            settings=settings,
            database=database,
            repository=repository,
            codes=codes,
            handlers=handlers,
            failures=FailureStore(database, SubscriptionTable(handlers)),
            outbox=OutboxStore(database),
            agreement=agree(database, secret, outbox=settings.uses_outbox),
        )
        undo.pop_all()
    return parts


def existing(settings: Settings) -> Settings:
    """Return the settings of a server that was started before; nothing is made for them.

    Raises:
        CannotStartError: there is no such database, or no such secret.
    """
    database, secret = database_file(settings.database_url), settings.data_dir / "secret"
    if database is not None and not database.exists():
        raise CannotStartError(
            f"there is no eventpact here: {database} does not exist; give the server's folder with --data-dir, or its"
            " database with --database"
        )
    if settings.secret is None and not secret.exists():
        # A database that cannot be opened is told first: where that is wrong, the folder may well be right.
        open_database(settings.database_url, migrate=False).close()
        raise CannotStartError(
            f"there is no eventpact here: {secret} does not exist; give the server's folder with --data-dir, or its"
            " secret with EVENTPACT_SECRET"
        )
    return settings


def bootstrap(settings: Settings) -> Application:
    """Wire the web application. Call it inside the event loop that is to run the handlers."""
    parts = build_parts(settings)
    database = parts.database
    celery = _celery_app(settings)
    metrics = Metrics(parts.handlers, parts.stock, settles=celery is None) if settings.serves_metrics else None

    engine = engine_of(parts, celery)
    if settings.uses_outbox:
        engine = partial(_outbox, parts, engine, relay=True)
    if metrics is not None:
        engine = partial(_observed, parts, engine, metrics)
    dispatcher = engine(parts.handlers, parts.on_failure)

    unit_of_work: UnitOfWork = database.transaction if settings.uses_outbox else nullcontext
    checks: dict[str, Callable[[], object]] = {"database": partial(check_database, database)}
    if celery is not None:
        from eventpact.infrastructure.celery.app import ping

        checks["broker"] = partial(ping, celery)
    counts = {"failed": parts.failures.count}
    if settings.uses_outbox:
        counts["outbox"] = lambda: parts.outbox.backlog().entries
    return Application(
        settings=settings,
        dispatcher=dispatcher,
        create_account=CreateAccountCommand(dispatcher, parts.repository, unit_of_work),
        verify_account=VerifyAccountCommand(parts.codes),
        resend_code=ResendCodeCommand(dispatcher, parts.repository, unit_of_work),
        checks=checks,
        counts=counts,
        metrics=metrics,
        database=database,
    )


def build_worker(settings: Settings) -> tuple[Celery, EventDispatcher, Parts]:
    """Wire a worker: the Celery application with its tasks registered."""
    from eventpact.infrastructure.celery.app import make_celery

    parts = build_parts(settings)
    app = make_celery(settings, role="worker")
    engine: Engine = partial(_celery, parts, app, consume=True)
    if settings.uses_outbox:
        engine = partial(_outbox, parts, engine, relay=False)
    return app, engine(parts.handlers, parts.on_failure), parts


def build_relay(settings: Settings) -> tuple[EventDispatcher, Parts]:
    """Wire a relay, which delivers the outbox and receives no events. Call it inside the event loop."""
    parts = build_parts(settings)
    engine = engine_of(parts, _celery_app(settings))
    return _outbox(parts, engine, parts.handlers, parts.on_failure, relay=True), parts


def with_broker(settings: Settings) -> Settings:
    """Return the settings, with the embedded broker of a running server where Celery has no broker set.

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


def engine_of(parts: Parts, celery: Celery | None) -> Engine:
    """Return the builder of the dispatcher that the settings name. To swap it is to change this setting alone."""
    if celery is not None:
        return partial(_celery, parts, celery)
    return _sync if parts.settings.dispatcher == "sync" else partial(_asyncio, parts)


def _sync(handlers: Handlers, on_failure: FailureSink) -> EventDispatcher:
    return SyncEventDispatcher(handlers, on_failure=on_failure)


def _asyncio(parts: Parts, handlers: Handlers, on_failure: FailureSink) -> EventDispatcher:
    return AsyncioEventDispatcher(handlers, on_failure=on_failure, max_pending=parts.settings.max_pending)


def _celery(
    parts: Parts, app: Celery, handlers: Handlers, on_failure: FailureSink, *, consume: bool = False
) -> EventDispatcher:
    from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher

    return CeleryEventDispatcher(
        app,
        handlers,
        on_failure=on_failure,
        on_unreadable=parts.failures.keep_unreadable,
        retries=parts.settings.celery_retries,
        backoff=parts.settings.retry_backoff,
        agreement=parts.agreement,
        context=CONTEXT,
        consume=consume,
    )


def _outbox(
    parts: Parts, engine: Engine, handlers: Handlers, on_failure: FailureSink, *, relay: bool
) -> OutboxEventDispatcher:
    settings = parts.settings
    return OutboxEventDispatcher(
        handlers,
        engine,
        parts.outbox,
        on_failure=on_failure,
        on_unreadable=parts.failures.keep_unreadable,
        return_readable=partial(return_readable, parts.failures, SubscriptionTable(handlers), parts.outbox),
        retries=settings.outbox_retries,
        backoff=settings.retry_backoff,
        lease=settings.outbox_lease,
        resend=settings.outbox_resend if settings.dispatcher == "celery" else None,
        relay=relay,
        context=CONTEXT,
    )


def _observed(
    parts: Parts, engine: Engine, metrics: Metrics, handlers: Handlers, on_failure: FailureSink
) -> EventDispatcher:
    return ObservedEventDispatcher(
        handlers, engine, metrics, on_failure=on_failure, after_commit=parts.database.after_commit
    )


def _celery_app(settings: Settings) -> Celery | None:
    if settings.dispatcher != "celery":
        return None
    from eventpact.infrastructure.celery.app import make_celery

    return make_celery(settings, "web")


def _mailer(settings: Settings) -> MailerService:
    messages = Messages(settings.mail_from, settings.links_begin_with)
    if settings.smtp is None:
        return FolderMailer(settings.data_dir / "mail", messages)
    return SmtpMailer(settings.smtp, messages, starttls=settings.smtp_starttls, timeout=settings.smtp_timeout)
