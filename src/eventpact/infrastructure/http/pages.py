"""Pages for people: the one that the link of a mail opens, and the documentation of the API."""

import base64
import hashlib
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from eventpact.application.commands import InvalidCodeError
from eventpact.infrastructure.http.problems import TooManyRequestsError

_STYLE: Final = "body{font:1rem/1.5 system-ui;max-width:26rem;margin:3rem auto}label,input,button{display:block;font:inherit;width:100%;box-sizing:border-box;margin-top:.5rem;padding:.4rem 0}"  # noqa: E501 - hashed as it is

# The link holds address and code in its fragment, which browsers do not send, so that no server on the way logs them.
# The form is filled in but not sent: programs that check mails open every link, and would verify an account that
# somebody else opened for the owner of the address.
_SCRIPT: Final = (
    "const given=new URLSearchParams(location.hash.slice(1));"
    "for(const name of ['email','code'])if(given.has(name))document.forms[0].elements[name].value=given.get(name);"
    "history.replaceState(null,'',location.pathname)"
)

_FORM: Final = (
    """<form method="post" action="verify">
<label>E-mail address <input name="email" type="email" maxlength="254" autocomplete="email" required></label>
<label>Code of the mail <input name="code" minlength="8" maxlength="32" autocomplete="one-time-code" required></label>
<button>Verify</button>
</form>
<script>"""
    + _SCRIPT
    + "</script>"
)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_HEADERS: Final = {
    "Content-Security-Policy": f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)};"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def _page(status: int, heading: str, content: str, headers: dict[str, str] | None = None) -> HTMLResponse:
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{heading}</title><style>{_STYLE}</style><h1>{heading}</h1>{content}</html>"
    )
    return HTMLResponse(text, status, headers=_HEADERS | (headers or {}))


def add_verification_page(app: FastAPI, redeem: Callable[[Request, str, str], None]) -> None:
    """Add ``/verify``: a form that redeems a code. The link of a mail fills it in; it works without a script, too.

    Args:
        redeem: redeems a code, given the request, the address and the code. It may raise ``ValueError`` (no address),
            :class:`TooManyRequestsError` or :class:`InvalidCodeError`.
    """

    @app.get("/verify", include_in_schema=False)
    async def form() -> HTMLResponse:
        return _page(200, "Verify your address", _FORM)

    @app.post("/verify", include_in_schema=False)
    async def verify(request: Request) -> HTMLResponse:
        if (
            request.headers.get("content-type", "").partition(";")[0].strip().lower()
            != "application/x-www-form-urlencoded"
        ):
            return _page(415, "Please use the form", _FORM, {"Accept-Post": "application/x-www-form-urlencoded"})
        body = (await request.body()).decode("ascii", "replace")
        try:
            given = {name: values[0] for name, values in parse_qs(body, max_num_fields=10).items()}
            await run_in_threadpool(redeem, request, given.get("email", ""), given.get("code", ""))
        except TooManyRequestsError as error:
            return _page(429, "Too many tries", f"<p>{error}</p>{_FORM}", {"Retry-After": str(error.retry_after)})
        except ValueError:
            return _page(422, "This is no e-mail address", _FORM)
        except InvalidCodeError as error:
            return _page(400, "That did not work", f"<p>{error}</p>{_FORM}")
        return _page(200, "Your address is verified", "<p>You can close this page.</p>")


def add_docs(app: FastAPI, openapi_url: str) -> None:
    """Add ``/docs``: Swagger UI, from a package instead of the CDN that FastAPI links to."""
    app.mount("/docs-assets", StaticFiles(packages=[("fastapi_offline", "static")]))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=openapi_url,
            title=app.title,
            swagger_js_url="docs-assets/swagger-ui-bundle.js",
            swagger_css_url="docs-assets/swagger-ui.css",
            swagger_favicon_url="docs-assets/favicon.png",
        )
