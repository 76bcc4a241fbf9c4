"""What requests and answers hold. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from eventpact.domain.account import CreateAccountData, normalize_email

__all__ = ["Accepted", "AccountBody", "CodeRequest", "Health", "Problem", "Redemption", "SignUp"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, frozen=True)


Email = Annotated[
    str,
    Field(
        min_length=6,
        max_length=254,
        description="an e-mail address; its domain may be international",
        examples=["ada@example.com"],
        json_schema_extra={"format": "email"},
    ),
    AfterValidator(normalize_email),
]


def _display_name(name: str) -> str:
    return CreateAccountData(email="ada@example.com", display_name=name).display_name


class SignUp(_Request):
    """Who signs up."""

    email: Email
    display_name: Annotated[
        str,
        Field(min_length=1, max_length=100, description="what to call its owner", examples=["Ada"]),
        AfterValidator(_display_name),
    ]


class Redemption(_Request):
    """A code and the address that it was mailed to."""

    email: Email
    code: Annotated[
        str,
        Field(
            min_length=8,
            max_length=8,
            pattern="^[2-9A-HJ-KM-NP-Za-hj-km-np-z]{8}$",
            description="the code of the mail, in upper or lower case",
            examples=["7K3M9QXT"],
        ),
    ]


class CodeRequest(_Request):
    """Who wants another code."""

    email: Email


class Accepted(BaseModel):
    """The request was accepted; whether a mail goes out is not told."""

    status: Annotated[str, Field(examples=["accepted"])] = "accepted"


class AccountBody(BaseModel):
    """A verified account."""

    account_id: Annotated[str, Field(examples=["0b8fdc43-6a2d-4c0c-9d1f-5f0b4bb2a0a8"])]
    email: Annotated[str, Field(examples=["ada@example.com"])]
    display_name: Annotated[str, Field(examples=["Ada"])]
    verified: bool


class Health(BaseModel):
    """What was asked, and how it answered."""

    status: Annotated[str, Field(examples=["ok"])]
    checks: dict[str, str] = {}
    counts: Annotated[
        dict[str, int], Field(description="how much waits in the outbox, and how many deliveries have failed")
    ] = {}


class Problem(BaseModel):
    """RFC 9457."""

    type: str = "about:blank"
    title: Annotated[str, Field(description="the status in words", examples=["Unprocessable Content"])]
    status: Annotated[int, Field(description="the status of the answer", examples=[422])]
    detail: Annotated[str, Field(description="what was wrong, and what to do", examples=["the request is malformed"])]
    errors: Annotated[
        list[dict[str, Any]] | None, Field(description="what was wrong where: type, loc and msg of each error")
    ] = None
    checks: Annotated[dict[str, str] | None, Field(description="what was asked, and how it answered")] = None
    counts: Annotated[dict[str, int] | None, Field(description="what waits, and what has failed")] = None
    error_id: Annotated[str | None, Field(description="finds a server error in the log")] = None
