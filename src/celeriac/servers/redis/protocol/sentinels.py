"""Asks sentinels which Redis is the master.

Rules: they are asked one after the other, the one that answered last time first, so that one which is away costs no
connection its whole deadline. A master that most of them take for down is not named.
Source: Redis's "High availability with Redis Sentinel", guidelines for clients.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from celeriac.servers.redis.protocol.dialing import Login, dial
from celeriac.servers.redis.protocol.errors import LinkDown, NoMaster, NotRedis, Refused

_DOWN = frozenset({"s_down", "o_down"})


class Sentinels:
    """The sentinels of one master.

    :param patience: seconds within which all of them have to answer.
    :ivar named: host and port of the master that was named last; ``None`` before that.
    """

    def __init__(
        self,
        addresses: Sequence[tuple[str, int]],
        master: str,
        login: Login,
        security: Callable[[], ssl.SSLContext] | None,
        patience: float,
    ) -> None:
        self.named: tuple[str, int] | None = None
        self._addresses = list(addresses)
        self._master = master
        self._login = login
        self._security = security
        self._patience = patience

    async def find(self) -> tuple[str, int]:
        """Return host and port of the master. Raises ``NoMaster``."""
        for address in tuple(self._addresses):
            answer = await self._ask(address, ("SENTINEL", "MASTERS"))
            if not isinstance(answer, Exception) and (found := self._read(answer)) is not None:
                self._addresses.remove(address)
                self._addresses.insert(0, address)
                self.named = found
                return found
        raise NoMaster

    async def ask_each(self) -> list[Any]:
        """Return what each says is the master's address: ``None`` for an unknown one, or the error."""
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master)
        return list(await asyncio.gather(*(self._ask(address, question) for address in self._addresses)))

    async def _ask(self, address: tuple[str, int], question: Sequence[Any]) -> Any:
        """Return an answer, or the error in its place."""
        patience = self._patience / len(self._addresses)
        try:
            async with asyncio.timeout(patience):
                connection = await dial(address, self._login, self._security)
            try:
                (answer,) = await connection.exchange([question], patience)
            finally:
                await connection.close()
        except (Refused, NotRedis, LinkDown, OSError, TimeoutError) as error:
            return error
        return answer

    def _read(self, masters: Sequence[Sequence[bytes]]) -> tuple[str, int] | None:
        """Return the address of ours, unless it is taken for down."""
        for facts in masters:
            told = {facts[place]: facts[place + 1] for place in range(0, len(facts) - 1, 2)}
            if told.get(b"name") == self._master.encode():
                flags = told.get(b"flags", b"").decode().split(",")
                if "master" in flags and _DOWN.isdisjoint(flags):
                    return told[b"ip"].decode(), int(told[b"port"])
        return None
