"""Contents of events that break careless serializers, caches and comparisons.

Every scenario draws from these, so that content that is lost on the way is seen by whichever law looks.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

__all__ = ["CONTENTS", "MEANINGLESS", "TEXTS"]

TEXTS: Final = (
    "",
    " ",
    "trailing space ",
    "\tleading tab",
    "NUL \0 inside",
    "\0",
    "CR LF\r\nLF\nCR\r",
    "e\u0301 decomposed",
    "\xe9 composed",
    "\u212b \ufb01 compatibility",
    "\U0001f600 astral",
    "\ud800 lone surrogate",
    "\u2028\u2029\x85 line ends",
    "\ufeff byte order mark",
    "\u202e right to left",
    "\x7f\x1b[31m control",
    "None",
    "null",
    "0",
    "true",
    "{}",
    '"quoted" \\ back\\slash',
    "{event_id} %s %(x)s ${x}",
    "'; DROP TABLE events; --",
    "a,b;c|d:e",
    "\u0130\u0131 I i \xdf SS",
    "x" * 300,
    "long " * 3_000,
)

_NUMBERS: Final = (-1, 1, 2**31, 2**53 + 1, -(2**63) - 1, 2**64, 10**400)
_PRICES: Final = tuple(
    Decimal(text)
    for text in ("0.1", "-0", "1E+30", "1.10", "1.0000000000000000000000000000000001", "-1E-30", "12345678901234567890")
)
_RATIOS: Final = (-0.0, 0.1 + 0.2, 5e-324, 1.7976931348623157e308, 1.0, -1e-7, 2.0**53 + 2)
_MOMENTS: Final = (
    datetime(1, 1, 2, tzinfo=UTC),
    datetime(9999, 12, 30, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    datetime(2038, 1, 19, 3, 14, 8, tzinfo=timezone(-timedelta(hours=23, minutes=59))),
    datetime(1890, 1, 1, tzinfo=timezone(timedelta(minutes=-44))),
    datetime(1937, 5, 1, tzinfo=timezone(timedelta(minutes=19, seconds=32))),  # as that of Amsterdam was
    datetime(1970, 1, 1, tzinfo=timezone(timedelta(seconds=-1, microseconds=1))),
)

CONTENTS: Final[tuple[dict[str, Any], ...]] = (
    *({"text": text} for text in TEXTS),
    *({"number": number} for number in _NUMBERS),
    *({"price": price} for price in _PRICES),
    *({"ratio": ratio} for ratio in _RATIOS),
    *({"at": moment} for moment in _MOMENTS),
    *({"occurred_at": moment} for moment in _MOMENTS),
    {"several": ("",)},
    {"several": ("a", "a", "b")},
    {"several": tuple(map(str, range(50)))},
    {"number": 7, "text": "x", "price": Decimal("9.99"), "ratio": 0.5, "at": _MOMENTS[3], "several": ("p", "q")},
    {"number": 3, "occurred_at": datetime(2030, 1, 1, tzinfo=UTC)},
)
"""Fields of an event whose type has content, by name."""

ROUND_NUMBERS: Final = ({"number": 1}, {"number": 2}, {"text": "a"}, {"price": Decimal("1.50")})
"""Contents that are nothing special, other than not the default."""

MEANINGLESS: Final[tuple[object, ...]] = (
    False,
    True,
    0,
    "done",
    ValueError("returned, not raised"),
    [],
    {"ok": False},
)
"""Values that a handler may return, and that mean nothing."""
