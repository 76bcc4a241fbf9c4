"""Types of settings: each refuses a value in one line that says what it must be, and never quotes it."""

import re
from datetime import timedelta
from email.message import EmailMessage
from ipaddress import ip_network
from typing import Annotated, Any, TypeVar
from urllib.parse import SplitResult, parse_qs, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

T = TypeVar("T")


def number(low: float, high: float, unit: str = "") -> BeforeValidator:
    """Check that a number is finite and within a range, which the error names."""

    def check(value: Any) -> Any:
        try:
            number = value.total_seconds() if isinstance(value, timedelta) else float(value)
        except (TypeError, ValueError):
            number = None
        if number is None or not low <= number <= high:  # no comparison with NaN holds
            raise ValueError(f"must be a number{unit} from {low:.15g} to {high:.15g}")
        return number if unit and not isinstance(value, timedelta) else value

    return BeforeValidator(check)


def seconds(low: float, high: float) -> BeforeValidator:
    """Check seconds likewise, and read them from text."""
    return number(low, high, " of seconds")


def _url(url: str, *schemes: str) -> SplitResult:
    """Split the URL.

    Raises:
        ValueError: it has another scheme, or an impossible host or port.
    """
    if url.partition("://")[0] not in schemes or "://" not in url:
        raise ValueError(f"must be a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its text would quote a password that has a slash in it
        raise ValueError("has an impossible host or port (in a password, / is written %2F and @ is %40)") from None
    return parts


def _server(example: str, *schemes: str) -> AfterValidator:
    """Check that a URL has one of these schemes, and names a host or, of a socket, a path."""

    def check(url: str) -> str:
        parts = _url(url, *schemes)
        if parts.scheme != "memory" and not (parts.path if parts.scheme.endswith("+socket") else parts.hostname):
            raise ValueError(f"must name a host, as {example} does")
        return url

    return AfterValidator(check)


def _matches(pattern: str, rule: str) -> AfterValidator:
    """Check that a text, or a secret one, has a form."""

    def check(value: T) -> T:
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        if not re.fullmatch(pattern, text, re.DOTALL):
            raise ValueError(rule)
        return value

    return AfterValidator(check)


def _database(url: str) -> str:
    parts = _url(url, "postgresql", "postgresql+psycopg", "sqlite")
    if parts.scheme == "sqlite" and (
        parts.netloc
        or parts.path in {"", "/", "/:memory:"}
        or {"mode", "uri"} & parse_qs(parts.query, keep_blank_values=True).keys()
    ):
        raise ValueError(
            "must name a file, as sqlite:///shop.db and sqlite:////var/lib/shop.db do; several processes and"
            " threads share it, which a database in memory does not allow"
        )
    return url


def _base_url(url: str) -> str:
    parts = _url(url, "http", "https")
    if not parts.hostname or not url.isprintable() or " " in url or parts.query or parts.fragment:
        raise ValueError("must be a URL such as https://shop.example")
    return url.rstrip("/")


def _trusted_proxies(proxies: str) -> str:
    for proxy in proxies.split(","):
        try:
            everybody = ip_network(proxy.strip(), strict=False).prefixlen == 0
        except ValueError:
            everybody = True
        if everybody:
            raise ValueError(
                "must be addresses or networks such as 10.0.0.7,192.0.2.0/24; a trusted one can pretend to be any"
                " client"
            )
    return proxies


def _host(host: str) -> str:
    if not host.isprintable() or set(" /@[]") & set(host):
        raise ValueError("must be an address or a name such as 127.0.0.1, :: or localhost, without a port")
    return host


def _mail_from(address: str) -> str:
    message = EmailMessage()
    try:
        message["From"] = address
        (sender,) = message["From"].addresses
        defects = message["From"].defects
    except (ValueError, IndexError):
        defects = (address,)
    if defects or not sender.username or not sender.domain:
        raise ValueError("must be an address such as Shop <no-reply@example.com>")
    return address


def _rate_limit(rate: str) -> str:
    import limits

    try:
        (parsed,) = limits.parse_many(rate)
    except ValueError:
        parsed = None
    if parsed is None or parsed.amount < 1:
        raise ValueError("must be one limit of 1 or more, such as 20/minute or 100 per 2 hours")
    return rate


DatabaseUrl = Annotated[str, AfterValidator(_database)]
BrokerUrl = Annotated[str, _server("redis://127.0.0.1:6379/0", "redis", "rediss", "redis+socket", "amqp", "amqps")]
SmtpUrl = Annotated[str, _server("smtp://mail.example:587", "smtp", "smtps")]
StorageUrl = Annotated[str, _server("redis://127.0.0.1:6379/1", "memory", "redis", "rediss")]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
Proxies = Annotated[str, AfterValidator(_trusted_proxies)]
Host = Annotated[str, AfterValidator(_host)]
Mailbox = Annotated[str, AfterValidator(_mail_from)]
Rate = Annotated[str, AfterValidator(_rate_limit)]
QueueName = Annotated[
    str,
    _matches(
        r"(?!amq\.)[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
        "must be 1 to 100 letters, digits, dots, dashes and underscores, and not begin with amq.",
    ),
]
Token = Annotated[
    SecretStr,
    _matches(r"[!-~]{16,}", "must have at least 16 characters, and no spaces; make one with: openssl rand -hex 32"),
]
Secret = Annotated[
    SecretStr, _matches(r".{32,}", "must have at least 32 characters; make one with: openssl rand -hex 32")
]
