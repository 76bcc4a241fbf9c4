"""What may be sent: JSON of the declared shape and size; anything else is a problem that leaves nothing behind."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from support.application import Client, assert_problem, running, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """One application for all tests: what is refused leaves nothing behind, and each test sees that of the others."""
    settings = settings_for(tmp_path_factory.mktemp("input"), dispatcher="sync", rate_limit="100000/minute")
    async with running(settings) as client:
        yield client


async def test_a_body_that_is_too_large_is_told_so_whether_or_not_its_length_was_announced(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * 1024

    async with running(settings_for(tmp_path, dispatcher="sync")) as client:
        for content in (b" " * 16 * 1024 + b"{", chunks()):
            answer = await client.http.post("/accounts", content=content, headers={"Content-Type": "application/json"})
            assert_problem(answer, 413)
        fits = b'{"email": "ada@example.com", "display_name": "Ada"}'.ljust(16 * 1024)
        answer = await client.http.post("/accounts", content=fits, headers={"Content-Type": "application/json"})
        assert answer.status_code == 202


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_only_json_is_taken(client: Client, media_type: str) -> None:
    content = b'{"email": "ada@example.com", "display_name": "Ada"}'
    headers = {"Content-Type": media_type} if media_type else {}
    assert_problem(await client.http.post("/accounts", content=content, headers=headers), 415)
    assert not client.mails()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
async def test_a_body_that_is_not_utf_8_is_not_guessed(client: Client, encoding: str) -> None:
    content = '{"email": "ada@example.com", "display_name": "Ada"}'.encode(encoding)
    answer = await client.http.post("/accounts", content=content, headers={"Content-Type": "application/json"})
    assert_problem(answer, 400)
    assert "UTF-8" in answer.json()["detail"]
    assert not client.mails()


@pytest.mark.parametrize(
    "address", ["=?utf-8?q?eve=40evil.example=2C?=@example.com", "a=?us-ascii?b?ZXZl?=@example.com"]
)
async def test_an_address_that_a_mail_library_would_decode_is_refused(client: Client, address: str) -> None:
    for path, body in BODIES.items():
        answer = await client.http.post(path, json=body | {"email": address})
        assert answer.status_code == (422 if path == "/accounts" else {"code": 400}.get([*body][-1], 202))
    assert not client.mails()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 8000,
        b'{"email": "ada@example.com"}',
        b'{"email": "ada@example.com", "display_name": ""}',
        b'{"email": "ada@example.com", "display_name": "a\\u0000b"}',
        b'{"email": "ada@example.com", "display_name": "a\\nb"}',
        b'{"email": "ada@example.com", "display_name": "\\ud800"}',
        b'{"email": "ada@example.com", "display_name": NaN}',
        b'{"email": "ada@example.com", "display_name": 1e999}',
        b'{"email": "ada@example.com", "display_name": ' + b"9" * 5000 + b"}",
        b'{"email": "ada@example.com", "display_name": "Ada", "extra": 1}',
        b'{"email": "ada@example.com", "display_name": "Ada", "\\ud800": 1}',
        b'{"email": "ada\\u0000@example.com", "display_name": "Ada"}',
        b'{"email": "\\ud800@example.com", "display_name": "Ada"}',
        b'{"email": "ada@example.com\\r\\nBcc: eve@example.com", "display_name": "Ada"}',
        b'{"email": "ada@example.com", "display_name": "' + b"a" * 101 + b'"}',
        b'{"email": "' + b"a" * 250 + b'@example.com", "display_name": "Ada"}',
        b'{"email": "ada@example.com", "display_name": "' + b"a" * 20_000 + b'"}',
    ],
)
async def test_bad_input_gets_a_problem_and_leaves_nothing_behind(client: Client, body: bytes) -> None:
    answer = await client.http.post("/accounts", content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 400, 413, 422)
    assert not client.mails()
    assert "ada" not in answer.text
    with client.application.database.transaction() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM accounts").scalar_one() == 0


BODIES = {
    "/accounts": {"email": "ada@example.com", "display_name": "Ada"},
    "/accounts/verify": {"email": "ada@example.com", "code": "22222222"},
    "/accounts/verification-codes": {"email": "ada@example.com"},
}


@pytest.mark.parametrize(
    "bad", ["\x00", "\ud800", "\udc00\ud800", "a\x00b@example.com", "ada@example.com\x00", "\ud800@example.com"]
)
@pytest.mark.parametrize(("path", "field"), [(path, field) for path, body in BODIES.items() for field in body])
async def test_nul_and_lone_surrogates_are_malformed_and_no_error_of_the_server(
    client: Client, path: str, field: str, bad: str
) -> None:
    for body in (BODIES[path] | {field: bad}, {field: bad}, BODIES[path] | {bad: field}):
        headers = {"Content-Type": "application/json"}
        assert_problem(await client.http.post(path, content=json.dumps(body), headers=headers), 422)
    assert not client.mails()


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("extra", [{"verified": True}, {"account_id": "1"}, {"": None}, {"__class__": {}}])
async def test_a_field_that_is_not_known_is_refused_and_named(
    client: Client, path: str, extra: dict[str, object]
) -> None:
    answer = await client.http.post(path, json=BODIES[path] | extra)
    assert_problem(answer, 422)
    assert [(each["type"], each["loc"]) for each in answer.json()["errors"]] == [("extra_forbidden", ["body", *extra])]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("wrong", [None, 1, True, 1.5, [], {}, ["ada@example.com"]])
async def test_a_field_of_another_type_is_refused_and_never_converted(client: Client, path: str, wrong: object) -> None:
    for field in BODIES[path]:
        assert_problem(await client.http.post(path, json=BODIES[path] | {field: wrong}), 422)
