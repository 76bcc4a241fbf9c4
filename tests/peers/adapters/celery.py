"""Celery: stock settings, a worker with eight threads in this process, and ``send_task``."""

import asyncio

import celery
from celery.contrib.testing.worker import start_worker

from peers.adapters import IN_A_LOOP, REDIS, BrokerPeer


class Celery(BrokerPeer):
    guarantees = IN_A_LOOP
    async_handlers = False  # a task's coroutine is not awaited

    def open(self):
        self.app = celery.Celery("peers", broker=REDIS, set_as_current=False)
        self.app.conf.update(task_default_queue=self.queue, task_ignore_result=True, worker_hijack_root_logger=False)

    def task(self, name, handle):
        self.app.task(handle, name=name, shared=False)
        return lambda data: self.app.send_task(name, [data])

    def start(self):
        self.worker = start_worker(self.app, pool="threads", concurrency=8, perform_ping_check=False)
        self.worker.__enter__()

    async def aclose(self, timeout=10.0):
        await asyncio.to_thread(self.worker.__exit__, None, None, None)
        self.app.close()
        return ()
