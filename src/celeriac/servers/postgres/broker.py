"""A broker in one PostgreSQL database, shared by any number of processes on any number of machines.

Rules: what waits, what is parked and what is held are rows of one table. Simple queries are answered here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from celeriac.clock import Clock, SystemClock
from celeriac.contracts.backend import Backend
from celeriac.contracts.broker import Schedule, Subscription, Survey
from celeriac.contracts.removal import Removed, Unwanted
from celeriac.contracts.set_aside import Cap, DeadLetters
from celeriac.errors import Finding
from celeriac.quantities import SECONDS, require
from celeriac.servers.postgres import messages as sql
from celeriac.servers.postgres.beat import PostgresBeat
from celeriac.servers.postgres.board import PostgresBoard
from celeriac.servers.postgres.bulk import SLICE, add_all
from celeriac.servers.postgres.connections import Connections
from celeriac.servers.postgres.dead import PostgresDeadLetters
from celeriac.servers.postgres.failed import PostgresFailed
from celeriac.servers.postgres.fanout import PostgresBroadcasts
from celeriac.servers.postgres.outgoing import new_messages
from celeriac.servers.postgres.queues import Queues
from celeriac.servers.postgres.removal import PostgresRows
from celeriac.servers.postgres.results import PostgresBackend
from celeriac.servers.postgres.schedule import PostgresSchedule
from celeriac.servers.postgres.settlements import PostgresSettlements
from celeriac.servers.postgres.subscription import PostgresTaker
from celeriac.servers.postgres.survey import survey
from celeriac.servers.postgres.tables import as_text
from celeriac.servers.postgres.transactions import PostgresTransactions
from celeriac.servers.row_fanout import RowFanout
from celeriac.servers.row_removal import remove_rows
from celeriac.servers.row_subscription import RowSubscription
from celeriac.servers.subscriptions import Subscriptions
from celeriac.wire.envelope import Envelope, Route, Unreadable
from celeriac.wire.preview import counted


class PostgresBroker:
    """Keeps messages in a PostgreSQL database.

    :param connections: the connections to it, which may be shared.
    :param lease: seconds after which the messages of a process that died are given to others, at the latest.
    :param failed: how much the failed list keeps.
    """

    may_repeat = False
    tells_taken = shows_heads = True
    removal_reach = None
    tables = as_text("queues", "board")

    def __init__(
        self,
        connections: Connections,
        *,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        lease: float = 30.0,
        failed: Cap = Cap(),  # noqa: B008 - it has no state
    ) -> None:
        require("lease", lease, SECONDS)
        self.connections = connections
        self._queues = Queues(connections, clock, lease, failed)
        self._board = PostgresBoard(self._queues.link)
        self._fanout = RowFanout(PostgresBroadcasts(self._queues))
        self._subscriptions: Subscriptions[RowSubscription] = Subscriptions()
        self._settlements: list[PostgresSettlements] = []

    async def publish(self, envelope: Envelope, route: Route) -> None:
        (new,) = new_messages([(envelope, route)])
        await self._queues.calls.publish.lead(new)

    async def publish_many(self, messages: Sequence[tuple[Envelope, Route]]) -> None:
        if len(messages) <= SLICE:
            await self._queues.adding.add(new_messages(messages))
        else:
            await add_all(self._queues, messages)

    async def publish_once(self, key: str, messages: Sequence[tuple[Envelope, Route]]) -> bool:
        return await self._queues.calls.publish_once((key, new_messages(messages)))

    async def forget_once(self, key: str) -> None:
        await self._queues.calls.forget_once(key)

    def subscribe(self, queues: Sequence[str]) -> AbstractAsyncContextManager[Subscription]:
        return self._subscriptions.hold(
            RowSubscription(self._queues, self._queues.waking, PostgresTaker(self._queues)), queues
        )

    async def queues(self) -> list[str]:
        return sorted(row["name"] for row in await self._queues.link.fetch(sql.QUEUES))

    async def depth(self, queue: str) -> int:
        await self._queues.revive()
        return int(await self._queues.link.value(sql.DEPTH, queue))

    async def peek(self, queue: str, limit: int = 10) -> list[Envelope | Unreadable]:
        await self._queues.revive()
        rows = await self._queues.link.fetch(sql.PEEK, queue, limit)
        return [sql.taken_message(row, 0).envelope for row in rows]

    async def survey(self, queues: Sequence[str]) -> Survey:
        """Count all messages; see ``celeriac.contracts.broker.Surveyed``."""
        await self._queues.revive()
        return await survey(self._queues.link, queues)

    async def purge(self, queue: str) -> int:
        await self._queues.revive()
        return await self._queues.link.count(sql.PURGE, queue)

    def remove(self, queue: str, unwanted: Unwanted) -> AsyncIterator[Removed]:
        """Remove single messages; see ``celeriac.contracts.removal.Removing``."""
        return remove_rows(PostgresRows(self._queues), queue, unwanted)

    @property
    def dead(self) -> DeadLetters:
        return PostgresDeadLetters(self._queues)

    @property
    def failed(self) -> PostgresFailed:
        """The failed list."""
        return PostgresFailed(self._queues)

    @property
    def schedule(self) -> Schedule:
        return PostgresSchedule(self._queues)

    @property
    def board(self) -> PostgresBoard:
        """The board of this database."""
        return self._board

    @property
    def fanout(self) -> RowFanout:
        """Fanout by tables of this database."""
        return self._fanout

    @property
    def transactions(self) -> PostgresTransactions:
        """Publishing in the caller's transactions."""
        return PostgresTransactions(self._queues)

    @property
    def beat(self) -> PostgresBeat:
        """Ticks of periodic tasks."""
        return PostgresBeat(self._queues, self._board.slots)

    def settlements(self, results: Backend) -> PostgresSettlements | None:
        """Return what lands decisions in one step, if the results are in this database."""
        if not isinstance(results, PostgresBackend):
            return None
        if not results.connections.target.leads_to(self.connections.target):
            return None
        for made in self._settlements:
            if made.results is results:
                return made
        self._settlements.append(PostgresSettlements(self._queues, results, self._is_behind))
        return self._settlements[-1]

    async def migrate(self) -> Sequence[str]:
        self._queues.join()
        return await self._queues.link.migrate()

    async def ping(self) -> str:
        self._queues.join()
        known = await self.queues()
        facts = await self._queues.link.facts()
        return f"PostgreSQL {facts.version}, {counted(len(known), 'queue')}"

    async def examine(self, queues: Sequence[str]) -> Sequence[Finding]:
        return [*self._queues.connections.lowered(), *await self._queues.examine()]

    async def close(self) -> None:
        """Stop the subscriptions, give back what is held, and close the connections if nobody else uses them."""
        await self._subscriptions.stop()
        await self._fanout.close()
        for settlements in self._settlements:
            await settlements.drain()
        await self._board.drain()
        await self._queues.close()

    def _is_behind(self) -> bool:
        """Whether messages that this process has taken wait for a slot."""
        return any(subscription.is_behind for subscription in self._subscriptions)
