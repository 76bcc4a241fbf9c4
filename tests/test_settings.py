"""A wrong setting is one clear line, and production starts with nothing that is only good for trying out."""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from eventpact.bootstrap import build_parts
from eventpact.settings import Settings, SettingsError, load_settings

GOOD = {
    "environment": "production",
    "secret": "0123456789abcdef0123456789abcdef",
    "database": "postgresql://shop@db.example/shop",
    "smtp": "smtps://mail.example",
    "base_url": "https://shop.example",
    "mail_from": "Shop <no-reply@shop.example>",
}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DISPATCHER", "kafka", "'sync', 'asyncio' or 'celery'"),
        ("PORT", "70000", "65535"),
        ("BROKER", "http://x", "redis://"),
        ("DATABASE", "mysql://x", "postgresql://"),
        ("SMTP", "imap://x", "smtp://"),
        ("BASE_URL", "ftp://x", "http://"),
        ("SECRET", "short", "openssl rand -hex 32"),
        ("BASE_URL", "https://", "https://shop.example"),
        ("BASE_URL", "https://shop.example/a b", "https://shop.example"),
        ("BASE_URL", "https://shop.example/\n", "control character"),
        ("BASE_URL", "https://shop.example/\u200b", "https://shop.example"),
        ("BROKER", "redis://cache/0\t", "control character"),
        ("DATABASE", "postgresql://db.example\n/shop", "control character"),
        ("DATABASE", "sqlite:///shop.db\r", "control character"),
        ("SMTP", "smtp://mail.example\t:25", "control character"),
        ("SMTP", "smtp://mail example:25", "impossible host"),
        ("SMTP", "smtp://mail\u200b.example", "impossible host"),
        ("SMTP", "smtp://mail.example:0", "impossible host or port"),
        ("BROKER", "redis://cache:0", "impossible host or port"),
        ("BROKER", "redis://cache:port", "impossible host or port"),
        ("DATABASE", "postgresql://db.example:x/shop", "impossible host or port"),
        ("SMTP", "smtp://mail.example:99999", "impossible host or port"),
        ("RATE_LIMIT_STORAGE", "bogus://x", "memory://"),
        ("MAIL_FROM", "a@b.cd,,c <", "address"),
        ("MAIL_FROM", "Shop <no-reply@shop.example>\nBcc: eve@example.com", "address"),
        ("MAIL_FROM", "a@example.com, b@example.com", "address"),
        ("MAIL_FROM", "Shop <>", "address"),
        ("MAIL_FROM", "(" * 3000, "address"),
        ("ANSWER_STEP", "-1", "from 0 to 60"),
        ("RATE_LIMIT", "often", "20/minute"),
        ("RATE_LIMIT", "0/minute", "20/minute"),
        ("RATE_LIMIT", "20/minute;100/hour", "one limit"),
        ("RATE_LIMIT_STORAGE", "redis://", "name a host"),
        ("CODE_TTL", "soon", "number of seconds"),
        ("CODE_TTL", "0", "from 0.001 to 2592000"),
        ("SMTP_TIMEOUT", "inf", "from 0.001 to 600"),
        ("SMTP_TIMEOUT", "nan", "from 0.001 to 600"),
        ("SMTP_TIMEOUT", "-1", "from 0.001 to 600"),
        ("RETRY_BACKOFF", "1e400", "from 0.001 to 3600"),
        ("DRAIN_TIMEOUT", "inf", "from 0 to 3600"),
        ("OUTBOX_LEASE", "0", "from 0.1 to 3600"),
        ("OUTBOX_RESEND", "nan", "from 0.1 to 86400"),
        ("MAX_PENDING", "0", "from 1 to 10000000"),
        ("MAX_IN_FLIGHT", "-1", "from 1 to 100000"),
        ("CELERY_VISIBILITY_TIMEOUT", "0", "from 0.1 to 604800"),
        ("CELERY_QUEUE", "two words", "letters, digits"),
        ("CELERY_QUEUE", "amq.direct", "amq."),
        ("SMTP", "smtp://", "name a host"),
        ("SMTP", "smtp://user:hunter2@", "name a host"),
        ("BROKER", "redis:///0", "name a host"),
        ("BROKER", "amqp://:5672", "name a host"),
        ("BROKER", "redis:x", "begins with redis://"),
        ("BROKER", "redis://[::1", "impossible host"),
        ("DATABASE", "sqlite://", "name a file"),
        ("DATABASE", "sqlite:///", "name a file"),
        ("DATABASE", "sqlite:///:memory:", "name a file"),
        ("DATABASE", "sqlite://shop.db", "name a file"),
        ("DATABASE", "sqlite:///file:x?mode=memory&uri=true", "name a file"),
        ("DATABASE", "sqlite:///q.db?timeout=abc", "have no parameters"),
        ("DATABASE", "sqlite:///q.db?timeout=1&timeout=2", "have no parameters"),
        ("DATABASE", "sqlite:///q.db?check_same_thread=maybe", "have no parameters"),
        ("DATABASE", "sqlite:///q.db?foo=1", "have no parameters"),
        ("DATABASE", "sqlite:///q.db#?cache=shared", "have no parameters"),
        ("DATABASE", "sqlite:///q%00.db", "NUL"),
        ("DATABASE", "postgresql://db.example/shop%00", "NUL"),
        ("HOST", "http://127.0.0.1", "without a port"),
        ("BASE_URL", "https://shop.example?x=1", "https://shop.example"),
        ("CODE_TTL", "-1", "from 0.001"),
        ("MAIL_FROM", "nobody", "address"),
        ("BASE_URL", "https://user:hunter2@shop.example", "without a user"),
        ("BASE_URL", "https://shop..example", "impossible host"),
        ("HOST", "a..b", "impossible host"),
        ("SMTP", "smtp://mail.example/path", "end with its host or port"),
        ("SMTP", "smtp://mail.example?timeout=4", "end with its host or port"),
        ("SMTP", "smtp://a..b:25", "impossible host"),
        ("MAIL_FROM", "Shop <j@bücher.example>", "punycode"),
        ("MAIL_FROM", f"{'j' * 300}@shop.example", "address"),
        ("MAIL_FROM", '"a b"@shop.example', "address"),
        ("RATE_LIMIT", "999999999999999999999/minute", "1000000 at most"),
        ("RATE_LIMIT", "5/99999999999999 year", "a year at most"),
        ("BROKER", "redis://cache/notanumber", "number of a database"),
        ("BROKER", "redis://cache/-1", "number of a database"),
        ("BROKER", "redis://cache/0?foo=1", "'foo'"),
        ("BROKER", "redis://:hunter2@cache?socket_timeout=abc", "'socket_timeout'"),
        ("BROKER", "rediss://cache?ssl_check_hostname=false&ssl_cert_reqs=bogus", "'ssl_cert_reqs'"),
        ("BROKER", "redis+socket:///run/redis?virtual_host=x", "'virtual_host'"),
        ("BROKER", "amqp://shop:hunter2@mq//?heartbeat=x", "'heartbeat'"),
        ("BROKER", "amqp://mq//?connect_timeout=x", "'connect_timeout'"),
        ("BROKER", "amqp://mq;amqp://mq2?foo=1", "'foo'"),
        ("BROKER", "amqp://mq;redis://cache", "of one kind"),
        ("RATE_LIMIT_STORAGE", "redis://cache/10?foo=1", "'foo'"),
        ("RATE_LIMIT_STORAGE", "redis://cache?password=hunter2&socket_timeout=abc", "'socket_timeout'"),
        ("RATE_LIMIT_STORAGE", "redis://cache/abc", "number of a database"),
        ("RATE_LIMIT_STORAGE", "redis://cache;redis://cache2", "number of a database"),
        ("TRUSTED_PROXIES", "proxy.example", "addresses or networks"),
        ("TRUSTED_PROXIES", "127.0.0.1/8", "without bits behind the length"),
        ("TRUSTED_PROXIES", "10.0.0.7,2001:db8::1/32", "without bits behind the length"),
        ("TRUSTED_PROXIES", "10.0.0.7,0.0.0.0/0", "not of everybody"),
        ("TRUSTED_PROXIES", "0.0.0.0/1,128.0.0.0/1", "not of everybody"),
        ("TRUSTED_PROXIES", ",".join(f"{first}.0.0.0/8" for first in range(256)), "not of everybody"),
        ("TRUSTED_PROXIES", "::/0", "not of everybody"),
        ("TRUSTED_PROXIES", "::ffff:0.0.0.0/96", "not of everybody"),
        ("DATA_DIR", "~nobody-of-this-name/ev", "begins with ~"),
        ("RETRIES", "-1", "from 0 to 20"),
        ("RETRIES", "1.5", "integer"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"EVENTPACT_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"EVENTPACT_{name}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Value error" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BROKER", "redis://:p%2F%3B@cache:1/3"),
        ("BROKER", "redis://[::1]:6379/0"),
        ("BROKER", "rediss://cache/0?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem"),
        ("BROKER", "redis+socket:///run/redis.sock?virtual_host=1"),
        ("BROKER", "amqp://shop:pw@mq:5672//?heartbeat=10"),
        ("BROKER", "amqps://mq/v%2Fw"),
        ("BROKER", "amqp://mq//;amqp://mq2//"),
        ("RATE_LIMIT_STORAGE", "redis://:p%2F%3B@cache:1/3?socket_timeout=3"),
        ("RATE_LIMIT_STORAGE", "rediss://cache"),
        ("SMTP", "smtp://shop:p%2F%3F@bücher.example:25/"),
        ("BASE_URL", "https://bücher.example/shop/"),
        ("MAIL_FROM", "Bücher <j@xn--bcher-kva.example>"),
        ("MAIL_FROM", "root@mailhost"),
        ("RATE_LIMIT", "1000000/year"),
        ("HOST", "fe80::1%eth0"),
        ("TRUSTED_PROXIES", " 10.0.0.0/8 , 192.0.2.7,::1, fc00::/7, 127.0.0.1/32"),
    ],
)
def test_what_can_work_is_taken(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"EVENTPACT_{name}", value)
    load_settings()


