"""Types of settings: each refuses a value in one line that says what it must be, and never quotes it."""

import re
import socket
from collections.abc import Callable
from datetime import timedelta
from email.message import EmailMessage
from ipaddress import collapse_addresses, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

T = TypeVar("T")

_BROKERS: Final = ("redis", "rediss", "redis+socket", "amqp", "amqps")

_LEAST_PREFIX: Final = {4: 8, 6: 7}
"""The shortest prefix of a trusted network, by version: those of the largest private networks."""

_IPV4_MAPPED: Final = ip_network("::ffff:0.0.0.0/96")

_MAX_RATE: Final = 1_000_000
_MAX_RATE_SECONDS: Final = 366 * 86_400


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
    """Split the URL; raise ``ValueError`` if it has another scheme, or an impossible host or port."""
    if url.partition("://")[0] not in schemes or "://" not in url:
        raise ValueError(f"must be a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if "\0" in unquote(url):
        raise ValueError("has a NUL character (%00), which nothing that it names can have")
    if re.search(r"[\x01-\x1f\x7f]", url):  # of which urlsplit drops some
        raise ValueError("has a tab, a line end or another control character")
    try:
        parts = urlsplit(url)
        if parts.port == 0:
            raise ValueError
    except ValueError:  # its text would quote a password that has a slash in it
        raise ValueError("has an impossible host or port (in a password, / is written %2F and @ is %40)") from None
    return parts


def _check_host(host: str) -> None:
    if not host.isprintable() or " " in host:
        raise ValueError("has an impossible host: there is a space in it, or what cannot be seen")
    try:
        host.encode("idna")  # as it is done before it is looked up
    except UnicodeError:
        raise ValueError("has an impossible host: each part between two dots has 1 to 63 characters") from None


def _server(
    example: str, *schemes: str, connect: Callable[[str], object] | None = None, several: bool = False
) -> AfterValidator:
    """Check that a URL has one of these schemes, names a host or, of a socket, a path, and has no part that is unknown.

    Args:
        connect: makes of the URL what will connect to the server, but does not connect. Where it is not given, nothing
            may follow the port.
        several: there may be more, which stand in for it, behind semicolons.
    """

    def check(urls: str) -> str:
        each = urls.split(";") if several else [urls]
        for url in each:
            check_one(url)
        if len({url.partition(":")[0] for url in each}) > 1:
            raise ValueError("must name servers of one kind")
        return urls

    def check_one(url: str) -> None:
        parts = _url(url, *schemes)
        if parts.scheme == "memory":
            return
        if not (parts.path if parts.scheme.endswith("+socket") else parts.hostname):
            raise ValueError(f"must name a host, as {example} does")
        _check_host(parts.hostname or "")
        if parts.scheme in ("redis", "rediss") and not re.fullmatch(r"(/[0-9]{0,9})?", parts.path):
            raise ValueError(f"must have nothing but the number of a database behind its host, as {example} does")
        if connect is not None:
            _try(connect, url)
        elif parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(f"must end with its host or port, as {example} does")

    return AfterValidator(check)


def _try(connect: Callable[[str], object], url: str) -> None:
    """Raise ``ValueError`` unless the libraries take the URL, without their text, which may quote a password."""

    def fails(url: str) -> bool:
        try:
            connect(url)
        except ImportError:  # which is told where the library is needed
            return False
        except Exception:  # noqa: BLE001 - there is no end of what they raise
            return True
        return False

    if not fails(url):
        return
    address, _, query = url.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    wrong = [name for name, value in options if fails(f"{address}?{urlencode({name: value})}")]
    if wrong:
        raise ValueError(f"has a wrong option behind its ?, or one with a wrong value: {', '.join(wrong)!a}")
    raise ValueError("has a part that no connection can be made with")


def _connect_broker(url: str) -> None:
    """Go as far as Celery goes before it connects."""
    from kombu import Connection

    from eventpact.infrastructure.celery.brokers import try_connection

    try_connection(Connection(url))


def _connect_storage(url: str) -> None:
    from redis import Redis

    Redis.from_url(url).connection_pool.make_connection()


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
    if parts.scheme == "sqlite" and (parts.netloc or parts.path in {"", "/", "/:memory:"} or "?" in url):
        raise ValueError(
            "must name a file, as sqlite:///shop.db and sqlite:////var/lib/shop.db do, and have no parameters; several"
            " processes and threads share it, which a database in memory does not allow"
        )
    return url


def _folder(folder: Path) -> Path:
    if "\0" in str(folder):
        raise ValueError("has a NUL character, which no folder can have in its name")
    try:
        return folder.expanduser()  # no shell has seen what stands in .env
    except RuntimeError:
        raise ValueError("begins with ~ and a name, which is none of a user with a home") from None


def _base_url(url: str) -> str:
    parts = _url(url, "http", "https")
    if not parts.hostname or not url.isprintable() or set(" ?#@") & set(url):
        raise ValueError("must be a URL such as https://shop.example, without a user, a query or a fragment")
    _check_host(parts.hostname)
    return url.rstrip("/")


def _trusted_proxies(proxies: str) -> str:
    try:
        # Strictly, as uvicorn reads them, which takes a network with host bits for a name, and then trusts nobody.
        networks = [ip_network(proxy.strip()) for proxy in proxies.split(",")]
    except ValueError:
        raise ValueError(
            "must be addresses or networks such as 10.0.0.7,192.0.2.0/24, without bits behind the length of a network;"
            " a trusted one can pretend to be any client"
        ) from None
    for version, least in _LEAST_PREFIX.items():
        together: Any = collapse_addresses(each for each in networks if each.version == version)
        if any(each.prefixlen < least or each.overlaps(_IPV4_MAPPED) for each in together):
            raise ValueError(
                "must be networks of proxies, not of everybody: a trusted one can pretend to be any client; the largest"
                " are 10.0.0.0/8 and fc00::/7, and an IPv4 address is not written as IPv6"
            )
    return proxies


def _host(host: str) -> str:
    if not host.isprintable() or set(" /@[]") & set(host):
        raise ValueError("must be an address or a name such as 127.0.0.1, :: or localhost, without a port")
    _check_host(host)
    try:
        # So that 0, 0x0 and ::0, which are every address, are shown as that.
        return str(socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)[0][4][0])
    except OSError:  # a name
        return host


