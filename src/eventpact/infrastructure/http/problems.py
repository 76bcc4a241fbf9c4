"""Every error as problem+json (RFC 9457), which names the fault and never repeats the input."""

import http
import logging
from collections.abc import Mapping
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from limits.errors import StorageError
from sqlalchemy.exc import InternalError, OperationalError, ProgrammingError, SQLAlchemyError
from starlette.exceptions import HTTPException

from eventpact.application.commands import InvalidCodeError
from eventpact.domain.account import InvalidAccountError
from eventpact.domain.dispatcher import DispatchError, DispatchUncertainError
from eventpact.infrastructure.persistence.opening import explain, is_temporary

_log = logging.getLogger("eventpact")

PROBLEMS = {
    400: "the body cannot be read; send JSON in UTF-8",
    404: "there is nothing at this address",
    405: "this address does not take that method; the Allow header lists those that it takes",
    408: "the request was not complete in time",
    413: "the body is too large",
    415: "the body must be JSON, and say so: Content-Type: application/json",
    422: "the request is malformed; errors lists each fault with its place",
    429: "too many requests from this address; try again after as many seconds as Retry-After says",
    500: "something went wrong on the server; error_id finds it in the log",
    503: "something that is needed is unreachable; send the same request again later",
}
"""The meaning of each error, and the way out of it."""

RETRY_AFTER_SECONDS = 5
"""Seconds after which a client should repeat a request that an unreachable part made fail."""


class TooManyRequestsError(Exception):
    """A client has used up one of its limits.

    Attributes:
        retry_after: seconds until it may try again.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many requests from this address; try again in {retry_after} s")
        self.retry_after = retry_after


class ProblemResponse(JSONResponse):
    """An answer of type application/problem+json."""

    media_type = "application/problem+json"


def problem(status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: object) -> ProblemResponse:
    """The answer to an error."""
    body = {"type": "about:blank", "title": title(status), "status": status, "detail": detail, **more}
    return ProblemResponse(body, status_code=status, headers=dict(headers or {}))


def unavailable(detail: str, **more: object) -> ProblemResponse:
    """The answer while a part is unreachable, which says when to try again."""
    return problem(503, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)}, **more)


def too_many(detail: str, *, retry_after: int) -> ProblemResponse:
    """The answer to a client that has used up a limit, which says when to try again."""
    return problem(429, detail, headers={"Retry-After": str(retry_after)})


def title(status: int) -> str:
    """The status in words, as RFC 9110 has them."""
    return {413: "Content Too Large", 422: "Unprocessable Content"}.get(status) or http.HTTPStatus(status).phrase


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with a problem."""
    app.add_exception_handler(HTTPException, _http)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _invalid)  # type: ignore[arg-type]
    app.add_exception_handler(InvalidAccountError, _invalid_account)  # type: ignore[arg-type]
    app.add_exception_handler(InvalidCodeError, _invalid_code)
    app.add_exception_handler(TooManyRequestsError, _too_many)  # type: ignore[arg-type]
    app.add_exception_handler(DispatchError, _refused)
    app.add_exception_handler(SQLAlchemyError, _database)  # type: ignore[arg-type]
    app.add_exception_handler(StorageError, _uncounted)


async def _http(_: Request, error: HTTPException) -> ProblemResponse:
    return problem(error.status_code, PROBLEMS.get(error.status_code, str(error.detail)), headers=error.headers)


async def _invalid(_: Request, error: RequestValidationError) -> ProblemResponse:
    errors = [
        {"type": each["type"], "loc": [_printable(part) for part in each["loc"]], "msg": _printable(each["msg"])}
        for each in error.errors()[:20]
    ]
    return problem(422, PROBLEMS[422], errors=errors)


async def _invalid_account(_: Request, error: InvalidAccountError) -> ProblemResponse:
    errors = [{"type": "value_error", "loc": ["body", error.field], "msg": str(error)}]
    return problem(422, PROBLEMS[422], errors=errors)


async def _invalid_code(request: Request, error: Exception) -> ProblemResponse:
    metrics = request.app.state.application.metrics
    if metrics is not None:
        metrics.code_refused()
    return problem(400, str(error))


async def _too_many(_: Request, error: TooManyRequestsError) -> ProblemResponse:
    return too_many(str(error), retry_after=error.retry_after)


async def _refused(request: Request, error: Exception) -> ProblemResponse:
    if isinstance(error.__cause__, SQLAlchemyError) and not is_temporary(error.__cause__):
        return await _database(request, error.__cause__)
    _log.error("refused a request: %s: %s", type(error).__name__, error)
    happened = (
        "it is not known whether a mail goes out"
        if isinstance(error, DispatchUncertainError)
        else "nothing was mailed, because events are not being accepted at the moment"
    )
    return unavailable(f"{happened}; send the same request again later")


async def _database(_: Request, error: SQLAlchemyError) -> ProblemResponse:
    if is_temporary(error):
        _log.error("refused a request: %s", _reason(error))
        return unavailable("the database is not answering at the moment; send the same request again later")
    error_id = uuid4().hex
    _log.error("error %s: %s", error_id, _reason(error))
    return problem(500, "the database is not as this server needs it; sending again does not help", error_id=error_id)


def _reason(error: SQLAlchemyError) -> str:
    # The text of others (of a broken constraint, say) may quote an address.
    is_explained = isinstance(error, (InternalError, OperationalError, ProgrammingError))
    return explain(error) if is_explained else type(error).__name__


async def _uncounted(_: Request, error: Exception) -> ProblemResponse:
    # Without counting there would be no limit, and an attacker may have brought the storage down for that.
    _log.error("refused a request: the storage of the rate limit answered %s", type(error).__name__)
    return unavailable("requests cannot be counted at the moment; send the same request again later")


def _printable(part: object) -> object:
    # An unknown field is named by the client, who may have put anything into its name.
    return part if isinstance(part, int) else str(part)[:100].encode("ascii", "backslashreplace").decode()
