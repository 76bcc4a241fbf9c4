"""Answers: their models and, in the schema, every status with its headers, an example and links."""

from typing import Any, Final, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from eventpact.infrastructure.http.problems import PROBLEMS, title


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Accepted(_Answer):
    """The request was accepted. The answer does not say whether a mail is sent."""

    status: Literal["accepted"] = Field(default="accepted", description="the same for every address")


class AccountBody(_Answer):
    """A verified account."""

    account_id: str = Field(
        description="identifies the account",
        examples=["0b8fdc43-6a2d-4c0c-9d1f-5f0b4bb2a0a8"],
        json_schema_extra={"format": "uuid"},
    )
    email: str = Field(description="its address, the domain in punycode", max_length=254, examples=["ada@example.com"])
    display_name: str = Field(description="the name of its owner", max_length=100, examples=["Ada"])
    verified: bool = Field(description="whether its owner has proven to read mail to it", examples=[True])


class Health(_Answer):
    """The outcome of each check."""

    status: Literal["ok"] = Field(description="ok, or the answer is a problem")
    checks: dict[str, str] = Field(
        default={},
        description="each part that requests need: ok, or the kind of its error",
        examples=[{"database": "ok"}],
    )
    counts: dict[str, int] = Field(
        default={},
        description="how much waits in the outbox, and how many deliveries have failed",
        examples=[{"failed": 0}],
    )


class FieldError(_Answer):
    """One thing that was wrong with a request."""

    type: str = Field(description="the kind of error", examples=["value_error"])
    loc: list[str | int] = Field(description="where: body, then field or position", examples=[["body", "email"]])
    msg: str = Field(description="the error in words", examples=["the part after the @ is no domain name"])


class Problem(_Answer):
    """RFC 9457. It never repeats the request."""

    type: str = Field(description="a problem that its status explains", examples=["about:blank"])
    title: str = Field(description="the status in words", examples=["Unprocessable Content"])
    status: int = Field(ge=400, le=599, description="the status of the answer", examples=[422])
    detail: str = Field(description="the fault, and the way out of it", examples=["the request is malformed"])
    errors: list[FieldError] = Field(description="each fault, with its place", max_length=20, default_factory=list)
    checks: dict[str, str] = Field(description="the outcome of each check", default_factory=dict)
    counts: dict[str, int] = Field(
        description="how many deliveries wait, and how many have failed", default_factory=dict
    )
    error_id: str = Field(description="finds a server error in the log", pattern="^[0-9a-f]{32}$", default_factory=str)


_PROBLEM: Final = {"$ref": "#/components/schemas/Problem"}
_RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "after how many seconds to try again",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
        "example": 5,
    }
}
_HEADERS: Final[dict[int, dict[str, Any]]] = {
    405: {
        "Allow": {"description": "the methods that this address takes", "required": True, "schema": {"type": "string"}}
    },
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}
_MORE: Final[dict[int, dict[str, Any]]] = {
    422: {
        "errors": [{"type": "value_error", "loc": ["body", "email"], "msg": "the part after the @ is no domain name"}]
    },
    500: {"error_id": "9f0c2d5e8a714bb3a6d1e7c4b2f80613"},
}

_SAME_EMAIL: Final = {"email": "$request.body#/email"}
_LINKS: Final[dict[str, dict[str, Any]]] = {
    "verify": {
        "operationId": "verifyAccount",
        "requestBody": _SAME_EMAIL,
        "description": "The mail that was sent holds the code.",
    },
    "verifyAgain": {
        "operationId": "verifyAccount",
        "requestBody": {**_SAME_EMAIL, "code": "$request.body#/code"},
        "description": "A code works once.",
    },
    "signUpAgain": {
        "operationId": "createAccount",
        "requestBody": _SAME_EMAIL,
        "description": "The answer is the same as for an address without an account.",
    },
    "requestCode": {
        "operationId": "requestCode",
        "requestBody": _SAME_EMAIL,
        "description": "Another code voids the one before.",
    },
}


class Api(FastAPI):
    """An application whose schema holds the model of its problems, too, which no route returns."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            schema = super().openapi()
            _, models = models_json_schema([(Problem, "validation")], ref_template="#/components/schemas/{model}")
            schema["components"]["schemas"] |= models["$defs"]
        assert self.openapi_schema is not None
        return self.openapi_schema


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The declarations of these statuses, in the words that their answers use."""
    return {status: problem_of(status, PROBLEMS[status]) for status in statuses}


def problem_of(status: int, description: str, *links: str) -> dict[str, Any]:
    """The declaration of one status that means something of its own here."""
    example = {"type": "about:blank", "title": title(status), "status": status, "detail": description}
    declared: dict[str, Any] = {
        "description": description,
        "content": {"application/problem+json": {"schema": _PROBLEM, "example": example | _MORE.get(status, {})}},
    }
    if status in _HEADERS:
        declared["headers"] = _HEADERS[status]
    return declared | _links(links)


def success(status: int, description: str, *links: str) -> dict[int | str, dict[str, Any]]:
    """The declaration of an answer that is no problem, with the names of operations that may follow."""
    return {status: {"description": description} | _links(links)}


def _links(names: tuple[str, ...]) -> dict[str, Any]:
    return {"links": {name: _LINKS[name] for name in names}} if names else {}
