"""Renews the leases of the messages that this process holds, so that no peer takes them for lost.

Rules: a second process renews (``renewer``), by the owner's name in each tag. So neither a busy event loop nor a task
that keeps the interpreter lock stops the renewals, and a suspended worker (``SIGSTOP``), which lives, keeps its
messages. The process is started when a message is first held. A batch whose answer never came is not renewed, so that
its messages come back.

When this process has died, the second one ends its leases and then itself. If both die at once, as with their machine,
peers wait for one lease at most. The first part of a lease is its term, which is renewed. In the rest, peers look twice
whether it was renewed: after an outage every term has ended, and living workers need time to renew. Held messages have
a time in the future in kombu's index, so that no visibility timeout ends them.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterable
from typing import Any

from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link
from celeriac.servers.redis.renewer import Order, Renewer
from celeriac.servers.redis.scripts import END, RENEW
from celeriac.servers.redis.url import RedisTarget

_TERM, _LOOK, _SECOND_LOOK, _RENEWAL = 0.45, 0.25, 0.15, 0.1
"""Parts of a lease: its term; the time between two looks; the time until the second look at a worker whose term had
ended; the time between two renewals."""

_MOST_LOST = 32
"""The most lost batches that are remembered: their answers never came. One outage of the server loses one batch."""

_OWNER = 52
"""Characters of an owner's name, so that its tags are longer than 64 bytes: Redis keeps sorted sets of short members as
one piece of memory at first, of which each change reads the half."""

_LEAST_TIMEOUT = 1.0


class Leases:
    """Renews the leases of all deliveries that one broker holds.

    :param lease: seconds after which a dead worker's messages are another's.
    :ivar server: how a process that blocks reaches this Redis; see ``renewal.Server``.
    """

    def __init__(self, link: Link, keys: Keys, lease: float) -> None:
        self._keys = keys
        timeout = min(link.timeout, max(_LEAST_TIMEOUT, lease * _RENEWAL))
        self.server = _server(link.target, timeout)
        self._lost: deque[tuple[int, int]] = deque(maxlen=_MOST_LOST)
        self._serial = 0
        self._renewer = Renewer(f"leases of messages in {link.target}")
        self._kept = False
        self._held: set[str] = set()
        self.owner = uuid.uuid4().hex.ljust(_OWNER, "-")
        self.lease = lease
        self.term = lease * _TERM
        self.look = lease * _LOOK
        self.second_look = lease * _SECOND_LOOK

    @property
    def renewed(self) -> int:
        """How often the leases were renewed."""
        return self._renewer.renewed

    def number(self, count: int) -> int:
        """Return the first of ``count`` new serials."""
        first = self._serial
        self._serial += count
        return first

    def hold(self, tags: Iterable[str]) -> bool:
        """Renew the leases of these tags from now on; return whether renewals were under way already."""
        self._held.update(tags)
        kept, self._kept = self._kept, True
        if not kept:
            self._renewer.follow(self._order())
        return kept

    def release(self, tags: Iterable[str]) -> None:
        """Stop renewing these tags: their messages were settled."""
        self._held.difference_update(tags)

    async def rest(self) -> None:
        """Stop renewing, and end the second process, while no message is held."""
        if self._kept and not self._held:
            self._kept = False
            await self._renewer.close()

    def lose(self, first: int, count: int) -> None:
        """Never renew these serials: the answer that gave out their messages was lost."""
        if self._lost and self._lost[-1][1] == first - 1:
            earlier, _ = self._lost.pop()
        else:
            earlier = first
        self._lost.append((earlier, first + count - 1))
        if self._kept:
            self._renewer.follow(self._order())

    async def close(self) -> None:
        """Stop renewing; what is still held becomes a peer's when its lease ends."""
        self._kept = False
        self._held.clear()
        await self._renewer.close()

    def _order(self) -> Order:
        lost = [serial for batch in self._lost for serial in batch]
        keys = (self._keys.index, self._keys.leases)
        command = ("EVAL", RENEW.text, len(keys), *keys, self.owner, self.term, self.lease, *lost)
        last = ("EVAL", END.text, 1, self._keys.leases, self.owner)
        return Order(self.server, command, self.lease * _RENEWAL, last)


def _server(target: RedisTarget, timeout: float) -> dict[str, Any]:
    """Return how the process that renews reaches this Redis; see ``renewal.Server``."""
    greeting = _login(target.username, target.password)
    if target.db:
        greeting.append(("SELECT", str(target.db)))
    if target.client_name is not None:
        greeting.append(("CLIENT", "SETNAME", target.client_name))
    tls = target.tls and {name: value for name, value in target.tls.items() if name != "ssl_min_version"}
    return {
        "addresses": target.addresses,
        "path": target.path,
        "master": target.master,
        "greeting": greeting,
        "sentinel_greeting": _login(target.sentinel_username, target.sentinel_password),
        "tls": tls,
        "timeout": timeout,
    }


def _login(username: str | None, password: str | None) -> list[tuple[str, ...]]:
    if username is not None:
        return [("AUTH", username, password or "")]
    return [("AUTH", password)] if password is not None else []
