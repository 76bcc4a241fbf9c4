"""The HTTP API: requests, and the routes that take them."""

import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from hmac import compare_digest
from importlib.metadata import version
from typing import Annotated, Any, Final

from email_validator import EmailNotValidError, validate_email
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.datastructures import Headers

from eventpact.bootstrap import Application, bootstrap
from eventpact.domain.account import NAME_PATTERN, CreateAccountData
from eventpact.infrastructure.http.middleware import BodyLimit, CatchAll, ClientLimit, EvenPace, InFlightLimit, Requests
from eventpact.infrastructure.http.openapi import Accepted, AccountBody, Api, Health, problem_of, problems, success
from eventpact.infrastructure.http.pages import add_docs, add_verification_page
from eventpact.infrastructure.http.problems import PROBLEMS, install, problem, unavailable
from eventpact.infrastructure.http.readiness import Readiness
from eventpact.settings import Settings, load_settings

MAX_BODY_BYTES: Final = 16 * 1024
MAX_CONTENT_TYPE: Final = 200


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, frozen=True)


def _ascii_address(address: str) -> str:
    """Translate an international domain into punycode, or raise ``ValueError``: the domain layer takes ASCII."""
    try:
        # A "test environment" is one that takes addresses of the domain "test", which people try this out with.
        valid = validate_email(
            address.strip(" "), allow_smtputf8=False, check_deliverability=False, test_environment=True
        )
    except EmailNotValidError:
        # Not its own text, which quotes characters of the address.
        raise ValueError("is no address that mail could be sent to, such as name@example.com") from None
    assert valid.ascii_email is not None
    return valid.ascii_email


Email = Annotated[
    str,
    Field(
        min_length=6,
        max_length=254,
        description="an e-mail address; an international domain is kept in punycode",
        examples=["ada@example.com"],
        # No word of RFC 2047, which the domain layer refuses.
        json_schema_extra={"format": "email", "not": {"pattern": r"=\?|\?="}},
    ),
    AfterValidator(_ascii_address),
]


class SignUp(_Request):
    """The data of a sign-up."""

    email: Email
    display_name: str = Field(
        min_length=1,
        max_length=100,
        description="the name of its owner: no controls, and at least one character that is not a space",
        examples=["Ada"],
        json_schema_extra={"pattern": NAME_PATTERN},
    )


class Redemption(_Request):
    """A code and the address that it was mailed to."""

    email: Email
    code: str = Field(
        min_length=8,
        max_length=32,
        pattern="^([2-9A-HJ-KM-NP-Za-hj-km-np-z]{8}|[2-9A-HJ-KM-NP-Za-hj-km-np-z]{32})$",
        description="the code of the mail, or the long one of its link, in upper or lower case",
        examples=["7K3M9QXT"],
    )


class CodeRequest(_Request):
    """The address that another code is requested for."""

    email: Email


class JsonRoute(APIRoute):
    """Answers 415 to a body that is not declared to be JSON in UTF-8, and 400 to one that is not UTF-8."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            fault = _fault(request.headers)
            if fault is not None:
                return problem(415, fault, headers={"Accept-Post": "application/json"})
            if not json.detect_encoding(await request.body()).startswith("utf-8"):  # which would be guessed, and read
                return problem(400, "the body is not JSON in UTF-8")
            return await handle(request)

        return handle_json


def _fault(headers: Headers) -> str | None:
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        return "the body must not be compressed; leave out Content-Encoding"
    types = headers.getlist("content-type")
    # Split by hand: the parsers of mail headers take seconds for some values, and raise for others.
    media_type, *parameters = types[0].lower().split(";") if len(types) == 1 else [""]
    if media_type.strip() != "application/json" or len(types[0]) > MAX_CONTENT_TYPE:
        return PROBLEMS[415]
    for name, _, value in (parameter.partition("=") for parameter in parameters):
        # charset* is its encoded form (RFC 2231), which nobody needs for such a name.
        if name.strip().rstrip("*") == "charset" and value.strip().strip('"') not in ("utf-8", "utf8", "us-ascii"):
            return "the body must be JSON in UTF-8; leave out the charset of Content-Type"
    return None


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application, which opens its engines when it starts and drains its dispatcher when it stops.

    A server that stops by a deadline of its own puts that into ``app.state.stop_at``, by ``time.monotonic``.

    Args:
        settings: those of the environment where none are given.

    Raises:
        SettingsError: a setting of the environment is wrong.
    """
    settings = settings or load_settings()
    limit = ClientLimit(settings.rate_limit, settings.rate_limit_storage)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        application = bootstrap(settings)
        checks = {**application.checks, "rate_limit": limit.check} if limit.is_shared else application.checks
        app.state.application, app.state.readiness = application, Readiness(checks, application.counts)
        try:
            yield
        finally:
            stop_at = getattr(app.state, "stop_at", None)
            await application.aclose(None if stop_at is None else max(0.0, stop_at - time.monotonic()))

    app = Api(
        title="eventpact",
        version=version("eventpact"),
        description="Accounts, and the verification of their e-mail addresses. Every error is a problem (RFC 9457).",
        license_info={"name": "MIT", "identifier": "MIT"},
        openapi_tags=[
            {"name": "accounts", "description": "Sign up, and prove to read the mail of an address."},
            {"name": "health", "description": "Questions of those who run the server."},
        ],
        servers=[{"url": "."}],  # beside the schema, whatever path a proxy puts in front
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.serves_docs else None,
        redirect_slashes=False,
        responses=problems(405, 408, 413, 500),
    )
    if settings.answers_at:
        app.add_middleware(EvenPace, step=settings.answers_at)
    app.add_middleware(InFlightLimit, most=settings.max_in_flight)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    install(app)
    app.add_middleware(CatchAll)
    app.add_middleware(Requests)
    _add_account_routes(app, limit)
    _add_health_routes(app)

    def redeem(request: Request, email: str, code: str) -> None:
        limit.count("verify", _host(request))
        _application(request).verify_account.execute(_ascii_address(email), code)

    add_verification_page(app, redeem)
    if settings.serves_docs:
        add_docs(app, "openapi.json")
    if settings.serves_metrics:
        _add_metrics_route(app, settings)
    return app


