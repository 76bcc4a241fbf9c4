"""What Celery is set to for each broker, and why, as a table for the README."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from kombu import Queue

from eventpact.infrastructure.celery.app import Choice, choices
from eventpact.settings import Settings

BROKERS = {"Redis": "redis://", "RabbitMQ": "amqp://"}
ROLES = ("web", "worker")


@dataclass(frozen=True)
class _Defaults:
    broker: str
    celery_queue: str = Settings.model_fields["celery_queue"].default
    celery_acks_late: bool | None = Settings.model_fields["celery_acks_late"].default
    celery_visibility_timeout: timedelta = Settings.model_fields["celery_visibility_timeout"].default


def celery_settings() -> str:
    """One row a setting: which processes have it, what it is on each broker, and the reason."""
    made = {
        (broker, role): {choice.name: choice for choice in choices(_Defaults(url), role)}
        for broker, url in BROKERS.items()
        for role in ROLES
    }
    lines = [f"| setting | process | {' | '.join(BROKERS)} | reason |", "| --- | --- | --- | --- | --- |"]
    for name in dict.fromkeys(name for role in ROLES for broker in BROKERS for name in made[broker, role]):
        roles = [role for role in ROLES if any(name in made[broker, role] for broker in BROKERS)]
        chosen = {broker: _one(name, [made[broker, role].get(name) for role in roles]) for broker in BROKERS}
        cells = ["not set" if choice is None else _text(choice.value) for choice in chosen.values()]
        lines.append(f"| `{name}` | {' and '.join(roles)} | {' | '.join(cells)} | {_reason(chosen)} |")
    return "\n".join(lines)


def _one(name: str, found: list[Choice | None]) -> Choice | None:
    if any(choice != found[0] for choice in found):
        raise ValueError(f"the processes differ in {name}: the table needs a row for each")
    return found[0]


def _text(value: Any) -> str:
    if isinstance(value, tuple) and all(isinstance(item, Queue) for item in value):
        return "; ".join(_queue(queue) for queue in value)
    return f"`{value}`"


def _queue(queue: Queue) -> str:
    arguments = (queue.queue_arguments or {}).items()
    return ", ".join([f"`{queue.name}`", *(f"`{name}={value}`" for name, value in arguments if value != "")])


def _reason(chosen: dict[str, Choice | None]) -> str:
    reasons = {broker: choice.reason for broker, choice in chosen.items() if choice is not None}
    if len(set(reasons.values())) == 1:
        return next(iter(reasons.values()))
    return "; ".join(f"{broker}: {reason}" for broker, reason in reasons.items())
