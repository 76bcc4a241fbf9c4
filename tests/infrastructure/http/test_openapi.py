"""The schema is part of what clients may rely on: it is complete, and changes only where somebody wants it to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import pytest
from support import openapi

from eventpact.infrastructure.http.openapi import Problem

SCHEMA = json.loads(openapi.current())
OPERATIONS = {path: next(iter(methods.values())) for path, methods in SCHEMA["paths"].items()}


def test_the_schema_is_the_committed_one() -> None:
    committed = openapi.FILE.read_text(encoding="utf-8")
    assert openapi.current() == committed, "if the API was meant to change, run: python tests/support/openapi.py"


@pytest.mark.parametrize("base", ["http://127.0.0.1:8000/", "https://shop.example/accounts-api/"])
def test_requests_go_where_the_schema_is_whatever_path_a_proxy_puts_in_front(base: str) -> None:
    """Those of /docs, too, which went to the root of the host."""
    (server,) = SCHEMA["servers"]
    assert urljoin(f"{base}openapi.json", server["url"]) == base


def test_every_operation_declares_every_status() -> None:
    assert {path: set(operation["responses"]) for path, operation in OPERATIONS.items()} == {
        "/accounts": {"202", "400", "405", "408", "413", "415", "422", "429", "500", "503"},
        "/accounts/verify": {"200", "400", "405", "408", "413", "415", "422", "429", "500", "503"},
        "/accounts/verification-codes": {"202", "400", "405", "408", "413", "415", "422", "429", "500", "503"},
        "/health/live": {"200", "405", "408", "413", "500"},
        "/health/ready": {"200", "405", "408", "413", "500", "503"},
    }


@pytest.mark.parametrize("path", OPERATIONS)
def test_every_operation_is_described_and_its_errors_are_problems_with_an_example(path: str) -> None:
    operation = OPERATIONS[path]
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    for status, response in operation["responses"].items():
        assert response["description"]
        if int(status) >= 400:
            content = response["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert Problem(**content["example"]).status == int(status)
        assert ("Retry-After" in response.get("headers", {})) == (status in {"429", "503"})
        assert ("Allow" in response.get("headers", {})) == (status == "405")


def objects(schema: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            yield name, schema
        for key, value in schema.items():
            yield from objects(value, key)


def test_every_model_takes_the_fields_it_names_and_no_others_and_describes_each() -> None:
    found = dict(objects(SCHEMA["components"]["schemas"]))
    assert {"SignUp", "Redemption", "CodeRequest", "Accepted", "AccountBody", "Health", "Problem"} <= set(found)
    for name, model in found.items():
        assert model["additionalProperties"] is False, name
        assert model["description"], name
        for field, declared in model["properties"].items():
            assert declared["description"], f"{name}.{field}"


@pytest.mark.parametrize("model", ["SignUp", "Redemption", "CodeRequest"])
def test_every_text_that_is_taken_is_bounded_and_has_an_example(model: str) -> None:
    for field in SCHEMA["components"]["schemas"][model]["properties"].values():
        assert field["type"] == "string"
        assert 0 < field["minLength"] <= field["maxLength"] <= 254
        assert field["examples"]


def test_what_may_follow_an_answer_is_told_by_links_to_operations_that_exist() -> None:
    ids = {operation["operationId"] for operation in OPERATIONS.values()}
    links = {
        (path, status): set(response["links"])
        for path, operation in OPERATIONS.items()
        for status, response in operation["responses"].items()
        if "links" in response
        if all(link["operationId"] in ids for link in response["links"].values())
    }
    assert links == {
        ("/accounts", "202"): {"verify", "requestCode", "signUpAgain"},
        ("/accounts/verify", "200"): {"verifyAgain", "requestCode", "signUpAgain"},
        ("/accounts/verify", "400"): {"requestCode"},
        ("/accounts/verification-codes", "202"): {"verify"},
    }
