"""The server at its edge: the real process, real sockets, and clients that do not mean well."""

from __future__ import annotations

import re
import resource
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from support.application import assert_problem, code_of
from support.serving import Served, serving
from support.waiting import until

from eventpact.infrastructure.persistence.database import Database

HEAD = b"POST /accounts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 51\r\n\r\n"
BODY = b'{"email": "eve@example.com", "display_name": "Eve"}'


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as served:
        yield served


def rest_of(connection: socket.socket) -> bytes:
    """Everything that comes until the server closes the connection."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def test_clients_that_stop_in_a_request_keep_nobody_out_and_flood_no_log(tmp_path: Path) -> None:
    with serving(tmp_path, files=256, rate_limit="1000/minute") as served, ExitStack() as stack:
        for number, sent in enumerate([HEAD + b"{", HEAD[:40], b""]):  # in a body, in a head, before both
            for _ in range(260):
                connection = stack.enter_context(served.connect())
                try:
                    connection.sendall(sent)
                except OSError:  # closed already, to make room
                    continue
            assert served.sign_up(f"ada{number}@example.com") == 202
            assert served.sign_up(f"bob{number}@example.com", client=served.client()) == 202
        until(lambda: len(served.mails()) == 6)
        assert served.http.get("/health/ready").json()["counts"] == {"failed": 0, "outbox": 0}
        assert len(served.log()) < 100_000
        assert "Traceback" not in served.log()


def test_a_request_that_is_not_complete_in_time_is_answered_and_ended(served: Served) -> None:
    began = time.monotonic()
    with served.connect() as slow, served.connect() as slower, served.connect() as silent:
        slow.sendall(HEAD + b"{")
        slower.sendall(HEAD[:30])
        for connection in (slow, slower):
            answer = rest_of(connection)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"application/problem+json" in answer
        assert rest_of(silent) == b""
    assert 5 < time.monotonic() - began < 20


def test_a_body_that_drips_has_no_more_time_than_one_that_stops(served: Served) -> None:
    began = time.monotonic()
    with served.connect() as slow:
        slow.settimeout(0.5)
        slow.sendall(HEAD)
        answer = b""
        for byte in BODY[:-1]:
            slow.sendall(bytes([byte]))
            try:
                answer = slow.recv(65536)
            except TimeoutError:
                continue
            break
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 20


def test_a_client_that_does_not_read_its_answers_is_dropped(served: Served) -> None:
    with served.connect() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(b"GET /docs-assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n")
        deaf.settimeout(0.2)
        deadline = time.monotonic() + 25
        while deaf.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            assert time.monotonic() < deadline
            try:
                deaf.sendall(b"x")  # tells nothing, but finds out when the connection is gone
            except OSError:
                break
            time.sleep(0.2)  # between two looks at the connection


def test_what_is_no_http_gets_a_problem(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 \r\n\r\n")
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize("length", [len(BODY), 5])
def test_a_body_whose_length_is_stated_in_two_ways_is_refused_and_its_connection_closed(
    served: Served, length: int
) -> None:
    with served.connect() as connection:
        connection.sendall(
            b"POST /accounts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Length: %d\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (length, len(BODY), BODY)
        )
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"but not both" in answer
    assert not served.mails()


def test_an_unfinished_request_does_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    with serving(tmp_path, drain_timeout=3) as served, served.connect() as half, served.connect() as silent:
        half.sendall(HEAD + b"{")
        silent.sendall(HEAD[:30])
        assert served.sign_up() == 202
        began = time.monotonic()
        assert served.stop() == 0
        assert time.monotonic() - began < 4
        assert rest_of(half) == rest_of(silent) == b""


def test_a_second_signal_ends_the_server_at_once(tmp_path: Path) -> None:
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # takes connections, and never answers
        smtp = f"smtp://127.0.0.1:{silent.getsockname()[1]}"
        served = stack.enter_context(
            serving(tmp_path, dispatcher="asyncio", outbox="false", smtp=smtp, smtp_timeout=60, drain_timeout=60)
        )
        assert served.sign_up() == 202
        stack.enter_context(silent.accept()[0])
        served.process.send_signal(signal.SIGTERM)
        until(lambda: "Shutting down" in served.log())
        began = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(30) == 128 + signal.SIGTERM
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Real-IP", "Forwarded"])
def test_a_header_does_not_make_another_client_of_one_and_is_not_logged(served: Served, name: str) -> None:
    client = served.client()
    statuses = [
        served.sign_up(f"n{n}@example.com", client=client, headers={name: f"evil-{n}, 203.0.113.{n}"})
        for n in range(25)
    ]
    assert statuses == [202] * 20 + [429] * 5
    assert served.sign_up(client=served.client()) == 202
    assert "evil" not in served.log()
    assert "203.0.113" not in served.log()


def test_a_trusted_proxy_names_the_client_and_what_the_client_wrote_before_does_not_count(tmp_path: Path) -> None:
    with serving(tmp_path, rate_limit="2/minute", trusted_proxies="127.0.0.0/8, 10.0.0.7") as served:

        def sign_up(number: int, forwarded: str) -> int:
            return served.sign_up(f"ada{number}@example.com", headers={"X-Forwarded-For": forwarded})

        spoofed = [sign_up(number, f"198.51.100.{number}, 203.0.113.1, 10.0.0.7") for number in range(3)]
        assert spoofed == [202, 202, 429]
        assert sign_up(4, "203.0.113.2") == 202
        garbage = [sign_up(10 + number, f"evil-{number}") for number in range(3)]
        assert garbage == [202, 202, 429]
        assert "203.0.113.1" in served.log()
        assert "evil" not in served.log()


def test_each_endpoint_has_a_limit_for_each_client(served: Served) -> None:
    bodies = {
        "/accounts": {"email": "limit@example.com", "display_name": "Ada"},
        "/accounts/verification-codes": {"email": "limit@example.com"},
        "/accounts/verify": {"email": "limit@example.com", "code": "22222222"},
    }
    one, other = served.client(), served.client()
    for path, body in bodies.items():
        answers = [one.post(path, json=body) for _ in range(21)]
        assert 429 not in {answer.status_code for answer in answers[:20]}
        assert_problem(answers[20], 429)
        assert 0 < int(answers[20].headers["Retry-After"]) <= 60
        assert other.post(path, json=body).status_code != 429
    # The page that redeems a code counts its guesses at the same limit.
    assert one.post("/verify", data=bodies["/accounts/verify"]).status_code == 429


def test_all_spellings_of_one_mailbox_get_one_mail(served: Served) -> None:
    before = len(served.mails())
    for number in range(40):
        address = f"{'Gr.ace' if number % 2 else 'grace'}+{number}@example.com"
        assert served.sign_up(address, client=served.client()) == 202
    until(lambda: len(served.mails()) > before)
    until(lambda: served.http.get("/health/ready").json()["counts"]["outbox"] == 0)
    assert len([mail for mail in served.mails() if "gr" in str(mail["To"]).lower()]) == 1


def test_the_owner_verifies_by_the_link_although_a_stranger_has_used_up_the_code(served: Served) -> None:
    owner, stranger = served.client(), served.client()
    served.sign_up("owner@example.com", client=owner)
    mail = until(lambda: [mail for mail in served.mails() if mail["To"] == "owner@example.com"])[0]
    (link,) = (word for word in mail.get_content().split() if word.startswith("http"))
    page, fragment = link.split("#")
    given = dict(parse_qsl(fragment))
    assert page == f"http://127.0.0.1:{served.port}/verify", "the link names the port that is listened on"
    guess = {"email": "owner@example.com", "code": "22222222"}
    for _ in range(5):
        assert stranger.post("/accounts/verify", json=guess).status_code == 400
    assert owner.post("/accounts/verify", json=guess | {"code": code_of(mail)}).status_code == 400
    assert "only the link of its mail works now" in served.log()
    assert float(served.http.get("/metrics").text.split("\neventpact_codes_refused_total ")[1].split()[0]) >= 6
    assert owner.get(page).status_code == 200
    done = owner.post("/verify", data=given)
    assert (done.status_code, "is verified" in done.text) == (200, True)
    assert owner.post("/verify", data=given).status_code == 400
    assert "owner" not in served.log()
    assert given["code"] not in served.log()


def test_the_page_runs_no_script_but_its_own_and_works_without_it(served: Served) -> None:
    client = served.client()
    page = client.get("/verify")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert page.headers["Referrer-Policy"] == "no-referrer"
    for body, status in [
        ({"other": "x"}, 422),
        ({"email": "x", "code": "y"}, 422),
        ({"email": "ada@example.com"}, 400),
        ({"email": "<script>@example.com", "code": "<script>"}, 422),
    ]:
        answer = client.post("/verify", data=body)
        assert answer.status_code == status
        assert answer.text.count("<script>") == 1
    assert client.post("/verify", json={}).status_code == 415


def test_the_docs_need_no_internet(served: Served) -> None:
    page = served.http.get("/docs").text
    assert "https://" not in page
    assert "//cdn" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"docs-assets/{asset}" in page
        assert served.http.get(f"/docs-assets/{asset}").status_code == 200
    assert served.http.get("/openapi.json").json()["info"]["title"] == "eventpact"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json; charset*=utf-16''x"},
        {"Content-Type": "application/json; charset*=idna''x.."},
        {"Content-Type": f"application/json; charset*{'9' * 5000}=utf-8"},
        {"Content-Type": "application/json, text/plain"},
        {"Content-Type": "=?utf-8?q?application/json?="},
        {"Content-Type": "application/=?utf-8?q?json?="},
        {"Content-Type": "(" * 10_000},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
@pytest.mark.parametrize("path", ["/accounts", "/accounts/verify", "/accounts/verification-codes"])
def test_another_type_than_json_is_told_what_to_send(served: Served, path: str, headers: dict[str, str]) -> None:
    answer = served.client().post(path, content=BODY, headers=headers)
    assert_problem(answer, 415)
    assert answer.headers["Accept-Post"] == "application/json"
    assert "Content-" in answer.json()["detail"]


@pytest.mark.parametrize(
    "given", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_json_is_taken_however_its_type_is_spelled(served: Served, given: str) -> None:
    assert served.http.post("/accounts", content=BODY, headers={"Content-Type": given}).status_code == 202


@pytest.mark.parametrize(
    "given",
    ["application/json; " + ";" * 12_000, 'application/json; x="' + '"' * 12_000, "application/json " + "(a)" * 4000],
)
def test_a_type_that_a_parser_of_mail_would_take_seconds_for_is_not_parsed(given: str, served: Served) -> None:
    assert_problem(served.client().post("/accounts", content=b"{}", headers={"Content-Type": given}), 415)


def test_a_head_that_is_too_large_is_refused_however_it_comes(served: Served) -> None:
    head = b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 60_000 + b"\r\n\r\n"
    for pieces in ([head], [head[:30_000], head[30_000:]]):
        with served.connect() as connection:
            with suppress(ConnectionError):  # closed before all of it has come
                for piece in pieces:
                    connection.sendall(piece)
            answer = rest_of(connection)  # lost where the connection was reset
            assert not answer or answer.startswith(b"HTTP/1.1 400 ")


def test_a_body_that_is_too_large_is_refused_whether_or_not_its_length_is_announced(served: Served) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(17):
            yield b" " * 1024

    for content in (b" " * 16 * 1024 + b"{", chunks()):
        answer = served.client().post("/accounts", content=content, headers={"Content-Type": "application/json"})
        assert_problem(answer, 413)
    fits = BODY.ljust(16 * 1024)
    answer = served.client().post("/accounts", content=fits, headers={"Content-Type": "application/json"})
    assert answer.status_code == 202


def test_malformed_bodies_are_problems_that_repeat_nothing_and_reach_no_log(served: Served) -> None:
    bodies = [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 8000,
        b'{"email": "mallory@example.com"}',
        b'{"email": "mallory@example.com", "display_name": NaN}',
        b'{"email": "mallory@example.com", "display_name": 1e999}',
        b'{"email": "mallory@example.com", "display_name": "a\\u0000b"}',
        b'{"email": "mallory@example.com", "display_name": "\\ud800"}',
        b'{"email": "mallory@example.com", "display_name": "M", "verified": true}',
        b'{"email": "mallory@example.com", "display_name": ["M"]}',
        b'{"email": "\\ud800mallory@example.com", "display_name": "M"}',
        b'{"email": "mallory@example.com\\r\\nBcc: x@example.com", "display_name": "M"}',
        b'{"email": "=?utf-8?q?mallory=40evil.example=2C?=@example.com", "display_name": "M"}',
    ]
    client = served.client()
    for body in bodies:
        answer = client.post("/accounts", content=body, headers={"Content-Type": "application/json"})
        assert_problem(answer, 400, 422)
        assert "mallory" not in answer.text
    assert "mallory" not in served.log()
    assert not [mail for mail in served.mails() if "mallory" in str(mail["To"])]


def test_the_answer_does_not_tell_whether_an_address_is_known(served: Served) -> None:
    client = served.client()
    body = {"email": "known@example.com", "display_name": "Ada"}
    answers = [client.post("/accounts", json=body) for _ in range(2)]
    answers += [
        client.post("/accounts/verification-codes", json={"email": address})
        for address in ("known@example.com", "unknown@example.com")
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {(202, '{"status":"accepted"}')}


def test_each_answer_has_an_id_that_finds_its_records_in_the_log(served: Served) -> None:
    answers = [served.http.get("/health/live", headers={"X-Request-ID": "forged"}) for _ in range(2)]
    ids = {answer.headers["X-Request-ID"] for answer in answers}
    assert len(ids) == 2
    for each in ids:
        until(lambda each=each: f"[request {each}]" in served.log())
    assert "forged" not in served.log()


def test_a_mail_is_logged_with_the_id_of_the_request_that_it_is_of(served: Served) -> None:
    body = {"email": "logged@example.com", "display_name": "Ada"}
    request = served.client().post("/accounts", json=body).headers["X-Request-ID"]
    until(lambda: re.search(rf"a code was mailed to account \S+ for \S+ \[request {request}\]", served.log()))


def test_a_flood_of_readiness_starves_nobody(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        serving(  # a broker that is frozen
            tmp_path,
            dispatcher="celery",
            broker=f"redis://127.0.0.1:{silent.getsockname()[1]}/0",
            rate_limit="1000/minute",
        ) as served,
        ExitStack() as stack,
    ):
        flood = [stack.enter_context(served.connect()) for _ in range(150)]
        for connection in flood:
            connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        began = time.monotonic()
        assert served.http.get("/health/live").status_code == 200
        assert served.sign_up() == 202  # the outbox takes it
        assert time.monotonic() - began < 5
        answers = Counter(rest_of(connection)[:12] for connection in flood)
        assert answers == {b"HTTP/1.1 503": 150}


def test_one_client_with_many_requests_leaves_room_for_the_others(tmp_path: Path) -> None:
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=200))
        smtp = f"smtp://127.0.0.1:{silent.getsockname()[1]}"
        served = stack.enter_context(
            serving(tmp_path, dispatcher="sync", smtp=smtp, smtp_timeout=15, max_in_flight=60, rate_limit="1000/minute")
        )
        flood = [stack.enter_context(served.connect()) for _ in range(100)]
        for number, connection in enumerate(flood):
            body = BODY.replace(b"eve@", b"e%02d@" % number)
            connection.sendall(HEAD + body)
        until(lambda: served.log().count(" 429") == 70)
        other = served.client()
        answer = other.post("/accounts/verify", json={"email": "ada@example.com", "code": "22222222"})
        assert answer.status_code == 400


def test_a_full_disk_and_a_storage_of_limits_that_is_gone_are_not_ready(tmp_path: Path) -> None:
    with serving(tmp_path, rate_limit_storage="redis://127.0.0.1:1/0") as served:
        answer = served.http.get("/health/ready")
        assert_problem(answer, 503)
        assert answer.json()["checks"] == {"database": "ok", "rate_limit": "ConnectionError"}
        assert "rate_limit (ConnectionError)" in answer.json()["detail"]

        # A limit on the size of files lets no file grow, as a full disk does.
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
        until(lambda: served.http.get("/health/ready").json()["checks"]["database"].startswith("SQLITE_"))
        assert served.http.get("/health/live").status_code == 200

        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        until(lambda: served.http.get("/health/ready").json()["checks"]["database"] == "ok")


def test_the_log_names_the_error_for_which_the_outbox_cannot_be_written(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        database = Database(f"sqlite:///{tmp_path / 'eventpact.db'}")
        with database.transaction() as connection:
            connection.exec_driver_sql("ALTER TABLE outbox_relays RENAME TO gone")
        database.close()
        until(lambda: "the outbox cannot be written (SQLITE_ERROR)" in served.log())


def test_production_serves_no_docs_and_shows_metrics_to_nobody_without_the_token(tmp_path: Path) -> None:
    token = "0123456789abcdef"
    database = Database(f"sqlite:///{tmp_path / 'shop.db'}")
    database.migrate()
    database.close()
    with serving(
        tmp_path,
        environment="production",
        database=f"sqlite:///{tmp_path / 'shop.db'}",
        smtp="smtp://127.0.0.1:1",
        base_url="https://shop.example",
        mail_from="no-reply@shop.example",
        metrics_token=token,
    ) as served:
        for path in ("/docs", "/openapi.json", "/docs-assets/swagger-ui.css"):
            assert served.http.get(path).status_code == 404
        assert_problem(served.http.get("/metrics"), 401)
        assert_problem(served.http.get("/metrics", headers={"Authorization": "Bearer 0123456789abcdeX"}), 401)
        assert_problem(served.http.get("/metrics", headers={"Authorization": f"Basic {token}"}), 401)
        for scheme in ("Bearer", "bearer", "BEARER "):
            assert served.http.get("/metrics", headers={"Authorization": f"{scheme} {token}"}).status_code == 200
