"""The part of the OpenAPI schema beyond the models: every status with its headers, an example and links."""

from typing import Any, Final

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from eventpact.infrastructure.http.models import Problem
from eventpact.infrastructure.http.problems import PROBLEMS, title

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
