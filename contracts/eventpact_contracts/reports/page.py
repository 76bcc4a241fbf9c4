"""The verdict as one HTML page, complete in itself: no script, no font, no image is loaded from anywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from string import Template
from urllib.parse import quote

from eventpact_contracts.checking.outcomes import LawResult, Outcome, Verdict
from eventpact_contracts.reports.advice import Advice, advice
from eventpact_contracts.reports.sequence import sequence
from eventpact_contracts.reports.summary import (
    SYMBOLS,
    RunFacts,
    columns,
    escape,
    exit_code,
    figures,
    group_of,
    guarantee_rows,
    headline,
    is_whole,
    rows,
    tally,
)

__all__ = ["page"]

_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<header class="$state">
<p class="over">EventDispatcher contract $version</p>
<h1>$headline</h1>
<p class="under">$under</p>
</header>
<main>
<section class="cards" aria-label="Dispatchers">
$cards
</section>
$violations
<section aria-labelledby="matrix">
<h2 id="matrix">Every law</h2>
<p>Open a law to read its promise and the observations. The figures say how often the run reached the state that
the law is about, and in how many examples.</p>
$matrix
</section>
<section aria-labelledby="legend">
<h2 id="legend">How to read an outcome</h2>
<dl class="legend">
$legend
</dl>
</section>
</main>
<footer>$footer</footer>
</body>
</html>
""")

_CARD = Template("""\
<article class="card $state">
<h2>$name</h2>
<p class="path">$path</p>
<p class="result">$result</p>
<dl>$guarantees</dl>
<p class="seconds">$seconds s</p>
</article>""")

_VIOLATION = Template("""\
<article class="violation" id="$anchor">
<h3><span class="law">$law</span> $title <span class="who">$who</span></h3>
<p class="promise">$promise</p>
<p class="message">$message</p>
<div class="wide">$diagram</div>
$schedule
<details><summary>The same trace as text</summary><pre>$trace</pre></details>
$advice
</article>""")

_MEANINGS = {
    Outcome.UPHELD: "Checked, and it holds.",
    Outcome.VIOLATED: "A counterexample was found, and shrunk to the shortest.",
    Outcome.ABSENT: "Not promised, and a witness run shows that it is absent.",
    Outcome.UNCLAIMED: "Not promised, yet never seen to fail: a hint that more could be declared, not a fault.",
    Outcome.NOT_APPLICABLE: "A capability that is declared absent leaves nothing to judge.",
    Outcome.NOT_SELECTED: "Only a part of the contract was asked for, and the law is not in it.",
    Outcome.KNOWN: "Violated, and listed as known with a reason.",
    Outcome.COULD_NOT_RUN: "Something that the check needs was missing; the law is neither upheld nor violated.",
}


def page(verdicts: Sequence[Verdict], run: RunFacts) -> str:
    """The page. Everything that comes from the dispatcher under test is escaped."""
    names, said = columns(verdicts), headline(verdicts)
    broken = [
        (name, result)
        for name, verdict in zip(names, verdicts, strict=True)
        for result in verdict.results
        if result.violation
    ]
    return _PAGE.substitute(
        title=escape(f"{said} - event contract"),
        style=files(__package__).joinpath("page.css").read_text("utf-8"),
        state=_state(exit_code(verdicts) or (0 if is_whole(verdicts) else 2)),
        version=escape(run.contract_version),
        headline=escape(said[:1].upper() + said[1:]),
        under=escape(f"{', '.join(names)}, checked {run.time:%d %B %Y at %H:%M} UTC"),
        cards="\n".join(_card(name, verdict) for name, verdict in zip(names, verdicts, strict=True)),
        violations=_violations(broken),
        matrix=_matrix(verdicts, names),
        legend="\n".join(
            f'<div><dt class="{_css(outcome)}">{SYMBOLS[outcome]} {escape(outcome.value)}</dt>'
            f"<dd>{escape(meaning)}</dd></div>"
            for outcome, meaning in _MEANINGS.items()
        ),
        footer=_footer(run),
    )


def _footer(run: RunFacts) -> str:
    facts = f"{run.examples} examples a law, seed {run.seed}; Python {run.python}, eventpact {run.kit}, {run.platform}"
    return escape(facts) + (f"<br>To see it again: {escape(run.again)}" if run.again else "")