@pytest.mark.parametrize(
    ("spelling", "address", "link"),
    [
        ("0", "0.0.0.0", "http://127.0.0.1:8000"),
        ("0x0", "0.0.0.0", "http://127.0.0.1:8000"),
        ("::0", "::", "http://[::1]:8000"),
        ("::ffff:0.0.0.0", "::ffff:0.0.0.0", "http://127.0.0.1:8000"),
        ("localhost", "localhost", "http://localhost:8000"),
    ],
)
def test_every_address_is_shown_as_that_and_links_name_one_of_them(spelling: str, address: str, link: str) -> None:
    settings = load_settings(host=spelling)
    assert (settings.host, settings.links_begin_with) == (address, link)


def test_an_address_is_taken_unseen_where_no_library_for_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    # That is said where it is needed, with what to install.
    monkeypatch.setitem(sys.modules, "kombu", None)
    monkeypatch.setitem(sys.modules, "redis", None)
    load_settings(broker="redis://cache?foo=1", rate_limit_storage="redis://cache?foo=1")


@pytest.mark.parametrize("name", [name.upper() for name in Settings.model_fields])
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_value_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"EVENTPACT_{name}", value)
    with pytest.raises(SettingsError, match=f"^EVENTPACT_{name}: is empty") as caught:
        load_settings()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("EVENTPACT_DISPACHER", "did you mean EVENTPACT_DISPATCHER?"),
        ("eventpact_databse", "did you mean EVENTPACT_DATABASE?"),
        ("EVENPACT_DATABASE", "did you mean EVENTPACT_DATABASE?"),
        ("EVENTPACT", "nor like one"),
        ("EVENTPACT_X", "nor like one"),
    ],
)
@pytest.mark.parametrize("where", ["the environment", ".env, line 3"])
def test_an_unknown_name_is_refused_with_the_likely_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, says: str, where: str
) -> None:
    if where == "the environment":
        monkeypatch.setenv(name, "x")
    else:
        (tmp_path / ".env").write_text(f"SHOP=1\n\n{name}=x\n")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"{name} in {where} is no setting")
    assert says in str(caught.value)


