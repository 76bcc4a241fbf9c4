"""Readiness: asks every part that requests need, at most once a second."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from eventpact.infrastructure.dispatching.threads import SharedAnswer
from eventpact.infrastructure.persistence.database import kind_of

_log = logging.getLogger("eventpact")

FRESH_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 5.0
"""A part that has not answered by then counts as unreachable."""


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of each check, ``ok`` or the kind of its error, and the counts where the database answers."""

    checks: dict[str, str]
    counts: dict[str, int]

    @property
    def failing(self) -> list[str]:
        """The names of the checks that failed, with the kind of each error."""
        return [f"{name} ({outcome})" for name, outcome in self.checks.items() if outcome != "ok"]


class Readiness:
    """Asks in one thread, so that neither a flood of questions nor a frozen part keeps others from being served.

    A check raises when a part is unreachable or refuses writes. Rows are counted if the check ``database`` passes.
    """

    def __init__(self, checks: Mapping[str, Callable[[], object]], counts: Mapping[str, Callable[[], int]]) -> None:
        self._checks = checks
        self._counts = counts
        self._current = "database"
        self._answer = SharedAnswer(self._ask, name="eventpact-readiness", fresh_seconds=FRESH_SECONDS)

    async def report(self) -> Report:
        """Return the last report, or a new one once that is a second old."""
        answer = asyncio.shield(asyncio.wrap_future(self._answer.future()))
        try:
            return await asyncio.wait_for(answer, ANSWER_SECONDS)
        except TimeoutError:
            return Report({self._current: "no answer"}, {})

    def _ask(self) -> Report:
        outcomes = {}
        for name, check in self._checks.items():
            self._current = name
            outcomes[name] = _outcome(name, check)
        self._current = "database"
        counts: dict[str, int] = {}
        if outcomes["database"] == "ok":
            outcomes["database"] = _outcome("database", lambda: counts.update(self._count()))
        return Report(outcomes, counts)

    def _count(self) -> dict[str, int]:
        return {name: count() for name, count in self._counts.items()}


def _outcome(name: str, check: Callable[[], object]) -> str:
    try:
        check()
    except Exception as error:  # noqa: BLE001 - every error is an outcome, and reported
        _log.warning("not ready: %s: %s", name, kind_of(error))
        return kind_of(error)
    return "ok"
