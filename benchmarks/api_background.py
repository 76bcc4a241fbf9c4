"""What is compared with: the same ``POST /accounts`` by FastAPI's own means, without any dispatcher.

``python benchmarks/api_background.py PORT``, with the same ``EVENTPACT_*`` settings as ``eventpact serve``.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from fastapi import BackgroundTasks, FastAPI, Request

from eventpact.application.handlers import VerifyAccountEmailHandler
from eventpact.bootstrap import Parts, build_parts
from eventpact.cli import serve as serving
from eventpact.domain.account import Account
from eventpact.domain.events import AccountCreatedEvent
from eventpact.infrastructure.http.main import MAX_BODY_BYTES, SignUp
from eventpact.infrastructure.http.middleware import BodyLimit, ClientLimit
from eventpact.infrastructure.http.openapi import Accepted
from eventpact.infrastructure.http.problems import install
from eventpact.settings import Settings, load_settings


def create_app(settings: Settings) -> FastAPI:
    """Checks and answers as the real one does."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.parts = build_parts(settings)
        yield
        app.state.parts.database.close()

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    install(app)
    limit = ClientLimit(settings.rate_limit, settings.rate_limit_storage)

    @app.post("/accounts", status_code=202)
    def create_account(body: SignUp, request: Request, background: BackgroundTasks) -> Accepted:
        limit.count("sign-up", request.client.host if request.client else "unknown")
        parts: Parts = request.app.state.parts
        account = Account(account_id=str(uuid4()), email=body.email, display_name=body.display_name)
        parts.repository.add(account)
        handler = parts.handlers[AccountCreatedEvent]
        assert isinstance(handler, VerifyAccountEmailHandler)
        background.add_task(handler.handle, AccountCreatedEvent(account_id=account.account_id, email=account.email))
        return Accepted()

    @app.get("/health/ready")
    def ready() -> dict[str, str]:
        return {"status": "ok"}

    return app


if __name__ == "__main__":
    serving.create_app = create_app  # type: ignore[assignment]  # all else is the real server's
    raise SystemExit(serving.run(None, load_settings(port=int(sys.argv[1]))))