def _mail_from(address: str) -> str:
    from email_validator import validate_email

    message = EmailMessage()
    try:
        message["From"] = address
        (sender,) = message["From"].addresses
        validate_email(
            sender.addr_spec,
            allow_smtputf8=False,
            check_deliverability=False,
            globally_deliverable=False,
            test_environment=True,
        )
        # A header is sent as it is, and not every mail server takes one that is not ASCII there.
        fits = not message["From"].defects and sender.addr_spec.isascii()
    except (ValueError, IndexError, RecursionError):
        fits = False
    if not fits:
        raise ValueError(
            "must be an address such as Shop <no-reply@example.com>, an international domain in punycode (xn--…)"
        )
    return address


def _rate_limit(rate: str) -> str:
    import limits

    try:
        (parsed,) = limits.parse_many(rate)
    except ValueError:
        parsed = None
    if parsed is None or parsed.amount < 1:
        raise ValueError("must be one limit of 1 or more, such as 20/minute or 100 per 2 hours")
    # What is larger than the storage's own numbers would be an error of each request.
    if parsed.amount > _MAX_RATE or not 1 <= parsed.get_expiry() <= _MAX_RATE_SECONDS:
        raise ValueError(f"must be one limit of {_MAX_RATE} at most, in a year at most")
    return rate


Folder = Annotated[Path, AfterValidator(_folder)]
DatabaseUrl = Annotated[str, AfterValidator(_database)]
BrokerUrl = Annotated[str, _server("redis://127.0.0.1:6379/0", *_BROKERS, connect=_connect_broker, several=True)]
SmtpUrl = Annotated[str, _server("smtp://mail.example:587", "smtp", "smtps")]
StorageUrl = Annotated[str, _server("redis://127.0.0.1:6379/1", "memory", "redis", "rediss", connect=_connect_storage)]
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
