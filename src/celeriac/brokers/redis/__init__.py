"""Queues in Redis, as kombu keeps them and safer.

Needs Redis 6.2 or newer (or Valkey), not a cluster: a script touches the keys of several queues.
"""

from celeriac.brokers.redis.broker import RedisBroker

__all__ = ["RedisBroker"]
