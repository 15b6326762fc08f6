"""Where tasks of both sides leave a trace that does not depend on results: a list in a Redis database of its own."""

import asyncio
from contextlib import closing

import redis


def record(url: str, key: str, value: str) -> None:
    """Append ``value`` to the list ``key``."""
    with closing(redis.Redis.from_url(url, protocol=2)) as client:
        client.rpush(key, value)


def wait_for_record(url: str, key: str, timeout: float) -> str:
    """Wait for the next value of the list and take it.

    :raises TimeoutError: none came within ``timeout`` seconds.
    """
    with closing(redis.Redis.from_url(url, protocol=2, socket_timeout=None)) as client:
        found = client.blpop([key], timeout=timeout)
    if found is None:
        raise TimeoutError(f"nothing was recorded within {timeout:g} s")
    return str(found[1], "utf-8")


class Record:
    """A test's own list. ``where`` is what a task needs to write to it.

    :param url: the Redis database that keeps the list.
    """

    def __init__(self, url: str, key: str) -> None:
        self.where = {"url": url, "key": key}

    def add(self, value: str) -> None:
        """Append a value, as a task does."""
        record(**self.where, value=value)

    async def next(self, *, timeout: float = 10.0) -> str:
        """Wait for the next value and take it.

        :raises TimeoutError: none came within ``timeout`` seconds.
        """
        return await asyncio.to_thread(wait_for_record, **self.where, timeout=timeout)

    async def take(self, count: int) -> list[str]:
        """Wait for ``count`` values and take them, oldest first."""
        return [await self.next() for _ in range(count)]

    def all(self) -> list[str]:
        """What the list holds now, oldest first."""
        with closing(redis.Redis.from_url(self.where["url"], protocol=2)) as client:
            return [str(value, "utf-8") for value in client.lrange(self.where["key"], 0, -1)]
