"""The use case on real parts: a SQLite file, a folder of mails, and the dispatcher that a test asks for."""

from __future__ import annotations

import email
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import default
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from eventpact.bootstrap import Application
from eventpact.infrastructure.http.main import create_app
from eventpact.settings import Settings
from support import openapi

SECRET = "0123456789abcdef0123456789abcdef"


def settings_for(folder: Path, **more: object) -> Settings:
    return Settings(_env_file=None, data_dir=folder, secret=SECRET, **({"rate_limit": "1000/minute"} | more))  # type: ignore[call-arg, arg-type]


@dataclass(frozen=True)
class Client:
    """What a test does as a person would."""

    http: httpx.AsyncClient
    application: Application
    folder: Path

    async def sign_up(self, address: str = "ada@example.com", name: str = "Ada") -> httpx.Response:
        return await self.http.post("/accounts", json={"email": address, "display_name": name})

    async def verify(self, code: str, address: str = "ada@example.com") -> httpx.Response:
        return await self.http.post("/accounts/verify", json={"email": address, "code": code})

    async def resend(self, address: str = "ada@example.com") -> httpx.Response:
        return await self.http.post("/accounts/verification-codes", json={"email": address})

    def mails(self) -> list[EmailMessage]:
        return mails_in(self.folder)


def mails_in(folder: Path) -> list[EmailMessage]:
    """Every mail in the folder, oldest first."""
    files = sorted((folder / "mail").glob("*.eml"), key=lambda path: path.stat().st_mtime_ns)
    return [email.message_from_bytes(file.read_bytes(), policy=default) for file in files]  # type: ignore[misc, arg-type]


def code_of(mail: EmailMessage) -> str:
    found = re.search(r"code is (\w{8})", mail.get_content())
    assert found, mail
    return found[1]


def assert_problem(answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in statuses, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["title"]
    assert problem["detail"]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Client]:
    """The whole application, from its start to its end, without a socket."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        hooks = {"response": [_must_be_declared]}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", event_hooks=hooks) as http:
            yield Client(http, app.state.application, settings.data_dir)


async def _must_be_declared(answer: httpx.Response) -> None:
    """Whatever a test does, it gets no answer that the schema does not tell of."""
    operation = _schema()["paths"].get(answer.request.url.path, {}).get(answer.request.method.lower())
    if operation is not None:
        declared = operation["responses"].get(str(answer.status_code))
        assert declared is not None, f"{answer.status_code} is not declared"
        assert answer.headers["Content-Type"] in declared["content"]
        assert {"Retry-After", "Allow"} & declared.get("headers", {}).keys() <= {*map(str.title, answer.headers)}


@cache
def _schema() -> dict[str, Any]:
    """The committed schema, which `test_openapi` holds to the code: to make it anew takes 30 ms an application."""
    schema: dict[str, Any] = json.loads(openapi.FILE.read_text(encoding="utf-8"))
    return schema
