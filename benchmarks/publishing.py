"""What publishing one event costs: ours beside raw commands of the broker and other task queues.

Every case writes the same event to a queue of its own that nobody consumes; the queues are deleted afterwards.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

from timing import AsyncTimer, interleave_async, timed

from eventpact.domain.events import AccountCreatedEvent

EVENT = AccountCreatedEvent(account_id="123", email="test@example.com")
PAYLOAD = EVENT.to_dict()
QUEUE = "eventpact-bench"

Publish = Callable[[], object]


class Plain:
    def handle(self, event: object) -> None: ...


@contextmanager
def _raw_redis(url: str) -> Generator[Publish]:
    import redis

    with redis.Redis.from_url(url) as client:
        yield lambda: client.lpush(QUEUE, json.dumps(PAYLOAD))


@contextmanager
def _raw_amqp(url: str) -> Generator[Publish]:
    """Publishing with confirms, as the dispatcher does."""
    import kombu

    with kombu.Connection(url, transport_options={"confirm_publish": True}) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True, auto_delete=False)

        def publish() -> None:
            message = channel.prepare_message(json.dumps(PAYLOAD), properties={"delivery_mode": 2})
            channel.basic_publish(message, "", QUEUE)

        yield publish


@contextmanager
def _celery(url: str) -> Generator[Publish]:
    from celery import Celery

    app = Celery("bench-stock", broker=url, set_as_current=False)
    app.conf.task_default_queue = f"{QUEUE}-stock"
    app.conf.task_ignore_result = True
    yield lambda: app.send_task("handle_AccountCreatedEvent", args=[EVENT.to_dict()])
    app.close()


@contextmanager
def _celery_same_settings(url: str) -> Generator[Publish]:
    app = _our_app(url, f"{QUEUE}-same")
    yield lambda: app.send_task("handle_AccountCreatedEvent", args=[EVENT.to_dict()])
    app.close()


def _our_app(url: str, queue: str) -> Any:
    from eventpact.infrastructure.celery_app import make_celery
    from eventpact.infrastructure.settings import Settings

    return make_celery(Settings(dispatcher="celery", broker=url, celery_queue=queue), role="web")


@contextmanager
def _eventpact(url: str) -> Generator[Publish]:
    from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher

    dispatcher = CeleryEventDispatcher(_our_app(url, f"{QUEUE}-ours"), {AccountCreatedEvent: Plain()})
    yield lambda: dispatcher.dispatch(EVENT)
    asyncio.run(dispatcher.aclose())


@contextmanager
def _dramatiq(url: str) -> Generator[Publish]:
    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=url) if url.startswith("redis") else RabbitmqBroker(url=url, confirm_delivery=True)

    @dramatiq.actor(broker=broker, queue_name=f"{QUEUE}-dramatiq")
    def handle(event: dict[str, Any]) -> None: ...

    yield lambda: handle.send(EVENT.to_dict())
    broker.close()


@contextmanager
def _huey(url: str) -> Generator[Publish]:
    from huey import RedisHuey

    queue = RedisHuey(f"{QUEUE}-huey", url=url, results=False)

    @queue.task()
    def handle(event: dict[str, Any]) -> None: ...

    yield lambda: handle(EVENT.to_dict())


@contextmanager
def _rq(url: str) -> Generator[Publish]:
    import redis
    from rq import Queue

    with redis.Redis.from_url(url) as client:
        queue = Queue(f"{QUEUE}-rq", connection=client)
        yield lambda: queue.enqueue("publishing.Plain", EVENT.to_dict())


async def _taskiq(url: str) -> AsyncTimer:
    import time

    from taskiq_redis import ListQueueBroker

    broker = ListQueueBroker(url, queue_name=f"{QUEUE}-taskiq")

    @broker.task
    async def handle(event: dict[str, Any]) -> None: ...

    await broker.startup()

    async def timer(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            await handle.kiq(EVENT.to_dict())
        return time.perf_counter() - start

    timer.close = broker.shutdown  # type: ignore[attr-defined]
    return timer


REDIS = {
    "raw LPUSH": _raw_redis,
    "Celery send_task, stock": _celery,
    "Celery send_task, our settings": _celery_same_settings,
    "eventpact celery": _eventpact,
    "dramatiq": _dramatiq,
    "huey": _huey,
    "rq": _rq,
}
RABBITMQ = {
    "raw publish, confirmed": _raw_amqp,
    "Celery send_task, stock": _celery,
    "Celery send_task, our settings": _celery_same_settings,
    "eventpact celery": _eventpact,
    "dramatiq": _dramatiq,
}


async def _run(url: str, rounds: int) -> dict[str, Any]:
    kind = REDIS if url.startswith("redis") else RABBITMQ
    with ExitStack() as stack:
        cases: dict[str, AsyncTimer] = {}
        for name, build in kind.items():
            timer = timed(stack.enter_context(build(url)))
            cases[name] = _in_thread(timer)
        taskiq = await _taskiq(url) if kind is REDIS else None
        if taskiq is not None:
            cases["taskiq"] = taskiq
        try:
            return await interleave_async(cases, base="Celery send_task, stock", rounds=rounds, seconds=0.2)
        finally:
            if taskiq is not None:
                await taskiq.close()  # type: ignore[attr-defined]


def _in_thread(timer: Callable[[int], float]) -> AsyncTimer:
    async def run(times: int) -> float:
        return timer(times)

    return run


def publishing(url: str, rounds: int) -> dict[str, Any]:
    """One event published, over the broker at ``url``."""
    try:
        return asyncio.run(_run(url, rounds))
    finally:
        _sweep(url)


def _sweep(url: str) -> None:
    if url.startswith("redis"):
        import redis

        with redis.Redis.from_url(url) as client:
            for key in client.scan_iter(match="*eventpact-bench*"):
                client.delete(key)
            for key in client.scan_iter(match="rq:*"):
                client.delete(key)
        return
    import kombu

    with kombu.Connection(url) as connection:
        channel = connection.channel()
        for name in ("", "-stock", "-same", "-ours", "-dramatiq", "-dramatiq.DQ", "-dramatiq.XQ"):
            channel.queue_delete(f"{QUEUE}{name}")
