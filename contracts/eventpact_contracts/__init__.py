"""The executable contract of every event dispatcher: CONTRACT.md as laws, and a test class that checks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventpact_contracts.contract import EventDispatcherContract

__all__ = ["EventDispatcherContract"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: pytest's plugin is in this package, and loaded at every start of pytest.
    if name == "EventDispatcherContract":
        from eventpact_contracts.contract import EventDispatcherContract

        return EventDispatcherContract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
