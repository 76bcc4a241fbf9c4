"""What publishing one event costs: ours beside raw commands of the broker and other task queues.

Every case writes the same event to a queue of its own that nobody consumes; the queues are deleted afterwards.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from timing import Timer, interleave, timed

from eventpact.domain.events import AccountCreatedEvent

EVENT = AccountCreatedEvent(account_id="123", email="test@example.com")
PAYLOAD = EVENT.to_dict()
QUEUE = "eventpact-bench"
STOCK = "Celery send_task, stock"


class Plain:
    def handle(self, event: object) -> None: ...


@contextmanager
def _raw_redis(url: str) -> Generator[Timer]:
    import redis

    with redis.Redis.from_url(url) as client:
        yield timed(lambda: client.lpush(QUEUE, json.dumps(PAYLOAD)))


@contextmanager
def _raw_amqp(url: str, kind: str) -> Generator[Timer]:
    """Confirmed, as the dispatcher publishes. Its queue is a quorum queue, where those of others are classic."""
    import kombu

    with kombu.Connection(url, transport_options={"confirm_publish": True}) as connection:
        channel, queue, properties = connection.channel(), f"{QUEUE}-{kind}", {"delivery_mode": 2}
        channel.queue_declare(queue, durable=True, auto_delete=False, arguments={"x-queue-type": kind})

        def publish() -> None:
            message = channel.prepare_message(
                json.dumps(PAYLOAD), content_type="application/json", content_encoding="utf-8", properties=properties
            )
            channel.basic_publish(message, "", queue)

        yield timed(publish)


@contextmanager
def _celery(url: str) -> Generator[Timer]:
    from celery import Celery

    app = Celery("bench-stock", broker=url, set_as_current=False)
    app.conf.task_default_queue = f"{QUEUE}-stock"
    app.conf.task_ignore_result = True
    yield timed(lambda: app.send_task("handle_AccountCreatedEvent", args=[EVENT.to_dict()]))
    app.close()


@contextmanager
def _celery_same_settings(url: str) -> Generator[Timer]:
    app = _our_app(url, f"{QUEUE}-same")
    yield timed(lambda: app.send_task("handle_AccountCreatedEvent", args=[EVENT.to_dict()]))
    app.close()


def _our_app(url: str, queue: str) -> Any:
    from eventpact.infrastructure.celery.app import make_celery
    from eventpact.settings import Settings

    return make_celery(Settings(dispatcher="celery", broker=url, celery_queue=queue), role="web")


@contextmanager
def _eventpact(url: str) -> Generator[Timer]:
    from eventpact.infrastructure.celery_dispatcher import CeleryEventDispatcher

    dispatcher = CeleryEventDispatcher(_our_app(url, f"{QUEUE}-ours"), {AccountCreatedEvent: Plain()})
    yield timed(lambda: dispatcher.dispatch(EVENT))
    asyncio.run(dispatcher.aclose())


@contextmanager
def _dramatiq(url: str) -> Generator[Timer]:
    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker
    from dramatiq.brokers.redis import RedisBroker

    broker: Any
    if url.startswith("redis"):
        broker = RedisBroker(url=url, namespace=QUEUE)
    else:
        # pika takes the path // for a virtual host without a name.
        broker = RabbitmqBroker(url=url.removesuffix("//"), confirm_delivery=True)

    @dramatiq.actor(broker=broker, queue_name=f"{QUEUE}-dramatiq")
    def handle(event: dict[str, Any]) -> None: ...

    yield timed(lambda: handle.send(EVENT.to_dict()))
    broker.close()


@contextmanager
def _huey(url: str) -> Generator[Timer]:
    from huey import RedisHuey

    queue = RedisHuey(f"{QUEUE}-huey", url=url, results=False)

    @queue.task()
    def handle(event: dict[str, Any]) -> None: ...

    yield timed(lambda: handle(EVENT.to_dict()))
    queue.flush()


@contextmanager
def _rq(url: str) -> Generator[Timer]:
    import redis
    from rq import Queue

    with redis.Redis.from_url(url) as client:
        queue = Queue(f"{QUEUE}-rq", connection=client)
        yield timed(lambda: queue.enqueue("publishing.Plain", EVENT.to_dict()))
        queue.delete(delete_jobs=True)


@contextmanager
def _taskiq(url: str) -> Generator[Timer]:
    broker: Any
    if url.startswith("redis"):
        from taskiq_redis import ListQueueBroker

        broker = ListQueueBroker(url, queue_name=f"{QUEUE}-taskiq")
    else:
        from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

        broker = AioPikaBroker(
            url,
            exchange=Exchange(name=f"{QUEUE}-taskiq"),
            task_queues=[Queue(name=f"{QUEUE}-taskiq")],
            dead_letter_queue=Queue(name=f"{QUEUE}-taskiq.dead"),
        )

    @broker.task
    async def handle(event: dict[str, Any]) -> None: ...

    async def perform(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            await handle.kiq(EVENT.to_dict())
        return time.perf_counter() - start

    with asyncio.Runner() as runner:
        runner.run(broker.startup())
        yield lambda times: runner.run(perform(times))
        runner.run(broker.shutdown())


COMMON = {
    STOCK: _celery,
    "Celery send_task, our settings": _celery_same_settings,
    "eventpact celery": _eventpact,
    "dramatiq": _dramatiq,
    "taskiq": _taskiq,
}
REDIS = {"raw LPUSH": _raw_redis, **COMMON, "huey": _huey, "rq": _rq}
RABBITMQ = {
    "raw publish, confirmed": partial(_raw_amqp, kind="classic"),
    "raw publish, confirmed, quorum queue": partial(_raw_amqp, kind="quorum"),
    **COMMON,
}


def publishing(url: str, rounds: int, seconds: float) -> dict[str, Any]:
    """One event published, over the broker at ``url``."""
    kind = REDIS if url.startswith("redis") else RABBITMQ
    try:
        with ExitStack() as stack:
            cases = {name: stack.enter_context(build(url)) for name, build in kind.items()}
            return interleave(cases, base=STOCK, rounds=rounds, seconds=seconds, budget=45.0)
    finally:
        sweep(url)


def sweep(url: str) -> None:
    """Delete whatever bears our name in the broker at ``url``."""
    if url.startswith("redis"):
        import redis

        with redis.Redis.from_url(url) as client:
            for key in client.scan_iter(match=f"*{QUEUE}*", count=1000):
                client.delete(key)
        return
    import kombu

    ours = [f"{name}{end}" for name in ("ours", "same", "worked1", "worked2", "taskiq") for end in ("", ".dead")]
    theirs = ["classic", "quorum", "stock", "dramatiq", "dramatiq.DQ", "dramatiq.XQ"]
    with kombu.Connection(url) as connection:
        channel = connection.channel()
        for name in ours + theirs:
            channel.queue_delete(f"{QUEUE}-{name}")
            channel.exchange_delete(f"{QUEUE}-{name}")  # some libraries declare one for each queue
