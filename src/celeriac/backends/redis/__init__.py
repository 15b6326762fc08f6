"""Results in Redis, as Celery keeps them."""

from celeriac.backends.redis.backend import RedisBackend

__all__ = ["RedisBackend"]
