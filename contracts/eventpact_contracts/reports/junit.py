"""The verdict as JUnit XML, for continuous integration: a suite for each dispatcher, a case for each law."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from eventpact_contracts.checking.outcomes import LawResult, Outcome, Verdict
from eventpact_contracts.reports.summary import RunFacts, figures, printable

__all__ = ["junit"]

_SKIPPED = (Outcome.NOT_APPLICABLE, Outcome.NOT_SELECTED, Outcome.KNOWN)


def junit(verdicts: Sequence[Verdict], run: RunFacts) -> str:
    """All verdicts in one JUnit XML document."""
    root = Element("testsuites", name=f"eventpact contract {run.contract_version}")
    for verdict in verdicts:
        cases = [_case(verdict, result) for result in verdict.results]
        suite = SubElement(
            root,
            "testsuite",
            name=printable(verdict.dispatcher),
            tests=str(len(cases)),
            failures=str(sum(case.find("failure") is not None for case in cases)),
            errors=str(sum(case.find("error") is not None for case in cases)),
            skipped=str(sum(case.find("skipped") is not None for case in cases)),
            time=f"{verdict.seconds:.3f}",
            timestamp=run.time.isoformat(timespec="seconds"),
        )
        properties = SubElement(suite, "properties")
        for name in ("contract_version", "seed", "examples", "python", "kit", "platform"):
            SubElement(properties, "property", name=name, value=str(getattr(run, name)))
        suite.extend(cases)
    indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{tostring(root, encoding="unicode")}\n'


def _case(verdict: Verdict, result: LawResult) -> Element:
    case = Element(
        "testcase",
        classname=printable(verdict.dispatcher),
        name=f"{result.law_id} {result.title}",
        time=f"{result.seconds:.3f}",
    )
    detail = printable(result.detail)
    if result.exit_code == 1:
        failure = SubElement(case, "failure", message=detail, type=result.outcome.value)
        if result.violation:
            failure.text = printable(f"{result.violation.trace}\n\nTo see it again: {result.script}")
    elif result.outcome is Outcome.COULD_NOT_RUN:
        SubElement(case, "error", message=detail, type=result.outcome.value)
    elif result.outcome in _SKIPPED:
        why = f": {printable(result.known)}" if result.known else f": {detail}" if detail else ""
        SubElement(case, "skipped", message=f"{result.outcome.value}{why}")
    else:
        said = " ".join(filter(None, [result.outcome.value, figures(result), detail]))
        SubElement(case, "system-out").text = said
    return case
