"""The executable contract of every event dispatcher and handler: CONTRACT.md as laws, and classes that check them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventpact_contracts.contract import EventDispatcherContract
    from eventpact_contracts.handlers.contract import HandlerContract

__all__ = ["EventDispatcherContract", "HandlerContract"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: pytest's plugin is in this package, and loaded at every start of pytest.
    if name == "EventDispatcherContract":
        from eventpact_contracts.contract import EventDispatcherContract

        return EventDispatcherContract
    if name == "HandlerContract":
        from eventpact_contracts.handlers.contract import HandlerContract

        return HandlerContract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
