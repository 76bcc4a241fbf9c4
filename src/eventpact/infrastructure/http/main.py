"""The HTTP API: routes only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response

from eventpact.bootstrap import Application, bootstrap
from eventpact.domain.account import CreateAccountData
from eventpact.infrastructure.http.middleware import BodyLimit, ClientLimit, EvenPace, InFlightLimit
from eventpact.infrastructure.http.models import (
    Accepted,
    AccountBody,
    CodeRequest,
    Health,
    Redemption,
    SignUp,
)
from eventpact.infrastructure.http.openapi import Api, problem_of, problems, success
from eventpact.infrastructure.http.problems import install, unavailable
from eventpact.settings import Settings, load_settings

__all__ = ["create_app"]

MAX_BODY_BYTES = 16 * 1024


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application, which opens its engines when it starts and drains its dispatcher when it stops.

    Args:
        settings: those of the environment where none are given.

    Raises:
        SettingsError: a setting of the environment is wrong.
    """
    settings = settings or load_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.application = bootstrap(settings)
        try:
            yield
        finally:
            await app.state.application.aclose()

    app = Api(
        title="eventpact",
        version=version("eventpact"),
        description="Accounts, and the verification of their e-mail addresses. Every error is a problem (RFC 9457).",
        license_info={"name": "MIT", "identifier": "MIT"},
        openapi_tags=[
            {"name": "accounts", "description": "Sign up, and prove to read the mail of an address."},
            {"name": "health", "description": "What those who run the server ask it."},
        ],
        lifespan=lifespan,
        docs_url="/docs" if settings.docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
        redirect_slashes=False,
        responses=problems(405, 413, 500),
    )
    if settings.answers_at:
        app.add_middleware(EvenPace, step=settings.answers_at)
    app.add_middleware(InFlightLimit, most=settings.max_in_flight)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    install(app)
    _add_account_routes(app, ClientLimit(settings.rate_limit, settings.rate_limit_storage))
    _add_health_routes(app)
    if settings.metrics:
        _add_metrics_route(app)
    return app


def _application(request: Request) -> Application:
    application: Application = request.app.state.application
    return application


def _host(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _add_account_routes(app: FastAPI, limit: ClientLimit) -> None:
    @app.post(
        "/accounts",
        status_code=202,
        operation_id="createAccount",
        summary="Sign up",
        tags=["accounts"],
        responses=problems(400, 422, 429, 503) | success(202, "Accepted", "verify", "requestCode", "signUpAgain"),
    )
    def create_account(body: SignUp, request: Request) -> Accepted:
        """Create an account and mail a verification code to its owner.

        The answer is the same for an address that has an account, whose owner is mailed instead.
        """
        limit.count("sign-up", _host(request))
        data = CreateAccountData(email=body.email, display_name=body.display_name)
        _application(request).create_account.execute(data)
        return Accepted()

    @app.post(
        "/accounts/verify",
        operation_id="verifyAccount",
        summary="Verify an address",
        tags=["accounts"],
        responses=problems(422, 429, 503)
        | success(200, "Verified", "verifyAgain", "requestCode", "signUpAgain")
        | {400: problem_of(400, "the code is wrong, used or expired, or the body cannot be read", "requestCode")},
    )
    def verify_account(body: Redemption, request: Request) -> AccountBody:
        """Redeem a verification code. A code works once, for a limited time, and for few attempts."""
        limit.count("verify", _host(request))
        account = _application(request).verify_account.execute(body.email, body.code)
        return AccountBody(
            account_id=account.account_id,
            email=account.email,
            display_name=account.display_name,
            verified=account.verified,
        )

    @app.post(
        "/accounts/verification-codes",
        status_code=202,
        operation_id="requestCode",
        summary="Ask for another code",
        tags=["accounts"],
        responses=problems(400, 422, 429, 503) | success(202, "Accepted", "verify"),
    )
    def request_code(body: CodeRequest, request: Request) -> Accepted:
        """Mail another code, which voids the one before. The answer is always the same.

        The first may be asked for after a minute; the time between two doubles with each, up to an hour.
        """
        limit.count("resend", _host(request))
        _application(request).resend_code.execute(body.email)
        return Accepted()


def _add_health_routes(app: FastAPI) -> None:
    @app.get("/health/live", operation_id="live", summary="Is the process alive?", tags=["health"])
    async def live() -> Health:
        """Always ok while the process can answer."""
        return Health(status="ok")

    @app.get(
        "/health/ready",
        operation_id="ready",
        summary="Can requests be served?",
        tags=["health"],
        responses=problems(503),
    )
    def ready(request: Request) -> Health:
        """Asks the database, and the broker if there is one; counts what waits and what has failed."""
        application = _application(request)
        outcomes = {name: _ask(check) for name, check in application.checks.items()}
        healthy = all(outcome == "ok" for outcome in outcomes.values())
        counts = {name: count() for name, count in application.counts.items()} if outcomes["database"] == "ok" else {}
        if not healthy:
            away = ", ".join(name for name, outcome in outcomes.items() if outcome != "ok")
            return unavailable(  # type: ignore[return-value]  # a response passes as it is
                f"what requests need is away: {away}", checks=outcomes, counts=counts
            )
        return Health(status="ok", checks=outcomes, counts=counts)


def _add_metrics_route(app: FastAPI) -> None:
    @app.get("/metrics", include_in_schema=False)
    def metrics(request: Request) -> Response:
        """For Prometheus. Answers without the database, too, with what this process has counted."""
        application = _application(request)
        assert application.metrics is not None
        content, media_type = application.metrics.expose(request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": media_type})


def _ask(check: Any) -> str:
    try:
        check()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        return type(error).__name__
    return "ok"