def _application(request: Request) -> Application:
    application: Application = request.app.state.application
    return application


def _host(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _add_account_routes(app: FastAPI, limit: ClientLimit) -> None:
    api = APIRouter(route_class=JsonRoute)

    @api.post(
        "/accounts",
        status_code=202,
        operation_id="createAccount",
        summary="Sign up",
        tags=["accounts"],
        responses=problems(400, 415, 422, 429, 503) | success(202, "Accepted", "verify", "requestCode", "signUpAgain"),
    )
    def create_account(body: SignUp, request: Request) -> Accepted:
        """Create an account and mail a verification code to its owner.

        The answer is the same for an address that has an account, whose owner is mailed instead.
        """
        limit.count("sign-up", _host(request))
        data = CreateAccountData(email=body.email, display_name=body.display_name)
        _application(request).create_account.execute(data)
        return Accepted()

    @api.post(
        "/accounts/verify",
        operation_id="verifyAccount",
        summary="Verify an address",
        tags=["accounts"],
        responses=problems(415, 422, 429, 503)
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

    @api.post(
        "/accounts/verification-codes",
        status_code=202,
        operation_id="requestCode",
        summary="Ask for another code",
        tags=["accounts"],
        responses=problems(400, 415, 422, 429, 503) | success(202, "Accepted", "verify"),
    )
    def request_code(body: CodeRequest, request: Request) -> Accepted:
        """Mail another code, which voids the one before. The answer is always the same.

        The first may be asked for after a minute; the time between two doubles with each, up to an hour.
        """
        limit.count("resend", _host(request))
        _application(request).resend_code.execute(body.email)
        return Accepted()

    app.include_router(api)


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
    async def ready(request: Request) -> Health:
        """Writes to the database, and asks the broker and the storage of limits where there are any.

        Counts the deliveries that wait and that have failed. An answer is up to a second old.
        """
        readiness: Readiness = request.app.state.readiness
        report = await readiness.report()
        if report.failing:
            return unavailable(  # type: ignore[return-value]  # a response passes as it is
                f"requests cannot be served: {', '.join(report.failing)}", checks=report.checks, counts=report.counts
            )
        return Health(status="ok", checks=report.checks, counts=report.counts)


def _add_metrics_route(app: FastAPI, settings: Settings) -> None:
    @app.get("/metrics", include_in_schema=False)
    def metrics(request: Request) -> Response:
        """For Prometheus. While the database is unreachable, the counters of this process are answered alone."""
        if settings.metrics_token is not None:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            right = compare_digest(token.strip().encode(), settings.metrics_token.get_secret_value().encode())
            if scheme.lower() != "bearer" or not right:
                return problem(401, "send the metrics token", headers={"WWW-Authenticate": "Bearer"})
        application = _application(request)
        assert application.metrics is not None
        content, media_type = application.metrics.expose(request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": media_type})
