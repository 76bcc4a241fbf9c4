"""Fifty at once, over HTTP, on SQLite and on PostgreSQL: what may happen once happens once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.application import Client, code_of, running, settings_for
from support.outbox_kit import url_of

from eventpact.infrastructure.persistence.database import Database


@pytest.fixture
async def client(tmp_path: Path, database: Database) -> AsyncIterator[Client]:
    async with running(settings_for(tmp_path, dispatcher="sync", database=url_of(database))) as client:
        yield client


def scalar(client: Client, query: str) -> object:
    with client.application.database.transaction() as connection:
        return connection.exec_driver_sql(query).scalar_one()


async def test_fifty_concurrent_sign_ups_of_one_address_make_one_account_and_one_mail(client: Client) -> None:
    answers = await asyncio.gather(*(client.sign_up(name=f"Ada {number}") for number in range(50)))
    assert Counter(answer.status_code for answer in answers) == {202: 50}
    assert len(client.mails()) == 1
    assert scalar(client, "SELECT count(*) FROM accounts") == 1


async def test_fifty_concurrent_sign_ups_of_one_address_in_other_spellings_make_one_account(client: Client) -> None:
    spellings = ("ada@bücher.example", "ada@BÜCHER.example", "ada@xn--bcher-kva.example", "ada@XN--BCHER-KVA.EXAMPLE")
    answers = await asyncio.gather(*(client.sign_up(spellings[number % 4]) for number in range(50)))
    assert Counter(answer.status_code for answer in answers) == {202: 50}
    assert scalar(client, "SELECT email FROM accounts") == "ada@xn--bcher-kva.example"


async def test_fifty_concurrent_redemptions_of_one_code_succeed_once(client: Client) -> None:
    await client.sign_up()
    code = code_of(client.mails()[0])
    answers = await asyncio.gather(*(client.verify(code) for _ in range(50)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: 49}


async def test_fifty_concurrent_wrong_guesses_count_five_and_the_right_one_comes_too_late(client: Client) -> None:
    await client.sign_up()
    code = code_of(client.mails()[0])
    wrong = "22222222" if code != "22222222" else "33333333"
    answers = await asyncio.gather(*(client.verify(wrong) for _ in range(50)))
    assert Counter(answer.status_code for answer in answers) == {400: 50}
    assert scalar(client, "SELECT attempts FROM verification_codes") == 5
    assert (await client.verify(code)).status_code == 400


async def test_fifty_concurrent_requests_for_a_code_mail_one(client: Client) -> None:
    await client.sign_up()
    with client.application.database.transaction() as connection:
        connection.exec_driver_sql("DELETE FROM mailboxes")
    answers = await asyncio.gather(*(client.resend() for _ in range(50)))
    assert Counter(answer.status_code for answer in answers) == {202: 50}
    assert len(client.mails()) == 2
