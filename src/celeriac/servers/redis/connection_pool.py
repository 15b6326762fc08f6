"""The connections of one process to one Redis, shared by all its links, for all databases.

Rules: a connection is opened on first use, for one database, and belongs to the event loop that opened it. Only one
idle connection is kept for long. When the last link closes, all connections are closed. Errors of the driver are raised
to the link.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import redis.asyncio
import redis.asyncio.sentinel
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

import redis
from celeriac.quantities import SECONDS, require
from celeriac.servers.redis.url import RedisTarget
from celeriac.servers.tls import BadFile, open_context

_FRESH = 1.0
"""Seconds for which an idle connection is used again without a check that it is still open."""


class Unfit(Exception):
    """The connections cannot be used, and another try will not help."""


class ConnectionPool:
    """Connections to one Redis.

    :param target: the place of the server; its database does not matter.
    :param timeout: seconds for any one call, connecting included.
    :param surplus: seconds after which an idle connection is closed where another one is idle too.
    :ivar was_let_in: whether the server ever took our login.
    """

    def __init__(self, target: RedisTarget, timeout: float, surplus: float = 5.0) -> None:
        require("timeout", timeout, SECONDS)
        self.target = target
        self._surplus = surplus
        self.timeout = timeout
        self.was_let_in = False
        # The driver's own annotations are too incomplete for strict checking.
        self._drivers: dict[int, Any] = {}
        self._sentinel: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[tuple[Any, Any, float]] = []
        self._tidying: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._users: set[object] = set()

    def leads_to(self, target: RedisTarget) -> bool:
        """Whether what is at this target, in whichever database, can be reached over these connections."""
        return target.server == self.target.server

    @property
    def sentinels(self) -> Collection[Any]:
        """The driver's clients of the sentinels."""
        return self._sentinel.sentinels if self._sentinel is not None else ()

    def open(self, user: object, database: int) -> Any:
        """Return the driver of a database, for a user that will call ``close``. Raises ``Unfit``."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise Unfit(
                    f"the connections to {self.target} belong to another event loop; make an object a loop"
                )
            self._loop = loop
        driver = self._drivers.get(database)
        if driver is None:
            driver = self._drivers[database] = self._make_driver(database)
        self._users.add(user)
        return driver

    async def close(self, user: object) -> None:
        """Close every connection once the last user has closed. Idempotent; the next use opens new ones."""
        self._users.discard(user)
        if self._users:
            return
        drivers, self._drivers, self._loop = self._drivers, {}, None
        sentinels, self._sentinel = self.sentinels, None
        self._idle.clear()
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        if self._ending:
            await asyncio.wait(self._ending)
        for client in sentinels:
            await client.aclose()
        for driver in drivers.values():
            await driver.disconnect()

    async def take(self, driver: Any) -> Any:
        """Return an open connection of this driver."""
        loop = self._loop
        assert loop is not None, "open comes first"
        for place in range(len(self._idle) - 1, -1, -1):
            if self._idle[place][0] is driver:
                _, connection, since = self._idle.pop(place)
                if _leads_to_former(driver, connection):
                    await _drop(driver, connection)
                    continue
                if loop.time() - since < _FRESH:
                    return connection
                await driver.release(connection)
                break
        # The driver checks whether a connection is still open, which costs more than a round trip.
        return await driver.get_connection()

    async def give_back(self, driver: Any, connection: Any) -> None:
        """Keep a connection for the next call, unless it was cut, or all were closed meanwhile."""
        loop = self._loop
        if loop is None or not connection.is_connected or driver not in self._drivers.values():
            await _drop(driver, connection)
            return
        self._idle.append((driver, connection, loop.time()))
        if self._tidying is None and len(self._idle) > 1:
            self._tidying = loop.call_later(self._surplus, self._tidy)

    def _tidy(self) -> None:
        """Close connections that were not needed for long; the list is in the order in which they became idle."""
        self._tidying = None
        loop = asyncio.get_running_loop()
        while len(self._idle) > 1 and loop.time() - self._idle[0][2] >= self._surplus:
            driver, connection, _ = self._idle.pop(0)
            ending = loop.create_task(_drop(driver, connection))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        if len(self._idle) > 1:
            self._tidying = loop.call_at(self._idle[0][2] + self._surplus, self._tidy)

    def _make_driver(self, database: int) -> Any:
        self._check_files()
        options = self._options() | {"db": database}
        if self.target.master is not None:
            if self._sentinel is None:
                sentinels: Any = redis.asyncio.sentinel.Sentinel
                self._sentinel = sentinels(list(self.target.addresses), **self._sentinel_options(), **options)
            return self._sentinel.master_for(self.target.master, db=database).connection_pool
        kind: Any = redis.asyncio.Connection
        if self.target.path is not None:
            kind = redis.asyncio.UnixDomainSocketConnection
        elif self.target.tls is not None:
            kind = redis.asyncio.SSLConnection
        return redis.asyncio.ConnectionPool(connection_class=kind, **options)

    def _check_files(self) -> None:
        """Raise for a TLS file that cannot be used: the driver would take it for an outage."""
        if self.target.security is None:
            return
        try:
            open_context(self.target.security)
        except BadFile as error:
            raise Unfit(f"the TLS files of {self.target} cannot be used: {error}") from error

    def _options(self) -> dict[str, Any]:
        """Return the driver's options. Protocol 2: pushes arrive on lines made for them.

        The driver gets no ``socket_timeout``: it would write by ``asyncio.wait_for``, which up to Python 3.11 loses a
        cancellation that comes with the end of the write, and the cancelled task would run on. A call's deadline is the
        link's.
        """
        target = self.target
        options: dict[str, Any] = {
            "username": target.username,
            "password": target.password,
            "client_name": target.client_name,
            "protocol": 2,
            "socket_timeout": None,
            "socket_connect_timeout": self.timeout,
        }
        options |= _named_driver()
        if target.path is not None:
            return options | {"path": target.path}
        options["socket_keepalive"] = True
        if target.master is not None and target.tls is not None:
            options["ssl"] = True
        if target.master is None:
            (options["host"], options["port"]), *_ = target.addresses
        return options | (target.tls or {})

    def _sentinel_options(self) -> dict[str, Any]:
        login: dict[str, Any] = {
            "username": self.target.sentinel_username,
            "password": self.target.sentinel_password,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
        }
        return {
            "sentinel_kwargs": login | (self.target.tls or {}) | ({"ssl": True} if self.target.tls else {})
        }


def _named_driver() -> dict[str, Any]:
    """Return the option that names the driver; without it the driver reads its version from files for each connection.

    Older drivers have no such option, and read it once.
    """
    try:
        from redis.driver_info import DriverInfo
    except ImportError:
        return {}
    return {"driver_info": DriverInfo(lib_version=redis.__version__)}


def _leads_to_former(driver: Any, connection: Any) -> bool:
    """Whether sentinels have named another master since: what the former one takes until it is demoted is lost."""
    named = getattr(driver, "master_address", None)
    return named is not None and named != (connection.host, connection.port)


async def dial(driver: Any, protocol: int = 2) -> Any:
    """Return a new connection, which is the caller's to disconnect.

    :param protocol: Redis's, 2 or 3.
    """
    connection = driver.connection_class(**driver.connection_kwargs | {"protocol": protocol})
    try:
        await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    if protocol == 3:
        # The driver would write every push to its log and keep back those that it has no handler for.
        parser = connection._parser  # noqa: SLF001 - as the driver's own subscriptions do
        parser.set_pubsub_push_handler(_hand_on)
        parser.set_invalidation_push_handler(_hand_on)
    return connection


async def _hand_on(push: Any) -> Any:
    return push


async def _drop(driver: Any, connection: Any) -> None:
    await connection.disconnect(nowait=True)
    await driver.release(connection)
