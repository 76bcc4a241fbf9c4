"""dramatiq: its Redis broker and worker, two quick retries, and dead workers found after a second."""

from dramatiq import Worker, actor, middleware
from dramatiq.brokers.redis import RedisBroker

from eventpact.domain.dispatcher import PermanentFailureError
from peers.adapters import AT_LEAST_ONCE_WITH_RETRIES, REDIS, BrokerPeer

RETRIES = {"max_retries": 2, "min_backoff": 200, "throws": PermanentFailureError}


class Dramatiq(BrokerPeer):
    guarantees = AT_LEAST_ONCE_WITH_RETRIES

    def open(self):
        self.broker = RedisBroker(url=REDIS, namespace=self.queue, heartbeat_timeout=1000, maintenance_chance=10**6)
        self.broker.add_middleware(middleware.AsyncIO())

    def task(self, name, handle):
        return actor(handle, actor_name=name, broker=self.broker, **RETRIES).send

    def start(self):
        self.worker = Worker(self.broker, worker_timeout=100)
        self.worker.start()

    async def aclose(self, timeout=10.0):
        self.worker.stop(int(timeout * 1000))
        self.broker.close()
        return ()
