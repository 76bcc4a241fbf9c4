"""Failures: the sink, which is not trusted (law I4), the log, and messages that cannot be decoded."""

from __future__ import annotations

import inspect
import logging
import random
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from eventpact.domain.dispatcher import FailedDelivery, FailureSink, RegistrationError
from eventpact.domain.events import DomainEvent
from eventpact.infrastructure.dispatching.registration import check_range, check_sink
from eventpact.infrastructure.dispatching.subscriptions import close_unawaited, handler_name
from eventpact.infrastructure.monitoring.logs import log_about

__all__ = ["FailureReporter", "UnreadableMessage", "UnreadableSink", "undelivered"]

MAX_WAIT_SECONDS: Final = 86_400
"""No retry waits longer. What waits for years is lost in all but name."""


class FailureReporter:
    """Hands each failed delivery to the failure sink, or to the log where there is none.

    A reporter is itself a failure sink: a dispatcher that is given one, as ``on_failure``, reports as it does.

    Args:
        on_failure: the failure sink.
        masked: whether the log shows only the type of an exception and where it was raised. Its text may quote an
            address or a code; that is for the application to say.

    Raises:
        RegistrationError: ``on_failure`` cannot be called as a failure sink (law A4).
    """

    def __init__(self, on_failure: FailureSink | None = None, *, masked: bool = False) -> None:
        if on_failure is not None:
            check_sink(on_failure)
        self._masked: bool = masked
        self._sink: FailureSink = self._log_failure if on_failure is None else on_failure
        if isinstance(on_failure, FailureReporter):
            self._masked, self._sink = on_failure._masked, on_failure._sink

    def __call__(self, failed: FailedDelivery) -> None:
        """Call the sink, which may raise."""
        result: Any = self._sink(failed)
        if inspect.isawaitable(result):
            close_unawaited(result)
            raise TypeError("the failure sink returned an awaitable, which nobody awaits; make it a plain function")

    def report(self, failed: FailedDelivery) -> bool:
        """Call the sink; log the failure if the sink raises.

        Returns:
            Whether the sink took it.

        Raises:
            KeyboardInterrupt, SystemExit: the sink raised it (law I5).
        """
        try:
            self(failed)
        except BaseException as exception:
            kind, handler = type(exception).__name__, handler_name(failed.handler)
            text = "the failure sink raised %s for {event}\n%s"
            log_about(failed.event, logging.ERROR, text, kind, _details(exception, self._masked), handler=handler)
            self._log_failure(failed)
            if is_a(exception, KeyboardInterrupt, SystemExit):
                raise
            return False
        return True

    def around(self, wrap: Callable[[FailureSink], FailureSink]) -> FailureReporter:
        """The same reporter with its sink wrapped."""
        return FailureReporter(wrap(self), masked=self._masked)

    def _log_failure(self, failed: FailedDelivery) -> None:
        log_failure(failed, masked=self._masked)


def log_failure(failed: FailedDelivery, *, masked: bool = False) -> None:
    """Write one ERROR record about a failed delivery: the failure sink of those who give none."""
    handler, kind, made = handler_name(failed.handler), type(failed.exception).__name__, failed.attempts
    text, details = "delivery of {event} to %s failed after %d attempt(s): %s\n%s", _details(failed.exception, masked)
    log_about(failed.event, logging.ERROR, text, handler, made, kind, details, handler=handler, attempt=made)


def is_a(exception: BaseException, *kinds: type[BaseException]) -> bool:
    """Return whether a handler's exception is of one of these types; ``isinstance`` asks it, and it may raise."""
    return issubclass(type(exception), kinds)


_MAX_DETAILS: Final = 8_000
"""The longest that the log shows of an exception, in characters. Its text may hold a whole response."""


def _details(exception: BaseException, masked: bool) -> str:
    try:
        parts = traceback.format_tb(exception.__traceback__) if masked else traceback.format_exception(exception)
    except BaseException as error:  # noqa: BLE001 - an exception may be as broken as the code that raised it
        return f"(it cannot be shown: {type(error).__name__})"
    text, half = "".join(parts), _MAX_DETAILS // 2
    if len(text) <= _MAX_DETAILS:
        return text
    return f"{text[:half]}\n... {len(text) - 2 * half} characters are left out ...\n{text[-half:]}"


def undelivered(events: Iterable[DomainEvent]) -> tuple[DomainEvent, ...]:
    """Deduplicate undelivered events by identity, log each one in case the caller drops them, and return them."""
    once = tuple({id(event): event for event in events}.values())
    for event in once:
        log_about(event, logging.ERROR, "{event} is undelivered: the dispatcher closed before it was settled")
    return once


def log_given_up(event: DomainEvent, key: str) -> None:
    """Write one WARNING about a handler that failed after its event was returned as undelivered."""
    log_about(event, logging.WARNING, "{event} was given up while it was handled", handler=key)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Policy of retries: how often, and when.

    Attributes:
        retries: attempts after the first one.
        backoff: seconds before the first retry at most, and three quarters of that at least; doubled for each further
            one.
        max_backoff: the longest wait, in seconds.

    Raises:
        RegistrationError: a number is impossible, or a retry would wait for more than a day.
    """

    retries: int
    backoff: float
    max_backoff: float

    def __post_init__(self) -> None:
        check_range("retries", self.retries, (int,), 0)
        check_range("backoff", self.backoff, (int, float), 0)
        check_range("max_backoff", self.max_backoff, (int, float), 0)
        if self.retries and self.longest_wait(self.retries) > MAX_WAIT_SECONDS:
            raise RegistrationError(
                f"a retry would wait up to {self.longest_wait(self.retries):g} s; let backoff, max_backoff and retries"
                f" make {MAX_WAIT_SECONDS} s at most"
            )

    def longest_wait(self, attempts: int) -> float:
        """Return the most seconds to wait after that many attempts."""
        return min(self.backoff * 2.0 ** min(attempts - 1, 60), self.max_backoff)

    def wait(self, attempts: int) -> float:
        """Draw the seconds to wait after that many attempts. Ranges of successive waits lie apart, so waits grow."""
        longest = self.longest_wait(attempts)
        return random.uniform(0.75 * longest, longest)  # noqa: S311 - to spread the load, not to be secret


@dataclass(frozen=True, slots=True)
class UnreadableMessage:
    """A message that no handler can receive.

    Attributes:
        reason: why, without quoting the message.
        name: the task or event type that it names, if it names one.
        message_id: the event's id, if it has one.
        content: the body, as it came. It may hold an address.
        content_type: of the body.
        handlers: the keys of the handlers that it was for, where that is known.
        disagrees: its sender has another database, secret or outbox setting, so that to handle it here, now or when
            the code knows it, would deliver nothing.
    """

    reason: str
    name: str | None
    message_id: str | None
    content: bytes
    content_type: str | None
    handlers: tuple[str, ...] = ()
    disagrees: bool = False


UnreadableSink = Callable[[UnreadableMessage], None]
"""Called once for each message. If it raises, the message stays where it is."""
