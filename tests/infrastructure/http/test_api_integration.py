"""The HTTP API on real parts."""

import asyncio
import logging
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakeredis import TcpFakeServer
from support.application import Client, assert_problem, code_of, running, settings_for
from support.waiting import until_in_loop

from eventpact.domain.dispatcher import DispatchError, DispatchUncertainError, Handlers
from eventpact.infrastructure.http.middleware import ClientLimit
from eventpact.infrastructure.http.problems import TooManyRequestsError
from eventpact.infrastructure.mail import FolderMailer
from eventpact.settings import Settings
from eventpact.testing import RecordingEventDispatcher


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with running(settings_for(tmp_path, dispatcher="sync")) as client:
        yield client


@pytest.mark.parametrize("dispatcher", ["sync", "asyncio"])
async def test_signing_up_mails_a_code_that_verifies_once(tmp_path: Path, dispatcher: str) -> None:
    async with running(settings_for(tmp_path, dispatcher=dispatcher)) as client:
        answer = await client.sign_up()
        assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
        await until_in_loop(client.mails)
        (mail,) = client.mails()
        assert mail["To"] == "ada@example.com"
        verified = await client.verify(code_of(mail).lower())
        assert verified.status_code == 200
        assert verified.json()["verified"] is True
        assert verified.json()["display_name"] == "Ada"
        assert (await client.verify(code_of(mail))).status_code == 400


async def test_the_answer_does_not_tell_whether_an_address_is_known(client: Client) -> None:
    first, known, verified, unknown = (
        await client.sign_up(),
        await client.sign_up(),
        None,
        await client.resend("x@y.zz"),
    )
    await client.verify(code_of(client.mails()[0]))
    verified = await client.sign_up()
    answers = {(answer.status_code, answer.text) for answer in (first, known, verified, unknown)}
    assert answers == {(202, '{"status":"accepted"}')}


async def test_the_owner_of_a_verified_account_is_told_of_another_sign_up(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, dispatcher="sync", resend_interval=0)) as client:
        await client.sign_up()
        await client.verify(code_of(client.mails()[0]))
        await client.sign_up()
        assert client.mails()[-1]["Subject"] == "You have an account already"


async def test_another_code_voids_the_one_before(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, dispatcher="sync", resend_interval=0)) as client:
        await client.sign_up()
        await client.resend()
        old, new = map(code_of, client.mails())
        assert (await client.verify(old)).status_code == 400
        assert (await client.verify(new)).status_code == 200


async def test_at_most_one_code_a_minute_is_mailed(client: Client) -> None:
    await client.sign_up()
    for _ in range(3):
        assert (await client.resend()).status_code == 202
    assert len(client.mails()) == 1


async def test_a_code_expires(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, dispatcher="sync", code_ttl=0.001)) as client:
        await client.sign_up()
        assert (await client.verify(code_of(client.mails()[0]))).status_code == 400


async def test_sign_ups_of_one_client_are_limited_and_told_when_to_come_back(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, dispatcher="sync", rate_limit="20/minute")) as client:
        answers = await asyncio.gather(*(client.sign_up(f"ada{number}@example.com") for number in range(25)))
        assert Counter(answer.status_code for answer in answers) == {202: 20, 429: 5}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert 0 < int(refused.headers["Retry-After"]) <= 60


async def test_a_full_server_says_so_at_once_and_does_what_it_has_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, held = threading.Event(), []

    async def wait(mailer: FolderMailer, *, to: str, template: str, context: object) -> None:
        held.append(to)
        await asyncio.to_thread(gate.wait, 30)

    monkeypatch.setattr(FolderMailer, "send", wait)
    async with running(settings_for(tmp_path, dispatcher="sync", max_in_flight=3)) as client:
        taken = [asyncio.create_task(client.sign_up(f"ada{number}@example.com")) for number in range(3)]
        try:
            await until_in_loop(lambda: len(held) == 3)
            for ask in (client.sign_up, client.resend, lambda: client.verify("22222222")):
                answer = await ask()
                assert_problem(answer, 503)
                assert int(answer.headers["Retry-After"]) > 0
            assert (await client.http.get("/health/live")).status_code == 200
        finally:
            gate.set()
        assert [(await answer).status_code for answer in taken] == [202, 202, 202]
        assert (await client.sign_up()).status_code == 202


async def test_the_limit_cannot_be_talked_out_of(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, dispatcher="sync", rate_limit="1/minute")) as client:
        await client.sign_up()
        for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP"):
            headers = {name: "for=203.0.113.9" if name == "Forwarded" else "203.0.113.9"}
            body = {"email": "eve@example.com", "display_name": "Eve"}
            assert (await client.http.post("/accounts", json=body, headers=headers)).status_code == 429


@pytest.mark.parametrize("given", ["2001:db8::1", "2001:db8::ffff:2%eth0", "::ffff:192.0.2.1", "192.0.2.1", "unknown"])
async def test_the_limit_counts_an_ipv6_network_as_one_client_and_every_ipv4_address_as_its_own(given: str) -> None:
    limit = ClientLimit("1/minute", "memory://")
    limit.count("sign-up", given)
    same = {"2001:db8::1": "2001:db8::2", "2001:db8::ffff:2%eth0": "2001:db8::", "::ffff:192.0.2.1": "192.0.2.1"}
    with pytest.raises(TooManyRequestsError):
        limit.count("sign-up", same.get(given, given))
    for other in ("2001:db8:0:1::1", "192.0.2.2", "::ffff:192.0.2.3"):
        limit.count("sign-up", other)


