"""The connections of one process to one Redis, shared by all its links, for all databases.

Rules: a connection is opened on first use, for one database, and belongs to the event loop that opened it. Only one
idle connection is kept for long. When the last link closes, all connections are closed. What goes wrong is raised to
the link as it is.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from celeriac.quantities import SECONDS, require
from celeriac.servers.redis.protocol.connection import Connection
from celeriac.servers.redis.protocol.dialing import Address, Login, dial
from celeriac.servers.redis.protocol.sentinels import Sentinels
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
    :ivar sentinels: what names the server; ``None`` where the target names it itself.
    """

    def __init__(self, target: RedisTarget, timeout: float, surplus: float = 5.0) -> None:
        require("timeout", timeout, SECONDS)
        self.target = target
        self._surplus = surplus
        self.timeout = timeout
        self.was_let_in = False
        self.sentinels = _sentinels(target, self._security, timeout)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[tuple[Connection, int, float]] = []
        self._tidying: asyncio.TimerHandle | None = None
        self._users: set[object] = set()

    def leads_to(self, target: RedisTarget) -> bool:
        """Whether what is at this target, in whichever database, can be reached over these connections."""
        return target.server == self.target.server

    def join(self, user: object) -> None:
        """Count a user that will call ``close``. Raises ``Unfit`` in another event loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise Unfit(
                    f"the connections to {self.target} belong to another event loop; make an object a loop"
                )
            self._loop = loop
        self._users.add(user)

    async def close(self, user: object) -> None:
        """Close every connection once the last user has closed. Idempotent; the next use opens new ones."""
        self._users.discard(user)
        if self._users:
            return
        idle, self._idle, self._loop = self._idle, [], None
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        for connection, _, _ in idle:
            await connection.close()

    def take(self, database: int) -> Connection | None:
        """Return an open connection to a database that nobody uses, ``None`` where there is none."""
        assert self._loop is not None, "join comes first"
        idle, sentinels = self._idle, self.sentinels
        for place in range(len(idle) - 1, -1, -1):
            if idle[place][1] == database:
                connection, _, since = idle.pop(place)
                # What a former master takes is lost.
                leads_there = sentinels is None or connection.where == sentinels.named
                if leads_there and connection.is_idle(surely=self._loop.time() - since >= _FRESH):
                    return connection
                connection.cut()
        return None

    def give_back(self, connection: Connection, database: int) -> None:
        """Keep a connection for the next call, unless it was cut, or all were closed meanwhile."""
        loop = self._loop
        if loop is None or not connection.is_open:
            connection.cut()
            return
        self._idle.append((connection, database, loop.time()))
        if self._tidying is None and len(self._idle) > 1:
            self._tidying = loop.call_later(self._surplus, self._tidy)

    async def dial(self, database: int, protocol: int = 2) -> Connection:
        """Return a new connection, which is the caller's to close.

        Protocol 2 is the rule: pushes arrive on connections made for them.

        :param protocol: Redis's, 2 or 3. A server may refuse 3.
        """
        target = self.target
        login = Login(target.username, target.password, target.client_name, database, protocol)
        address: Address
        if self.sentinels is not None:
            address = await self.sentinels.find()
        else:
            address = target.addresses[0] if target.path is None else target.path
        return await dial(address, login, self._security if target.tls is not None else None)

    def _tidy(self) -> None:
        """Close connections that were not needed for long; the list is in the order in which they became idle."""
        self._tidying = None
        loop = asyncio.get_running_loop()
        while len(self._idle) > 1 and loop.time() - self._idle[0][2] >= self._surplus:
            self._idle.pop(0)[0].cut()
        if len(self._idle) > 1:
            self._tidying = loop.call_at(self._idle[0][2] + self._surplus, self._tidy)

    def _security(self) -> ssl.SSLContext:
        """Return the context of a TLS connection. Raises ``Unfit`` for a file that cannot be used."""
        assert self.target.security is not None
        try:
            return open_context(self.target.security)
        except BadFile as error:
            raise Unfit(f"the TLS files of {self.target} cannot be used: {error}") from error


def _sentinels(
    target: RedisTarget, security: Callable[[], ssl.SSLContext], timeout: float
) -> Sentinels | None:
    if target.master is None:
        return None
    login = Login(target.sentinel_username, target.sentinel_password)
    return Sentinels(
        target.addresses, target.master, login, security if target.tls is not None else None, timeout
    )
