"""The table of the libraries, as Markdown and as one HTML page, of what ``peers.json`` and ``documented.toml`` say."""

from __future__ import annotations

import html
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["HERE", "documented", "markdown", "page"]

HERE: Final = Path(__file__).parent

_SYMBOLS: Final = {
    "does": "✓",
    "does not": "✗",
    "does not claim to": "○",
    "did, without claiming to": "~",
    "no notion": "·",
    "not seen": "?",
}

_INTRODUCTION: Final = """\
# Known libraries under the laws

How well-known libraries behave under the laws of behaviour of
[CONTRACT.md](../../contracts/eventpact_contracts/CONTRACT.md). None of them was made for this contract, so that a ✗ is
no fault: it is a behaviour to know before one relies on the contrary. Each is driven through an
[adapter](adapters) of at most 30 lines, which adds nothing to what the library does.

✓ does, ✗ does not, ○ does not claim to, and was seen not to, ~ does not claim to, and always did, · has no such notion,
? is open: it was not reached, or what was seen is not the library's alone.
"""

_NOTES: Final = """\
- Left out: the laws about refusing (A), the failure sink (I3, I4) and what closing returns (L1 to L3), which no library
  has in this form. No library has a failure sink, so I5 asks whom an interruption reaches and hurts, and C3 asks for
  other schedules what a library keeps on the usual one.
- **R5** is · where the call that publishes takes no `async def` handlers, **L4** where nothing is to be closed, and
  **G3** where an event is accepted only once it is handled, so that no accepted event can be lost.
- Where a notion is an option, the adapter takes the one that keeps more laws; its first line names it.
"""


def documented() -> dict[str, Any]:
    """What the libraries' own documentation says, by library."""
    return tomllib.loads((HERE / "documented.toml").read_text("utf-8"))


def markdown(facts: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    libraries = facts["libraries"]
    laws = list(libraries[0]["laws"])
    lines = [_INTRODUCTION]
    lines += [_row("library", "version", *laws, "seconds"), _row("---", "---", *(":-:" for _ in laws), "--:")]
    for each in libraries:
        link = f"[{each['library']}](#{_anchor(each['library'])})"
        cells = (_SYMBOLS[_outcome(each, said, law)] for law in laws)
        lines.append(_row(link, _versions(each), *cells, f"{each['seconds']:.0f}"))
    lines += ["", ", ".join(f"**{law}** {title}" for law, title in facts["titles"].items()) + ".", ""]
    lines += [
        _row("library", "`async def` handlers", "closing", "hears of a failure", "refuses an event"),
        _row(*["---"] * 5),
    ]
    for each in libraries:
        notions = said[each["library"]]["notions"]
        lines.append(_row(each["library"], *(notions[key] for key in ("async", "closing", "failure", "refusal"))))
    lines += ["", _NOTES]
    for each in libraries:
        lines += _library(each, said[each["library"]])
    lines += [
        "## Made by",
        "",
        f"`tox -e peers`, on {facts['time']}, with Python {facts['python']}, eventpact {facts['kit']}, contract"
        f" {facts['contract_version']}, {facts['examples']} examples a law and seed {facts['seed']}; it took"
        f" {sum(each['seconds'] for each in libraries) / 60:.0f} minutes. [peers.json](peers.json) has all of it.",
        "",
    ]
    return "\n".join(lines)


def _outcome(facts: Mapping[str, Any], said: Mapping[str, Any], law: str) -> str:
    if "doubted" in said[facts["library"]].get(law, {}):
        return "not seen"
    return str(facts["laws"][law]["outcome"])


def _library(facts: Mapping[str, Any], said: Mapping[str, Any]) -> list[str]:
    lines = [f"## {facts['library']}", "", f"{facts['adapter']} ([adapter](adapters/{facts['module']}.py))", ""]
    for law, row in facts["laws"].items():
        note = said.get(law, {})
        if row["outcome"] == "not seen" or "doubted" in note:
            why = note.get("doubted") or row["message"].splitlines()[0]
            lines += [f"**{law}: open.** {_plain(why)}", ""]
            continue
        if row["outcome"] != "does not":
            continue
        unsaid = f"Not documented. {note.get('says', '')}".strip()
        source = f"[{note['says']}]({note['url']})" if "url" in note else unsaid
        lines += [
            f"**{law}: does not.** {_plain(row['message'])}",
            "",
            f"- Its own words, in ours: {source}",
            f"- By hand: {facts['by_hand'].get(law) or note['by_hand']}",
            "",
            "<details><summary>shortest trace</summary>",
            "",
            "```",
            *row["trace"],
            "```",
            "",
            "</details>",
            "",
        ]
    return lines


def _versions(facts: Mapping[str, Any]) -> str:
    first, *others = facts["versions"].items()
    return first[1] + "".join(f" ({name} {version})" for name, version in others)


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _plain(text: str) -> str:
    """The text as one line in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def page(facts: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    """The table as one HTML page; a cell's title says what was seen."""
    laws = list(facts["libraries"][0]["laws"])
    head = "".join(f'<th title="{html.escape(facts["titles"][law])}">{law}</th>' for law in laws)
    body = "".join(_html_row(each, said) for each in facts["libraries"])
    legend = ", ".join(f"{symbol} {words}" for words, symbol in _SYMBOLS.items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Known libraries under the laws</title>'
        "<style>body{font:16px system-ui;margin:2rem}td,th{padding:.3rem .6rem;border-bottom:1px solid #ccc}"
        "td{text-align:center}td:first-child{text-align:left}pre{overflow:auto}</style>"
        f"<h1>Known libraries under the laws</h1><p>{legend}</p>"
        f"<p>Contract {facts['contract_version']}, {facts['time']}</p>"
        f"<table><tr><th>library</th>{head}</tr>{body}</table>"
        + "".join(_html_details(each, said[each["library"]]) for each in facts["libraries"])
        + "</html>\n"
    )


def _html_row(facts: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    cells = "".join(
        f'<td title="{html.escape(row["message"] or row["outcome"])}">{_SYMBOLS[_outcome(facts, said, law)]}</td>'
        for law, row in facts["laws"].items()
    )
    return f"<tr><td>{html.escape(facts['library'])} {html.escape(_versions(facts))}</td>{cells}</tr>"


def _html_details(facts: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    parts = [f"<h2>{html.escape(facts['library'])}</h2>"]
    for law, row in facts["laws"].items():
        if row["outcome"] == "does not" and "doubted" not in said[law]:
            url = html.escape(said[law].get("url", ""))
            source = f'<a href="{url}">{html.escape(said[law]["says"])}</a>' if url else "not documented"
            trace = html.escape("\n".join(row["trace"]))
            parts.append(
                f"<details><summary>{law}: does not. {html.escape(row['message'])}</summary><p>{source}</p>"
                f"<pre>{trace}</pre></details>"
            )
    return "".join(parts)