@pytest.mark.parametrize("line", ["EVENTPACT_PORT 80", "EVENTPACT_PORT: 80", "EVENTPACT_PORT", "=80", "A='x", "[shop]"])
def test_a_malformed_line_of_dotenv_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"# a comment\n\nSHOP=1\n{line}\n")
    with pytest.raises(SettingsError, match=r"^\.env, line 4: must be NAME=value"):
        load_settings()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path)])
def test_a_dotenv_that_is_no_file_is_refused(make: Callable[[str], None]) -> None:
    make(".env")
    with pytest.raises(SettingsError, match=r"^\.env is no file; "):
        load_settings()


def test_a_folder_with_a_nul_in_its_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("EVENTPACT_DATA_DIR=a\0b\n")  # which no environment variable can have
    with pytest.raises(SettingsError, match=r"^EVENTPACT_DATA_DIR in \.env, line 1: has a NUL character"):
        load_settings()


def test_a_wrong_value_in_dotenv_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("EVENTPACT_DISPATCHER=sync\nEVENTPACT_PORT=99999\n")
    with pytest.raises(SettingsError, match=r"^EVENTPACT_PORT in \.env, line 2: must be a number from 0 to 65535$"):
        load_settings()


def test_names_of_other_programs_and_of_the_tests_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EVENTPACT_TEST_REDIS", "EVENTPACT_BENCH_REDIS", "DATABASE", "EVENTS_DATABASE", "PORT"):
        monkeypatch.setenv(name, "x")
    load_settings()


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"celery_visibility_timeout": 8, "broker": "redis://127.0.0.1"}, "CELERY_VISIBILITY_TIMEOUT"),
        ({"celery_visibility_timeout": 60, "retries": 20}, "CELERY_VISIBILITY_TIMEOUT"),
    ],
)
def test_a_time_out_that_retries_would_outlast_is_refused(given: dict[str, object], names: str) -> None:
    with pytest.raises(SettingsError, match=f"^EVENTPACT_{names} must be longer than"):
        load_settings(dispatcher="celery", **given)
    load_settings(dispatcher="asyncio", **given)
    longer = {name: value + 1 if name == "celery_visibility_timeout" else value for name, value in given.items()}
    load_settings(dispatcher="celery", **longer)


