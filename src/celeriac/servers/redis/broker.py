"""The broker of Redis: puts its parts together, and answers simple queries itself.

Rules: kombu's keys are kept as kombu keeps them, so Celery, its monitors and the other clients see the same queues.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from celeriac.clock import Clock, SystemClock
from celeriac.contracts.backend import Backend
from celeriac.contracts.broker import Survey
from celeriac.contracts.removal import Removed, Unwanted
from celeriac.contracts.set_aside import Cap
from celeriac.errors import BrokerError, BrokerUnavailable, Finding
from celeriac.quantities import SECONDS, require
from celeriac.servers.redis.beat import RedisBeat
from celeriac.servers.redis.bindings import Bindings
from celeriac.servers.redis.board import RedisBoard
from celeriac.servers.redis.connection_pool import ConnectionPool
from celeriac.servers.redis.dead import RedisDeadLetters
from celeriac.servers.redis.failed import RedisFailed
from celeriac.servers.redis.fanout import RedisFanout
from celeriac.servers.redis.foreign_keys import ForeignKeys
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.leases import Leases
from celeriac.servers.redis.link import Link
from celeriac.servers.redis.parking import Parking
from celeriac.servers.redis.publishing import Publishing
from celeriac.servers.redis.pushes import Pushes
from celeriac.servers.redis.recovery import Recovery
from celeriac.servers.redis.removal import Removal
from celeriac.servers.redis.results import RedisBackend
from celeriac.servers.redis.rights import RightsCheck
from celeriac.servers.redis.schedule import RedisSchedule
from celeriac.servers.redis.settlements import RedisSettlements
from celeriac.servers.redis.settling import Settler
from celeriac.servers.redis.subscription import RedisSubscription
from celeriac.servers.redis.survey import survey
from celeriac.servers.redis.url import parse_redis_url
from celeriac.wire.envelope import Envelope, Route, Unreadable
from celeriac.wire.frame import unpack
from celeriac.wire.names import PRIORITY_STEPS


class RedisBroker:
    """Queues in one Redis; see ``celeriac.contracts.broker.Broker``.

    :param url: see ``celeriac.servers.redis.url.parse_redis_url``.
    :param key_prefix: put in front of every key; Celery's ``global_keyprefix``. Overrides the URL's.
    :param lease: seconds after which a dead worker's messages go to another.
    :param visibility_timeout: the same for a dead Celery worker's messages; as Celery's setting.
    :param timeout: seconds for any one call.
    :param priority_steps: as Celery's setting; every peer must use the same.
    :param clock: tells when to look for dead workers; leases and due times go by the server's clock.
    :param failed: how much the failed list keeps.
    :param connections: connections to this server that exist already; their timeout applies.
    :ivar connections: for the result store on the same server.
    """

    may_repeat = False
    tells_taken = shows_heads = True
    removal_reach = None

    def __init__(
        self,
        url: str,
        *,
        key_prefix: str = "",
        lease: float = 30.0,
        visibility_timeout: float = 3600.0,
        timeout: float = 5.0,
        priority_steps: Sequence[int] = PRIORITY_STEPS,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        connections: ConnectionPool | None = None,
        failed: Cap = Cap(),  # noqa: B008 - it has no state
    ) -> None:
        _check_seconds(lease=lease, visibility_timeout=visibility_timeout)
        target = parse_redis_url(url)
        self.connections = connections or ConnectionPool(target, timeout)
        self._link = Link(target, self.connections, unavailable=BrokerUnavailable, refused=BrokerError)
        self._pushes = Pushes(self._link)
        self._keys = Keys(key_prefix or self._link.target.key_prefix, priority_steps)
        self._link.on_wrong_type = ForeignKeys(self._link, self._keys).set_aside
        self._bindings = Bindings(self._link, self._keys)
        self._parking = Parking(self._link, self._keys)
        self._publishing = Publishing(self._link, self._keys, self._bindings, self._parking)
        self._leases = Leases(self._link, self._keys, lease)
        self._settler = Settler(self._link, self._keys, self._leases, failed)
        self._recovery = Recovery(
            self._link, self._keys, self._bindings, visibility_timeout, self._leases.second_look, clock
        )
        self._clock = clock
        self._settlements: RedisSettlements | None = None
        self._subscriptions: set[RedisSubscription] = set()
        self._cap = failed
        self._removal = Removal(self._link, self._keys)
        self._dead = RedisDeadLetters(self._link, self._keys)
        self._failed = RedisFailed(self._link, self._keys, self._settler)
        self._schedule = RedisSchedule(self._link, self._keys)
        self._board = RedisBoard(self._link, self._keys.prefix)
        self._beat = RedisBeat(self._link, self._keys, self._publishing, self._parking, self._board.slots)
        self._fanout = RedisFanout(self._link, self._keys, self._pushes)

    async def publish(self, envelope: Envelope, route: Route) -> None:
        await self._publishing.publish(envelope, route)

    async def publish_many(self, messages: Sequence[tuple[Envelope, Route]]) -> None:
        await self._publishing.publish_many(messages)

    async def publish_once(self, key: str, messages: Sequence[tuple[Envelope, Route]]) -> bool:
        return await self._publishing.publish_once(key, messages)

    async def forget_once(self, key: str) -> None:
        await self._publishing.forget_once(key)

    @asynccontextmanager
    async def subscribe(self, queues: Sequence[str]) -> AsyncIterator[RedisSubscription]:
        subscription = RedisSubscription(
            self._link,
            self._pushes,
            self._keys,
            self._publishing,
            self._leases,
            self._settler,
            self._recovery,
            self._parking,
            self._clock,
        )
        self._subscriptions.add(subscription)
        try:
            for queue in queues:
                await subscription.add_queue(queue)
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            await subscription.close()

    @property
    def leases_renewed(self) -> int:
        """How often the leases of what this process has taken were renewed."""
        return self._leases.renewed

    async def queues(self) -> list[str]:
        return await self._bindings.queues()

    async def depth(self, queue: str) -> int:
        return sum(await self._measure(queue))

    async def peek(self, queue: str, limit: int = 10) -> list[Envelope | Unreadable]:
        found: list[Envelope | Unreadable] = []
        for key in self._keys.lists_of(queue).keys:
            wanted = limit - len(found)
            if wanted > 0:
                raws = await self._link.call("LRANGE", key, -wanted, -1)
                found += [unpack(raw) for raw in reversed(raws)]
        return found

    async def survey(self, queues: Sequence[str]) -> Survey:
        """Count all messages; see ``celeriac.contracts.broker.Surveyed``."""
        return await survey(self._link, self._keys, queues)

    async def purge(self, queue: str) -> int:
        lists = self._keys.lists_of(queue)
        answers = await self._link.answers(
            [("MULTI",), *(("LLEN", key) for key in lists.keys), ("DEL", *lists.keys), ("EXEC",)]
        )
        *lengths, _ = answers[-1]
        return sum(lengths)

    def remove(self, queue: str, unwanted: Unwanted) -> AsyncIterator[Removed]:
        """Remove single messages; see ``celeriac.contracts.removal.Removing``."""
        return self._removal.remove(queue, unwanted)

    @property
    def dead(self) -> RedisDeadLetters:
        """The dead-letter list."""
        return self._dead

    @property
    def failed(self) -> RedisFailed:
        """The failed list."""
        return self._failed

    @property
    def schedule(self) -> RedisSchedule:
        """What is parked."""
        return self._schedule

    @property
    def board(self) -> RedisBoard:
        """The board of this Redis."""
        return self._board

    @property
    def fanout(self) -> RedisFanout:
        """Fanout by publish and subscribe."""
        return self._fanout

    @property
    def transactions(self) -> None:
        """A transaction of Redis is no caller's."""
        return None

    @property
    def beat(self) -> RedisBeat:
        """Ticks of periodic tasks."""
        return self._beat

    def settlements(self, results: Backend) -> RedisSettlements | None:
        """Return what lands decisions in one step, if the results are on this server."""
        if not isinstance(results, RedisBackend) or not results.shares(self._link.target):
            return None
        if self._settlements is None:
            self._settlements = RedisSettlements(
                self._link,
                self._keys,
                self._leases,
                self._publishing,
                self._parking,
                results,
                self._cap,
                self._is_behind,
            )
        return self._settlements

    async def ping(self) -> str:
        return await self._link.describe()

    async def examine(self, queues: Sequence[str]) -> Sequence[Finding]:
        return await RightsCheck(self._link).broker(self._keys, queues)

    async def close(self) -> None:
        await self._publishing.drain()
        await self._beat.drain()
        await self._settler.drain()
        await self._board.drain()
        if self._settlements is not None:
            await self._settlements.drain()
        await self._leases.close()
        await self._fanout.close()
        await self._pushes.close()
        await self._link.close()

    def _is_behind(self) -> bool:
        """Whether messages that this process has taken wait for a slot."""
        return any(subscription.is_behind for subscription in self._subscriptions)

    async def _measure(self, queue: str) -> list[int]:
        keys = self._keys.lists_of(queue).keys
        return await self._link.answers([("LLEN", key) for key in keys])


def _check_seconds(**durations: float) -> None:
    for name, seconds in durations.items():
        require(name, seconds, SECONDS)
