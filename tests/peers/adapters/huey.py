"""huey: its Redis storage and eight worker threads, without results."""

import asyncio

from huey import RedisHuey

from peers.adapters import IN_A_LOOP, REDIS, BrokerPeer


class Huey(BrokerPeer):
    guarantees = IN_A_LOOP
    async_handlers = False  # task() refuses them

    def open(self):
        self.huey = RedisHuey(self.queue, url=REDIS, results=False)

    def task(self, name, handle):
        return self.huey.task(name=name)(handle)

    def start(self):
        self.consumer = self.huey.create_consumer(workers=8, periodic=False)
        for thread in (self.consumer.scheduler, *(thread for _, thread in self.consumer.worker_threads)):
            thread.start()  # Consumer.start() does this too, in the main thread alone, where signals are

    async def aclose(self, timeout=10.0):
        await asyncio.to_thread(self.consumer.stop, graceful=True)
        self.huey.storage.close()
        return ()
