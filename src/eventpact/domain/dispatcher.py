"""The one abstraction: an :class:`EventDispatcher` takes an event, and each handler of its type receives it.

CONTRACT.md holds the promises of every dispatcher; its laws are cited here by their IDs. Further promises a dispatcher
declares in its :class:`Guarantees`.

The errors::

    DispatchError              the event was not accepted
      DispatcherClosedError    ... because the dispatcher is closing or closed
      DispatchUncertainError   ... as far as is known; dispatching it again does no harm
    RegistrationError          a dispatcher cannot be built like this
    PermanentFailureError      raised by a handler: do not try again
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, Self, TypeVar

from eventpact.domain.events import DomainEvent

__all__ = [
    "Delivery",
    "DispatchError",
    "DispatchUncertainError",
    "DispatcherClosedError",
    "EventDispatcher",
    "FailedDelivery",
    "FailureSink",
    "Guarantees",
    "Handler",
    "Handlers",
    "Ordering",
    "PermanentFailureError",
    "RegistrationError",
]


class DispatchError(Exception):
    """The event was not accepted: no handler receives it, now or later (law A2)."""


class DispatcherClosedError(DispatchError):
    """The dispatcher is closing or closed; build another (law A3)."""


class DispatchUncertainError(DispatchError):
    """A remote engine did not answer, so it may have the event; dispatching the same event again does no harm."""


class RegistrationError(Exception):
    """A dispatcher cannot be built with these handlers or settings; the message says why, and what to do (law A4)."""


class PermanentFailureError(Exception):
    """A handler raises it, or a subclass, when trying again cannot help: the delivery has failed at once (law G2)."""


class Delivery(Enum):
    """Fate of an accepted event when a process crashes (law G3)."""

    AT_MOST_ONCE = "at most once"
    AT_LEAST_ONCE = "at least once"


class Ordering(Enum):
    """In which order one handler sees the events of one caller (law G4)."""

    NONE = "none"
    FIFO = "fifo"


@dataclass(frozen=True, kw_only=True)
class Guarantees:
    """A dispatcher's declared guarantees. No field has a default: each is a decision.

    Attributes:
        blocks_caller: when the outermost ``dispatch`` returns, everything that it caused is settled (law G1).
        retries: how many times a failed delivery is tried again before it is reported (law G2).
        delivery: the fate of accepted events in a crash (law G3).
        ordering: whether a handler sees events in the order of dispatching (law G4).

    Raises:
        TypeError: a value is of another type; the message names the field, the value and what it must be.
        ValueError: ``retries`` is negative.
    """

    blocks_caller: bool
    retries: int
    delivery: Delivery
    ordering: Ordering

    def __post_init__(self) -> None:
        # A string that looks right would be compared with enums, and be found out far from where it was written.
        _check_type("blocks_caller", self.blocks_caller, bool, "True or False")
        _check_type("retries", self.retries, int, "a whole number from 0")
        _check_type("delivery", self.delivery, Delivery, " or ".join(map(str, Delivery)))
        _check_type("ordering", self.ordering, Ordering, " or ".join(map(str, Ordering)))
        if self.retries < 0:
            raise ValueError(f"Guarantees: retries is {self.retries}; it must be a whole number from 0")

    def to_dict(self) -> dict[str, bool | int | str]:
        """The values as JSON, for reports."""
        return {
            "blocks_caller": self.blocks_caller,
            "retries": self.retries,
            "delivery": self.delivery.name.lower(),
            "ordering": self.ordering.name.lower(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The guarantees that ``to_dict`` was called on."""
        return cls(
            blocks_caller=data["blocks_caller"],
            retries=data["retries"],
            delivery=Delivery[data["delivery"].upper()],
            ordering=Ordering[data["ordering"].upper()],
        )


def _check_type(name: str, value: object, kind: type[Any], allowed: str) -> None:
    # True is an int, and no number of retries.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"Guarantees: {name} is {value!r}; it must be {allowed}")


E_contra = TypeVar("E_contra", bound=DomainEvent, contravariant=True)


class Handler(Protocol[E_contra]):
    """Anything with a ``handle`` that takes the event: a plain method or an ``async def``.

    Returning is success, raising an ``Exception`` is failure. A dispatcher may deliver an event more than once (it says
    so in its guarantees), so a handler is idempotent by ``event_id``.
    """

    def handle(self, event: E_contra, /) -> Awaitable[None] | None: ...


Handlers = Mapping[type[Any], Handler[Any] | list[Any] | tuple[Handler[Any], ...]]
"""Event types, each with its handler, or a list or tuple of handlers."""


@dataclass(frozen=True, slots=True)
class FailedDelivery:
    """A delivery whose last allowed attempt failed; a failure sink is called with it (law I3).

    Attributes:
        event: the event that was dispatched.
        handler: the handler that failed.
        exception: that of its last attempt.
        attempts: how many attempts were made. 0 where the engine was torn down before the first.
    """

    event: DomainEvent
    handler: Handler[Any]
    exception: BaseException
    attempts: int


FailureSink = Callable[[FailedDelivery], None]
"""Called once for each failed delivery, on any thread. Its exceptions are logged and break nothing (law I4)."""


class EventDispatcher(ABC):
    """Takes events, and delivers each to the handlers that were given for its exact type.

    ``dispatch`` reports *acceptance*, not handling: a handler's failure goes to the failure sink, never to the caller.
    Whether handling is over when ``dispatch`` returns, is tried again, or survives a crash, is not promised here but in
    ``guarantees``. There is no way to add a handler later: in another process it could not exist.
    """

    guarantees: Guarantees
    """The promises beyond the laws of every dispatcher: of the class, or of the instance where it depends on that.

    An attribute, because a type checker lets a class assign to an attribute, but not to a property.
    """

    @abstractmethod
    def dispatch(self, event: DomainEvent) -> None:
        """Accept ``event``, from any thread, within 2 seconds.

        Raises:
            TypeError: ``event`` is not a :class:`DomainEvent` (law A1).
            DispatcherClosedError: closing has begun (law A3).
            DispatchUncertainError: it is not known whether the event was accepted (law A2).
            DispatchError: the event was not accepted (laws A2, A5).
        """

    @abstractmethod
    async def aclose(self, timeout: float = 10.0) -> tuple[DomainEvent, ...]:
        """Accept no more, settle deliveries for at most ``timeout`` seconds, and release everything.

        Returns the undelivered: accepted events of which a delivery was given up, each once (law L1). Closing again
        does nothing more and returns nothing (law L2).
        """
