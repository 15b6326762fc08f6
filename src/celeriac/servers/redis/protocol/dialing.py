"""Makes connections to a Redis: where it is, and how to log in.

Source: Redis's commands ``HELLO``, ``AUTH``, ``CLIENT SETNAME``, ``CLIENT SETINFO``,
``CLIENT ID`` and ``SELECT``.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from celeriac.servers.redis.protocol.connection import Command, Connection
from celeriac.servers.redis.protocol.errors import Refused

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""

_OPTIONAL: Sequence[Command] = [("CLIENT", "SETINFO", "LIB-NAME", "celeriac"), ("CLIENT", "ID")]
"""What tells the server who talks to it, which one before Redis 7.2 does not know, and what tells us the connection's
number; a user may lack the right."""


_TURNED_AWAY = re.compile(r"max number of clients|^DENIED\b|^NOAUTH\b")
"""What a server says, whatever it was asked, that takes nobody now, or nobody from elsewhere, or nobody unnamed."""


class Login(msgspec.Struct, frozen=True):
    """What a new connection says first.

    :param name: the name by which ``CLIENT LIST`` shows it.
    :param database: the number of the database.
    :param protocol: Redis's, 2 or 3. A server may refuse 3.
    """

    username: str | None = None
    password: str | None = None
    name: str | None = None
    database: int = 0
    protocol: int = 2

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []  # what prints fields one by one prints none


async def dial(address: Address, login: Login, security: Callable[[], ssl.SSLContext] | None) -> Connection:
    """Return a new connection that is logged in.

    :param security: makes the context of TLS, anew for each connection since files may have been replaced.

    Raises ``Refused``, ``LinkDown``, ``NotRedis`` and ``OSError``. A deadline is the caller's.
    """
    loop = asyncio.get_running_loop()
    context = None if security is None else security()
    connection = Connection(address)
    if isinstance(address, str):
        await loop.create_unix_connection(lambda: connection, address)
    else:
        host, port = address
        transport, _ = await loop.create_connection(lambda: connection, host, port, ssl=context)
        line = transport.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    try:
        await _log_in(connection, login)
    except BaseException:
        connection.cut()
        raise
    return connection


async def _log_in(connection: Connection, login: Login) -> None:
    needed = _needed(login)
    await connection.write([*needed, *_OPTIONAL])
    answer: Any = None
    for number in range(len(needed) + len(_OPTIONAL)):
        (answer,) = await connection.read()
        if isinstance(answer, Refused) and (number < len(needed) or _TURNED_AWAY.search(str(answer))):
            raise answer
    connection.number = answer if isinstance(answer, int) else 0


def _needed(login: Login) -> list[Command]:
    commands: list[Command] = []
    who: list[str] = []
    if login.username is not None or login.password is not None:
        who = ["AUTH", login.username or "default", login.password or ""]
    if login.protocol != 2:
        commands.append(("HELLO", login.protocol, *who))
    elif who:
        commands.append(who)
    if login.name is not None:
        commands.append(("CLIENT", "SETNAME", login.name))
    if login.database:
        commands.append(("SELECT", login.database))
    return commands
