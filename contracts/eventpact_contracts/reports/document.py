"""The verdict as JSON, for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from eventpact_contracts.checking.outcomes import LawResult, Verdict
from eventpact_contracts.reports.summary import exit_code, printable

__all__ = ["document"]


def document(verdicts: Sequence[Verdict]) -> str:
    """All verdicts in one JSON object: contract version, exit code, and each dispatcher with one row a law."""
    value = {
        "contract_version": verdicts[0].contract_version if verdicts else None,
        "exit_code": exit_code(verdicts),
        "dispatchers": [_verdict(verdict) for verdict in verdicts],
    }
    return json.dumps(value, indent=2) + "\n"


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "dispatcher": printable(verdict.dispatcher),
        "guarantees": verdict.guarantees and verdict.guarantees.to_dict(),
        "exit_code": verdict.exit_code,
        "seconds": round(verdict.seconds, 3),
        "laws": [_law(result) for result in verdict.results],
    }


def _law(result: LawResult) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": result.law_id,
        "title": result.title,
        "outcome": result.outcome.value,
        "examples": result.examples,
        "observations": result.observations,
        "detail": printable(result.detail),
        "seconds": round(result.seconds, 3),
    }
    if result.violation:
        row["violation"] = {
            "message": printable(result.violation.message),
            "trace": result.violation.trace.to_dict(),
            "reproduce": result.script,
        }
    return row
