"""Models of requests and answers. Unknown fields are refused."""

from typing import Annotated, Literal

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from eventpact.domain.account import NAME_PATTERN


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, frozen=True)


def ascii_address(address: str) -> str:
    """Translate an international domain into punycode. The domain layer takes nothing but ASCII.

    Raises:
        ValueError: it is no e-mail address.
    """
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
    AfterValidator(ascii_address),
]


class SignUp(_Request):
    """The data of a sign-up."""

    email: Email
    display_name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=100,
            description="the name of its owner: no controls, and at least one character that is not a space",
            examples=["Ada"],
            json_schema_extra={"pattern": NAME_PATTERN},
        ),
    ]


class Redemption(_Request):
    """A code and the address that it was mailed to."""

    email: Email
    code: Annotated[
        str,
        Field(
            min_length=8,
            max_length=32,
            pattern="^([2-9A-HJ-KM-NP-Za-hj-km-np-z]{8}|[2-9A-HJ-KM-NP-Za-hj-km-np-z]{32})$",
            description="the code of the mail, or the long one of its link, in upper or lower case",
            examples=["7K3M9QXT"],
        ),
    ]


class CodeRequest(_Request):
    """The address that another code is requested for."""

    email: Email


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Accepted(_Answer):
    """The request was accepted. The answer does not say whether a mail is sent."""

    status: Annotated[Literal["accepted"], Field(description="the same for every address")] = "accepted"


class AccountBody(_Answer):
    """A verified account."""

    account_id: Annotated[
        str,
        Field(
            description="identifies the account",
            examples=["0b8fdc43-6a2d-4c0c-9d1f-5f0b4bb2a0a8"],
            json_schema_extra={"format": "uuid"},
        ),
    ]
    email: Annotated[
        str, Field(description="its address, the domain in punycode", max_length=254, examples=["ada@example.com"])
    ]
    display_name: Annotated[str, Field(description="the name of its owner", max_length=100, examples=["Ada"])]
    verified: Annotated[bool, Field(description="whether its owner has proven to read mail to it", examples=[True])]


class Health(_Answer):
    """The outcome of each check."""

    status: Annotated[Literal["ok"], Field(description="ok, or the answer is a problem")]
    checks: Annotated[
        dict[str, str],
        Field(description="each part that requests need: ok, or the kind of its error", examples=[{"database": "ok"}]),
    ] = {}
    counts: Annotated[
        dict[str, int],
        Field(
            description="how much waits in the outbox, and how many deliveries have failed", examples=[{"failed": 0}]
        ),
    ] = {}


class FieldError(_Answer):
    """One thing that was wrong with a request."""

    type: Annotated[str, Field(description="the kind of error", examples=["value_error"])]
    loc: Annotated[
        list[str | int], Field(description="where: body, then field or position", examples=[["body", "email"]])
    ]
    msg: Annotated[str, Field(description="the error in words", examples=["the part after the @ is no domain name"])]


class Problem(_Answer):
    """RFC 9457. It never repeats the request."""

    type: Annotated[str, Field(description="a problem that its status explains", examples=["about:blank"])]
    title: Annotated[str, Field(description="the status in words", examples=["Unprocessable Content"])]
    status: Annotated[int, Field(ge=400, le=599, description="the status of the answer", examples=[422])]
    detail: Annotated[str, Field(description="the fault, and the way out of it", examples=["the request is malformed"])]
    errors: Annotated[
        list[FieldError], Field(description="each fault, with its place", max_length=20, default_factory=list)
    ]
    checks: Annotated[dict[str, str], Field(description="the outcome of each check", default_factory=dict)]
    counts: Annotated[
        dict[str, int], Field(description="how many deliveries wait, and how many have failed", default_factory=dict)
    ]
    error_id: Annotated[
        str, Field(description="finds a server error in the log", pattern="^[0-9a-f]{32}$", default_factory=str)
    ]