def _card(name: str, verdict: Verdict) -> str:
    counts = " ".join(
        f'<span class="{_css(outcome)}">{SYMBOLS[outcome]} {number} {escape(outcome.value)}</span>'
        for outcome, number in tally(verdict).items()
    )
    return _CARD.substitute(
        state=_state(verdict.exit_code),
        name=escape(name),
        path=escape(verdict.dispatcher) if verdict.dispatcher != name else "",
        result=counts,
        guarantees="".join(
            f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>"
            for label, value in guarantee_rows(verdict.guarantees).items()
        ),
        seconds=f"{verdict.seconds:.1f}",
    )


def _violations(broken: Sequence[tuple[str, LawResult]]) -> str:
    if not broken:
        return ""
    articles = "\n".join(_violation(name, result) for name, result in broken)
    return f'<section aria-labelledby="violations"><h2 id="violations">What went wrong</h2>\n{articles}\n</section>'


def _violation(name: str, result: LawResult) -> str:
    violation = result.violation
    return _VIOLATION.substitute(
        anchor=escape(_anchor(name, result)),
        law=escape(result.law_id),
        title=escape(result.title),
        who=escape(name),
        promise=_prose(advice(result.law_id).promise),
        message=escape(violation.message if violation else result.detail),
        diagram=sequence(violation.trace, title=f"How {name} violated {result.law_id}") if violation else "",
        schedule=f"<pre>{escape(violation.trace.schedule)}</pre>" if violation and violation.trace.schedule else "",
        trace=escape(str(replace(violation.trace, schedule="")) if violation else ""),
        advice=_advice(advice(result.law_id, violation.message if violation else "", name), result),
    )


def _advice(given: Advice, result: LawResult) -> str:
    parts = []
    if given.causes:
        causes = "".join(f"<li>{_prose(cause)}</li>" for cause in given.causes)
        parts.append(f"<h4>Usual causes</h4><ul>{causes}</ul>")
    if given.rogue:
        parts.append(f"<p>A known-bad example with the same message: <code>{escape(given.rogue)}</code></p>")
    if result.script:
        parts.append(f"<h4>To see it again</h4><pre>{escape(result.script)}</pre>")
    return "".join(parts)


def _matrix(verdicts: Sequence[Verdict], names: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = [f'<div class="wide"><table><thead><tr><th scope="col">Law</th>{head}</tr></thead>']
    group = ""
    for law, title, results in rows(verdicts):
        if group_of(law) != group:
            lines.append("</tbody>" if group else "")
            group = group_of(law)
            lines.append(f'<tbody><tr class="group"><th scope="rowgroup" colspan="{len(names) + 1}">{group}</th></tr>')
        promise = advice(law).promise
        label = f'<span class="law">{escape(law)}</span> {escape(title)}'
        first = f"<details><summary>{label}</summary><p>{_prose(promise)}</p></details>" if promise else label
        cells = "".join(_cell(name, result) for name, result in zip(names, results, strict=True))
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody></table></div>"])


def _cell(name: str, result: LawResult | None) -> str:
    if result is None:
        return '<td class="none">not asked</td>'
    label = f'<span class="{_css(result.outcome)}">{SYMBOLS[result.outcome]} {escape(result.outcome.value)}</span>'
    if result.violation:
        label = f'<a href="#{escape(_anchor(name, result))}">{label}</a>'
    if numbers := figures(result):
        label += f" <small>{escape(numbers)}</small>"
    if not result.detail:
        return f"<td>{label}</td>"
    if result.exit_code:
        return f"<td>{label}<p>{escape(result.detail)}</p></td>"
    return f"<td><details><summary>{label}</summary><p>{escape(result.detail)}</p></details></td>"


def _prose(text: str) -> str:
    """A sentence of the contract, its `code` set as such."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _anchor(name: str, result: LawResult) -> str:
    return f"{quote(name, safe='')}-{result.law_id}"


def _state(code: int) -> str:
    return {0: "good", 1: "bad"}.get(code, "open")


def _css(outcome: Outcome) -> str:
    return f"o-{outcome.name.lower().replace('_', '-')}"
