"""A badge for a README: one small SVG that needs no server."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

from eventpact_contracts.checking.outcomes import Verdict
from eventpact_contracts.reports.summary import RunFacts, escape, exit_code, headline, is_whole

__all__ = ["badge"]

_COLOURS = {0: "#2e7d32", 1: "#c62828", 2: "#8a6100"}

_TEMPLATE = Template("""\
<svg xmlns="http://www.w3.org/2000/svg" width="$width" height="20" role="img" aria-label="$label: $message">
<title>$label: $message</title>
<rect width="$width" height="20" rx="3" fill="$colour"/>
<path d="M3 0h${flat}v20h-${flat}a3 3 0 0 1-3-3v-14a3 3 0 0 1 3-3z" fill="#424750"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,Geneva,sans-serif" font-size="11">
<text x="8" y="14" textLength="$label_length">$label</text>
<text x="$message_x" y="14" textLength="$message_length">$message</text>
</g>
</svg>
""")


def badge(verdicts: Sequence[Verdict], run: RunFacts) -> str:
    """The verdicts as an SVG badge: green where all conform, red where a law is violated, amber otherwise."""
    code = exit_code(verdicts)
    label, message = f"event contract {run.contract_version}", headline(verdicts)
    label_length, message_length = _length(label), _length(message)
    split = label_length + 16
    return _TEMPLATE.substitute(
        label=escape(label),
        message=escape(message),
        label_length=label_length,
        message_length=message_length,
        message_x=split + 8,
        flat=split - 3,
        width=split + message_length + 16,
        colour=_COLOURS[2 if code == 0 and not is_whole(verdicts) else code],
    )


def _length(text: str) -> int:
    # Verdana's average advance at 11 px; textLength makes the text fit it where another font is used.
    return round(len(text) * 6.2)
