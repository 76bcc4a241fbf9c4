"""Checks laws over one dispatcher: plays the scenarios that they need, and concludes an outcome for each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from eventpact_contracts.checking.outcomes import Evidence, LawCheck, LawResult, Outcome
from eventpact_contracts.checking.play import Progress, play
from eventpact_contracts.laws import Law
from eventpact_contracts.subjects.subject import CouldNotRunError, Subject

__all__ = ["CouldNotRunError", "check", "check_laws", "play", "results_of"]


_IN_LOOP: Final = "it takes events inside a running event loop alone, and was driven there: say needs_loop = True"


def check(law: Law, subject: Any, *, examples: int = 100, seed: int = 0, seconds: float = 60.0) -> LawResult:
    """Check one law over one dispatcher, with a number of examples and a seed."""
    [result] = check_laws([law], subject, examples=examples, seed=seed, seconds=seconds)
    return result


def check_laws(
    laws: Sequence[Law],
    subject: Any,
    *,
    examples: int = 100,
    seed: int = 0,
    seconds: float = 60.0,
    progress: Progress | None = None,
) -> list[LawResult]:
    """Check laws over one dispatcher: each family of scenarios is played once, and every law judges every trace.

    Upheld means that the state that a law is about was seen at least once, and that the law held each time.
    """
    started = time.monotonic()
    try:
        evidence = play(laws, subject, examples=examples, seed=seed, seconds=seconds, progress=progress)
    except CouldNotRunError as error:
        took = time.monotonic() - started
        return [_could_not_run(law, str(error), LawCheck(), took / len(laws)) for law in laws]
    return results_of(laws, subject, evidence)


def results_of(laws: Sequence[Law], subject: Any, evidence: Evidence) -> list[LawResult]:
    """Conclude the outcome of each law from the findings of a run."""
    known = Subject.of(subject)
    return [_result_of(law, known, evidence, evidence.laws.get(law.id, LawCheck())) for law in laws]


def _result_of(law: Law, subject: Subject, evidence: Evidence, check: LawCheck) -> LawResult:
    if check.violation is not None:
        return _result(law, Outcome.VIOLATED, check.violation.message, check)
    if check.failure:
        return _could_not_run(law, check.failure, check, check.seconds)
    if law.needs and not getattr(subject, law.needs):
        return _result(law, Outcome.NOT_APPLICABLE, f"{law.needs} = False leaves nothing to compare", LawCheck())
    promised = law.promised(subject.guarantees)
    if not promised and check.absent is not None:
        return _result(law, Outcome.ABSENT, check.absent, check)
    detail = check.detail
    if not check.observations and check.likenesses:
        check.observations = check.examples = check.likenesses
        detail = _only_closing(subject, evidence)
    if not check.observations:
        check.examples = evidence.played
        return _could_not_run(law, _nothing_seen(evidence), check, check.seconds)
    if not promised:
        return _result(law, Outcome.UNCLAIMED, "it is not promised, and was never seen to fail", check)
    if evidence.in_loop and law.id == "A5":
        detail = "; ".join(filter(None, (detail, _IN_LOOP)))
    return _result(law, Outcome.UPHELD, detail, check)


def _result(law: Law, outcome: Outcome, detail: str, check: LawCheck) -> LawResult:
    return LawResult(
        law_id=law.id,
        title=law.title,
        outcome=outcome,
        examples=check.examples,
        observations=check.observations,
        detail=detail,
        seconds=check.seconds,
        violation=check.violation,
        replays=check.replays,
    )


def _could_not_run(law: Law, reason: str, check: LawCheck, seconds: float) -> LawResult:
    check.seconds = seconds
    return _result(law, Outcome.COULD_NOT_RUN, reason, check)


def _nothing_seen(evidence: Evidence) -> str:
    said = f"in {evidence.played} examples, nothing was seen of what the law is about"
    if evidence.raised:
        [(most, count)] = evidence.raised.most_common(1)
        said += f": dispatch or aclose raised {most} ({count} times)"
    else:
        said += ": the dispatcher accepted nothing, or nothing happened"
    return f"{said}; {evidence.stopped}" if evidence.stopped else said


def _only_closing(subject: Subject, evidence: Evidence) -> str:
    """The hindrances that did not make it refuse, and one that was not tried."""
    said = ["only closing made it refuse"]
    if evidence.withstood:
        said.append(f"it took what came in spite of {' and '.join(evidence.withstood)}")
    if not subject.can_be_unavailable:
        said.append("give it unavailable() to try what it does without its engine")
    return "; ".join(said)
