"""The core needs nothing but Python, and the public names are the promised ones."""

import importlib
import subprocess
import sys

import pytest

CORE = [
    "eventpact.domain.events",
    "eventpact.domain.dispatcher",
    "eventpact.domain.account",
    "eventpact.application.commands",
    "eventpact.application.handlers",
    "eventpact.application.ports",
    "eventpact.infrastructure.dispatching.subscriptions",
    "eventpact.infrastructure.sync_dispatcher",
    "eventpact.infrastructure.asyncio_dispatcher",
    "eventpact.cli",
]

PUBLIC = {
    "eventpact.domain.events": {"AccountCreatedEvent", "DomainEvent"},
    "eventpact.domain.dispatcher": {
        "Delivery",
        "DispatchError",
        "DispatchUncertainError",
        "DispatcherClosedError",
        "EventDispatcher",
        "FailedDelivery",
        "Guarantees",
        "Handler",
        "Ordering",
        "RegistrationError",
    },
    "eventpact.infrastructure.dispatching.failures": {"FailureReporter", "undelivered"},
    "eventpact.infrastructure.dispatching.subscriptions": {"Subscription", "SubscriptionTable"},
    "eventpact.infrastructure.sync_dispatcher": {"SyncEventDispatcher"},
    "eventpact.infrastructure.asyncio_dispatcher": {"AsyncioEventDispatcher"},
}


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_no_third_party_package(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(roots - sys.stdlib_module_names - {'eventpact', '__main__', '_virtualenv'}))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", _with_path(code)], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def _with_path(code: str) -> str:
    import eventpact

    (package,) = eventpact.__path__
    return f"import sys; sys.path.insert(0, {package.removesuffix('eventpact')!r})\n{code}"


@pytest.mark.parametrize("module", PUBLIC)
def test_the_promised_names_are_public(module: str) -> None:
    assert PUBLIC[module] <= set(importlib.import_module(module).__all__)
