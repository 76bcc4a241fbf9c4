"""The verdict as JSON, for programs. ``verdict.schema.json`` beside this file describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eventpact_contracts.checking.outcomes import LawResult, Outcome, Verdict, Violation
from eventpact_contracts.driver.trace import Trace
from eventpact_contracts.reports.summary import RunFacts, exit_code, printable, version_of

__all__ = ["document", "result_as_json", "result_from_json"]


def document(verdicts: Sequence[Verdict], run: RunFacts) -> str:
    """All verdicts in one JSON object."""
    value = {
        "contract_version": run.contract_version,
        "exit_code": exit_code(verdicts),
        "seed": run.seed,
        "examples": run.examples,
        "time": run.time.isoformat(timespec="seconds"),
        "python": run.python,
        "kit": run.kit,
        "platform": run.platform,
        "dispatchers": [_verdict(verdict) for verdict in verdicts],
    }
    return json.dumps(value, indent=2) + "\n"


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "dispatcher": printable(verdict.dispatcher),
        "target": {"module": verdict.module or None, "version": version_of(verdict.module)},
        "guarantees": verdict.guarantees and verdict.guarantees.to_dict(),
        "exit_code": verdict.exit_code,
        "seconds": round(verdict.seconds, 3),
        "laws": [result_as_json(result) for result in verdict.results],
    }


def result_as_json(result: LawResult) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": result.law_id,
        "title": result.title,
        "outcome": result.outcome.value,
        "examples": result.examples,
        "observations": result.observations,
        "detail": printable(result.detail),
        "seconds": round(result.seconds, 3),
    }
    if result.known:
        row["known"] = printable(result.known)
    if result.violation:
        seen, runs = result.replays or (None, None)
        row["violation"] = {
            "message": printable(result.violation.message),
            "trace": result.violation.trace.to_dict(),
            "reproduce": result.script,
            "replays": {"seen": seen, "of": runs} if result.replays else None,
        }
    return row


def result_from_json(row: Mapping[str, Any]) -> LawResult:
    """The result that :func:`result_as_json` wrote, for another process."""
    violation = replays = script = None
    if found := row.get("violation"):
        violation = Violation(row["id"], found["message"], Trace.from_dict(found["trace"]))
        script = found["reproduce"]
        replays = (found["replays"]["seen"], found["replays"]["of"]) if found["replays"] else None
    return LawResult(
        law_id=row["id"],
        title=row["title"],
        outcome=Outcome(row["outcome"]),
        examples=row["examples"],
        observations=row["observations"],
        detail=row["detail"],
        seconds=row["seconds"],
        violation=violation,
        script=script,
        replays=replays,
        known=row.get("known", ""),
    )
