"""taskiq: its Redis stream broker, one to send and one to receive, and messages claimed again after 3 s."""

from taskiq.api import run_receiver_task
from taskiq.kicker import AsyncKicker
from taskiq_redis import RedisStreamBroker

from peers.adapters import AT_LEAST_ONCE, REDIS, BrokerPeer, ThreadLoop


class Taskiq(BrokerPeer):
    guarantees = AT_LEAST_ONCE

    def open(self):
        options = {"queue_name": self.queue, "idle_timeout": 3000, "xread_block": 200}
        self.sender, self.receiver = (RedisStreamBroker(REDIS, **options) for _ in range(2))
        self.sending, self.receiving = ThreadLoop(), ThreadLoop()

    def task(self, name, handle):
        self.receiver.register_task(handle, task_name=name)
        return lambda data: self.sending.submit(AsyncKicker(name, self.sender, {}).kiq(data)).result()

    def start(self):
        self.receiving.submit(self.receiver.startup()).result()
        self.receiving.submit(run_receiver_task(self.receiver))

    async def aclose(self, timeout=10.0):
        self.sending.close(self.sender.shutdown)
        self.receiving.close(self.receiver.shutdown)
        return ()
