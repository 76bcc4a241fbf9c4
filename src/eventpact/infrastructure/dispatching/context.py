"""Context that crosses to another process: a trace, a request id.

In one process nothing is needed, because handlers run in a copy of the context in which ``dispatch`` was called. A
``ContextVar`` cannot leave its process by itself, so a dispatcher that does takes a :class:`ContextCarrier`.
"""

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from typing import ParamSpec, Protocol, TypeVar

from eventpact.domain.dispatcher import RegistrationError
from eventpact.infrastructure.dispatching.registration import attribute

__all__ = ["ContextCarrier", "VariableCarrier", "capture", "check_carrier", "run_with"]

_log = logging.getLogger("eventpact")

P = ParamSpec("P")
T = TypeVar("T")


class ContextCarrier(Protocol):
    """Writes down the caller's context when an event is dispatched, and makes it current where its handlers run.

    For OpenTelemetry, ``inject`` calls ``propagate.inject``, ``extract`` attaches the result of ``propagate.extract``.
    """

    def inject(self) -> Mapping[str, str]:
        """The context of the caller; called in ``dispatch``. It travels in the open, so it holds no address."""

    def extract(self, carried: Mapping[str, str], /) -> None:
        """Make it current; called in a context of its own, so nothing need be undone. It may be empty or older."""


class VariableCarrier:
    """Carries context variables of text, each under a name."""

    def __init__(self, variables: Mapping[str, ContextVar[str]]) -> None:
        self._variables = dict(variables)

    def inject(self) -> dict[str, str]:
        values = ((name, variable.get(None)) for name, variable in self._variables.items())
        return {name: value for name, value in values if value is not None}

    def extract(self, carried: Mapping[str, str], /) -> None:
        for name, variable in self._variables.items():
            if name in carried:
                variable.set(carried[name])


def check_carrier(context: object) -> None:
    """Raise :class:`RegistrationError` unless it is a carrier, or None."""
    if context is not None and not all(callable(attribute(context, name)) for name in ("inject", "extract")):
        raise RegistrationError(
            f"context is a {type(context).__name__}; give a ContextCarrier, which has inject() and extract(carried)"
        )


def capture(carrier: ContextCarrier | None) -> dict[str, str]:
    """The caller's context, as text. A carrier that raises is logged: an event is worth more than its trace."""
    if carrier is None:
        return {}
    try:
        return {str(name): str(value) for name, value in carrier.inject().items()}
    except Exception:  # noqa: BLE001 - it is not the event's fault
        _log.exception("the context of an event was lost: its carrier raised")
        return {}


def run_with(
    carrier: ContextCarrier | None,
    carried: Mapping[str, str],
    function: Callable[P, T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Call ``function`` in a context of its own, in which ``carried`` is current."""

    def call() -> T:
        try:
            if carrier is not None:
                carrier.extract(carried)
        except Exception:  # noqa: BLE001 - likewise
            _log.exception("the context of an event was lost: its carrier raised")
        return function(*args, **kwargs)

    return copy_context().run(call)