@pytest.fixture
def shared_storage() -> Iterator[str]:
    """The URL of a Redis that several servers share, without a process."""
    with TcpFakeServer(("127.0.0.1", 0), server_type="redis") as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        server.shutdown()
        thread.join()


async def test_several_servers_count_sign_ups_together_in_redis(tmp_path: Path, shared_storage: str) -> None:
    def settings(name: str) -> Settings:
        return settings_for(
            tmp_path / name,
            dispatcher="sync",
            rate_limit="3/minute",
            rate_limit_storage=shared_storage,
        )

    async with running(settings("one")) as one, running(settings("two")) as two:
        sign_ups = [client.sign_up(f"a{n}@example.com") for n in range(4) for client in (one, two)]
        answers = await asyncio.gather(*sign_ups)
    assert Counter(answer.status_code for answer in answers) == {202: 3, 429: 5}


async def test_what_cannot_be_counted_is_refused_in_time(tmp_path: Path) -> None:
    with socket.socket() as silent:  # takes connections, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        storage = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        async with running(settings_for(tmp_path, dispatcher="sync", rate_limit_storage=storage)) as client:
            async with asyncio.timeout(10):
                answer = await client.sign_up()
            assert_problem(answer, 503)
            assert answer.headers["Retry-After"]
            assert not client.mails()


async def test_the_time_of_an_answer_does_not_tell_whether_an_address_is_known(tmp_path: Path) -> None:
    step = 0.2
    async with running(settings_for(tmp_path, dispatcher="asyncio", answer_step=step)) as client:
        loop = asyncio.get_running_loop()
        for ask in (
            client.sign_up,
            client.sign_up,
            client.resend,
            lambda: client.resend("unknown@example.com"),
            lambda: client.verify("22222222"),
            lambda: client.verify("22222222", "unknown@example.com"),
        ):
            began = loop.time()
            await ask()
            assert loop.time() - began >= step


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/accounts", 405), ("POST", "/health/live", 405), ("POST", "/accounts/", 404)],
)
async def test_other_errors_are_problems_too(client: Client, method: str, path: str, status: int) -> None:
    answer = await client.http.request(method, path)
    assert_problem(answer, status)
    assert (status == 405) == ("Allow" in answer.headers)


def refuse_once(monkeypatch: pytest.MonkeyPatch, error: DispatchError) -> None:
    """Let the application that is built next be refused its first event."""

    def build(handlers: Handlers, **options: Any) -> RecordingEventDispatcher:
        dispatcher = RecordingEventDispatcher(handlers, **options)
        dispatcher.refuse(error)
        return dispatcher

    monkeypatch.setattr("eventpact.bootstrap.SyncEventDispatcher", build)


async def test_when_events_are_refused_the_answer_says_so_and_signing_up_again_mails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_once(monkeypatch, DispatchError("the broker cannot be reached"))
    async with running(settings_for(tmp_path, dispatcher="sync")) as client:
        answer = await client.sign_up()
        assert_problem(answer, 503)
        assert answer.headers["Retry-After"]
        assert "again" in answer.json()["detail"]
        assert not client.mails()
        assert (await client.sign_up()).status_code == 202
        assert (await client.verify(code_of(client.mails()[0]))).status_code == 200


async def test_when_it_is_in_doubt_whether_an_event_was_accepted_the_answer_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_once(monkeypatch, DispatchUncertainError("the broker did not answer"))
    async with running(settings_for(tmp_path, dispatcher="sync")) as client:
        answer = await client.sign_up()
        assert_problem(answer, 503)
        assert "not known" in answer.json()["detail"]


async def test_an_unexpected_error_has_an_id_that_finds_it_in_the_log_and_tells_no_more(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address = "ada@example.com"

    def fail(_: object) -> None:
        raise RuntimeError(address)

    monkeypatch.setattr(client.application.create_account, "execute", fail)
    answer = await client.sign_up()
    assert_problem(answer, 500)
    assert answer.json()["error_id"] in caplog.text
    assert "RuntimeError" in caplog.text
    assert address not in answer.text
    assert address not in caplog.text


async def test_no_code_and_no_address_is_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await client.sign_up()
    code = code_of(client.mails()[0])
    await client.verify("22222222")
    await client.verify(code)
    assert "ada@example.com" not in caplog.text
    assert code not in caplog.text


async def test_ready_asks_the_database(client: Client) -> None:
    assert (await client.http.get("/health/ready")).json() == {
        "status": "ok",
        "checks": {"database": "ok"},
        "counts": {"failed": 0},
    }
    with client.application.database.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE accounts RENAME TO gone")
    async with asyncio.timeout(10):
        while (answer := await client.http.get("/health/ready")).status_code == 200:
            await asyncio.sleep(0.05)  # until the answer of a moment ago is a second old
    assert_problem(answer, 503)
    assert answer.json()["checks"] == {"database": "SQLITE_ERROR"}
    assert (await client.http.get("/health/live")).status_code == 200
    assert_problem(await client.sign_up(), 500)


async def test_the_docs_can_be_switched_off(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, docs=False)) as client:
        assert [(await client.http.get(path)).status_code for path in ("/docs", "/openapi.json")] == [404, 404]


async def test_links_come_from_the_base_url_never_from_the_host_header(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, dispatcher="sync", base_url="https://shop.example/")) as client:
        await client.http.post(
            "/accounts",
            json={"email": "ada@example.com", "display_name": "Ada"},
            headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"},
        )
        text = client.mails()[0].get_content()
        assert "https://shop.example/verify#email=ada%40example.com" in text
        assert "evil" not in text