def test_on_rabbitmq_a_retry_waits_in_a_queue_that_no_time_out_is_about() -> None:
    load_settings(dispatcher="celery", celery_visibility_timeout=1, broker="amqp://127.0.0.1")


def test_a_wrong_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTPACT_SECRET", "hunter2")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("EVENTPACT_SECRET", GOOD["secret"])
    monkeypatch.setenv("EVENTPACT_DATABASE", "postgresql://shop:hunter2/x@db.example/shop")
    with pytest.raises(SettingsError, match="%2F") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_what_settings_look_like_tells_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    held = load_settings(
        secret="hunter2-" * 4,
        database="postgresql://shop:hunter2@db.example/shop",
        broker="amqp://shop:hunter2@mq.example",
        smtp="smtp://shop:hunter2@mail.example",
        rate_limit_storage="redis://:hunter2@cache.example",
    )
    assert "hunter2" not in repr(held)
    assert "hunter2" not in str(held)


def test_production_answers_at_even_times_unless_it_is_set_otherwise() -> None:
    assert load_settings().answers_at == 0
    assert load_settings(**GOOD).answers_at == 0.1
    assert load_settings(**GOOD, answer_step=0).answers_at == 0


def test_what_is_not_set_is_strict() -> None:
    assert load_settings().code_ttl == timedelta(minutes=10)
    assert load_settings().resend_interval == timedelta(seconds=60)
    assert load_settings().rate_limit == "20/minute"


@pytest.mark.parametrize("missing", ["secret", "database", "smtp", "base_url", "mail_from"])
def test_production_refuses_to_start_without(missing: str) -> None:
    with pytest.raises(SettingsError, match=f"^EVENTPACT_{missing.upper()} must be set in production"):
        load_settings(**{name: value for name, value in GOOD.items() if name != missing})


def test_production_names_all_that_is_missing_at_once() -> None:
    with pytest.raises(SettingsError, match=r"EVENTPACT_SECRET, EVENTPACT_DATABASE, EVENTPACT_SMTP, .* must be set"):
        load_settings(environment="production")


def test_a_dotenv_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe=1\n")
    with pytest.raises(SettingsError, match=r"\.env cannot be read"):
        load_settings()


def test_production_with_celery_refuses_to_start_without_a_broker() -> None:
    load_settings(**GOOD)
    with pytest.raises(SettingsError, match="EVENTPACT_BROKER"):
        load_settings(**GOOD, dispatcher="celery")


def test_settings_are_read_from_a_dotenv_file_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("EVENTPACT_PORT=1234\nEVENTPACT_RESEND_INTERVAL=5\nSHOP_UNKNOWN=1\n")
    assert load_settings().port == 1234
    assert load_settings().resend_interval == timedelta(seconds=5)
    monkeypatch.setenv("EVENTPACT_PORT", "4321")
    assert load_settings().port == 4321
    assert load_settings(port=99).port == 99


def test_a_tilde_in_the_data_folder_is_the_home_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EVENTPACT_DATA_DIR", "~/ev")
    assert load_settings().data_dir == tmp_path / "ev"


@pytest.mark.parametrize("name", ["50%20off", "what?", "what?a=b", "a#b", "ünï ; '\"", "a:b@c"])
def test_the_database_is_in_the_data_folder_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    build_parts(Settings(data_dir=tmp_path / name)).database.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "eventpact.db").is_file()


def test_a_secret_is_made_up_for_trying_out_and_kept_where_nobody_else_may_read(tmp_path: Path) -> None:
    for _ in range(2):
        build_parts(Settings(data_dir=tmp_path / "data")).database.close()
    for folder in (tmp_path / "data", tmp_path / "data" / "mail"):
        assert folder.stat().st_mode & 0o777 == 0o700
    secret = tmp_path / "data" / "secret"
    assert len(secret.read_text()) == 64
    assert secret.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in secret.parent.glob("secret*")) == ["secret"]
