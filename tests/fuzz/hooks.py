"""Hooks of Schemathesis: the code that was mailed, which no generator can know, and the answer that it must get."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.generation.case import Case

from fuzz.people import People

__all__ = ["reads_mail_in"]

_VERIFY = "/accounts/verify"

_people = People(Path(os.environ.get("EVENTPACT_FUZZ_MAIL", "mail")))
_answers: dict[str, tuple[int, int]] = {}  # by the id of a case: the status that it must get, and the one it got


def reads_mail_in(folder: Path) -> People:
    """Begin anew, with a server that writes its mails into ``folder``."""
    global _people
    _people = People(folder)
    return _people


@schemathesis.hook
def before_call(_: Any, case: Case, __: dict[str, Any]) -> None:
    address = _address(case)
    if address is None:
        return
    if case.path == "/accounts" and case.meta and case.meta.generation.mode.is_positive:
        address = _people.replace(address)
        case.body = {**case.body, "email": address}  # type: ignore[dict-item]
    _people.await_mails(address)
    if case.path == _VERIFY and case.meta and case.meta.generation.mode.is_positive:
        case.body = {**case.body, "code": _people.suggest(address, case.body["code"])}  # type: ignore[dict-item]
        _answers[case.id] = (200 if _people.is_live(address, case.body["code"]) else 400, 0)


@schemathesis.hook
def after_call(_: Any, case: Case, response: Any) -> None:
    address = _address(case)
    if address is None:
        return
    if case.path == _VERIFY and case.id in _answers:
        must, _ = _answers[case.id]
        _answers[case.id] = (must, response.status_code)
        _people.guessed(address, right=response.status_code == 200)
    elif case.path == "/accounts" and response.status_code == 202:
        _people.signed_up(address)
    elif case.path == "/accounts/verification-codes" and response.status_code == 202:
        _people.asked_for_a_code(address)


@schemathesis.check
def redeems_the_live_code_and_no_other(_: Any, response: Any, case: Case) -> None:
    """The last code that was mailed verifies, once, within five attempts; nothing else does."""
    must, got = _answers.get(case.id, (0, 0))
    assert must == got, f"the answer must be {must}"


@schemathesis.check
def errors_are_problems_that_repeat_nothing(_: Any, response: Any, case: Case) -> None:
    """Every error is problem+json with its own status, and quotes neither an address nor a code."""
    if response.status_code < 400:
        return
    assert response.headers["content-type"] == ["application/problem+json"]
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["title"]
    assert problem["detail"]
    if isinstance(case.body, dict):
        for value in (case.body.get("email"), case.body.get("code")):
            assert not isinstance(value, str) or len(value) < 8 or value not in response.text


def _address(case: Case) -> str | None:
    if case.method.upper() != "POST" or not isinstance(case.body, dict):
        return None
    address = case.body.get("email")
    return address if isinstance(address, str) else None
