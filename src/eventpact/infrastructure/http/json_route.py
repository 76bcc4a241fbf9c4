"""Routes that take JSON, and say so to whoever sends something else."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from email.message import EmailMessage
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers

from eventpact.infrastructure.http.problems import PROBLEMS, problem

__all__ = ["JsonRoute"]


class JsonRoute(APIRoute):
    """Answers 415 to a body that is not declared to be JSON in UTF-8. Without that FastAPI would answer 422."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            fault = _fault(request.headers)
            if fault is not None:
                return problem(415, fault, headers={"Accept-Post": "application/json"})
            return await handle(request)

        return handle_json


def _fault(headers: Headers) -> str | None:
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        return "the body must not be compressed; leave out Content-Encoding"
    types = headers.getlist("content-type")
    message = EmailMessage()
    message["Content-Type"] = types[0] if len(types) == 1 and types[0].isprintable() else ""
    if message.get_content_type() != "application/json":
        return PROBLEMS[415]
    if message.get_content_charset("utf-8") not in ("utf-8", "utf8", "us-ascii"):
        return "the body must be JSON in UTF-8; leave out the charset of Content-Type"
    return None
